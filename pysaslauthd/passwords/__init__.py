"""Formats in which passwords are stored."""
