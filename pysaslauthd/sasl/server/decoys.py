"""Passwords for names that nobody has, so that asking with one of them looks as with any other."""

import base64
import hmac

from pysaslauthd.model import Secret

DECOY_BYTES = 9  # 12 characters, about as many as people have: the longer, the longer it takes


def decoy_password(key: Secret, name: str) -> Secret:
    """Return what stands in for the password of *name*; with one *key* always the same.

    For `Stored`, with a refusal: to know it opens nothing.
    """
    mac = hmac.digest(key.reveal(), b"decoy\0" + name.encode(), "sha256")
    return Secret(base64.b64encode(mac[:DECOY_BYTES]))
