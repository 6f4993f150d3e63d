"""The server halves of the mechanisms; the engine runs them."""
