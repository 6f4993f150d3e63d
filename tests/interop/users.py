"""The users of the interop tests, and a database of them as Cyrus' own tool writes it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.helpers.processes import DEADLINE

REALM = "test.example"


class User(NamedTuple):
    """A name in REALM and its password; surrogate escapes stand for bytes that are no UTF-8."""

    name: str
    password: str

    @property
    def login(self) -> str:
        """The name as it is typed into a mail client."""
        return f"{self.name}@{REALM}"


JOE = User("joe", "right")
ZOE = User("zoë", "pässwörd €")
LATIN = User("latin", os.fsdecode(b"caf\xe9"))
SPACED = User("spaced", "two words ")
LONG = User("long", "x" * 1000)  # libsasl's LOGIN takes 1024 bytes at most

USERS = [JOE, ZOE, LATIN, SPACED, LONG]


def make_database(path: Path) -> None:
    """Write USERS into a new file at *path*, owned as on Debian."""
    for user in USERS:
        subprocess.run(
            ["saslpasswd2", "-c", "-p", "-f", path, "-u", REALM, user.name],
            input=os.fsencode(user.password),
            check=True,
            timeout=DEADLINE,
        )
    own_as_debian_does(path)


def own_as_debian_does(path: Path) -> None:
    """Give the file at *path* to root, for group sasl to use."""
    shutil.chown(path, "root", "sasl")
    path.chmod(0o660)
