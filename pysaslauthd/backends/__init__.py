"""One module for each way to find out whether a password is right."""
