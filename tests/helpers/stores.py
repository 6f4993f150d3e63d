"""What the tests of the stores share."""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from pysaslauthd.stores import sasldb
from pysaslauthd.stores.records import Records

ANN = sasldb.key(b"ann", b"example.org")
BOB = sasldb.key(b"bob", b"example.org")

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def setting(name: bytes, value: bytes) -> Callable[[Records], None]:
    """Return the change that stores *value* under *name*."""
    return lambda records: records.update({name: value})


def removing(name: bytes) -> Callable[[Records], None]:
    """Return the change that deletes *name*, which must be there."""

    def change(records: Records) -> None:
        del records[name]

    return change


def nothing(records: Records) -> None:
    """Change nothing."""
    del records


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be user nobody in group nogroup for a while; root only."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
