"""MD5 as CRAM-MD5 and DIGEST-MD5 are made of it, also where a policy forbids it.

An OpenSSL in FIPS mode refuses MD5 unless told that nothing depends on it
(`usedforsecurity=False`), and that is what it is told here. It is not so: whoever
has such a mechanism chosen on such a host goes outside of what the host is
approved for. Not to offer MD5 at all is for the configuration, not for the
library, to decide.
"""

import hashlib
import hmac
from functools import partial

# A callable: by its name, hmac would leave MD5 to OpenSSL, which refuses.
MD5 = partial(hashlib.md5, usedforsecurity=False)


def md5(data: bytes) -> bytes:
    """Return the 16 bytes of the digest of *data*."""
    return MD5(data).digest()


def hmac_md5(key: bytes, message: bytes) -> bytes:
    """Return the 16 bytes of HMAC-MD5 (RFC 2104)."""
    return hmac.new(key, message, MD5).digest()
