"""Settings, and what turns text into them."""
