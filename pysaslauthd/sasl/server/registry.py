"""Which mechanisms there are: by name, and from the strongest to the weakest."""

import hashlib
from functools import cache

from pysaslauthd.sasl.server.anonymous import ANONYMOUS
from pysaslauthd.sasl.server.cram_md5 import CRAM_MD5
from pysaslauthd.sasl.server.digest_md5 import DIGEST_MD5
from pysaslauthd.sasl.server.external import EXTERNAL
from pysaslauthd.sasl.server.login import LOGIN
from pysaslauthd.sasl.server.mechanism import Mechanism
from pysaslauthd.sasl.server.plain import PLAIN
from pysaslauthd.sasl.server.scram import (
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    SCRAM_SHA_512,
    SCRAM_SHA_512_PLUS,
)

# Cyrus SASL's order, in which clients see them: what a server proves comes before what an
# eavesdropper cannot try passwords on, which is why EXTERNAL stands where it does.
STRONGEST_FIRST = (
    SCRAM_SHA_512_PLUS,
    SCRAM_SHA_512,
    SCRAM_SHA_256_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_1,
    DIGEST_MD5,
    EXTERNAL,
    CRAM_MD5,
    PLAIN,
    LOGIN,
    ANONYMOUS,
)
OF_MD5 = (DIGEST_MD5, CRAM_MD5)
BY_NAME = {mechanism.name: mechanism for mechanism in STRONGEST_FIRST}


def find(name: str) -> Mechanism | None:
    """Return the mechanism called *name*, in any case of letters; None if there is none."""
    return BY_NAME.get(name.upper())


@cache
def is_md5_approved() -> bool:
    """Say whether this system lets programs use MD5 for security: one in FIPS mode does not."""
    try:
        hashlib.md5(b"")  # noqa: S324 (to see whether it is refused)
    except ValueError:
        return False
    return True


def usable() -> tuple[Mechanism, ...]:
    """Return the mechanisms, strongest first, that this system's policy lets a server offer."""
    return tuple(m for m in STRONGEST_FIRST if is_md5_approved() or m not in OF_MD5)
