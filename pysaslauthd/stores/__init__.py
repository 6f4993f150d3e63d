"""File formats that hold secrets."""
