"""The server halves of the mechanisms, and what runs them."""
