"""Servers elsewhere: where they are, how they are reached, and what protects the way."""
