"""SASL mechanisms as scripts that do no I/O: what each says, what it makes of the answer."""
