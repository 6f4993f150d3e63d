"""Where the nonces of both halves come from."""

import base64
import secrets
from collections.abc import Callable

NONCE_BYTES = 24  # of randomness; in base64 without padding

Nonces = Callable[[], str]
"""Makes nonces: printable ASCII without comma, quote and backslash, never the same twice."""


def random_nonce() -> str:
    """Return 32 characters that nobody can guess."""
    return base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode()
