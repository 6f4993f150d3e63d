"""The form of the C daemon's files, such as /etc/saslauthd.conf: a key, a colon, a value.

Facts: protocols/backends.md section 8. Which keys there are, their readers know.
"""

import re
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from pysaslauthd.config.tables import Tls
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret

DEFAULT_FILE = "/etc/saslauthd.conf"
KEY = re.compile(rb"([A-Za-z0-9_-]*)(:?)[ \t\f\v\r]*(.*)", re.DOTALL)

T = TypeVar("T", bound=Tls)


class Line(NamedTuple):
    """One setting: *place* is the file and the line's number, for messages."""

    place: str
    key: str
    value: bytes

    @property
    def text(self) -> str:
        """The value as text; StartupError where it is not UTF-8, or has a NUL."""
        if b"\0" in self.value:
            raise StartupError(f"{self.place}: {self.key} has a NUL byte")
        try:
            return self.value.decode()
        except UnicodeDecodeError:
            raise StartupError(f"{self.place}: {self.key} is not UTF-8") from None

    @property
    def switch(self) -> bool | None:
        """The value as yes or no, by its first letters as in the C daemon; None: neither."""
        if self.value[:1] in (b"0", b"n", b"f") or self.value[:2] == b"of":
            return False
        if self.value[:1] in (b"1", b"y", b"t") or self.value[:2] == b"on":
            return True
        return None

    @property
    def number(self) -> int | None:
        """The value as atoi(3) reads it; None where it begins with no digit."""
        found = re.match(rb"-?[0-9]{1,18}", self.value)  # more digits are no 64 bits
        return int(found[0]) if found else None


def read_lines(path: str) -> list[Line]:
    """Return the settings in the file at *path*, in its order; StartupError names what is wrong."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StartupError(f"cannot open {path}: {error.strerror}") from None
    lines = []
    for number, whole in enumerate(content.split(b"\n"), 1):
        line = whole.removesuffix(b"\r").lstrip()
        if line and not line.startswith(b"#"):
            lines.append(_parse(f"{path}: line {number}", line))
    return lines


def _parse(place: str, line: bytes) -> Line:
    found = KEY.match(line)
    if found is None or not found[2]:
        raise StartupError(f"{place}: no colon separator")
    key = found[1].decode().lower()
    if not found[3]:
        raise StartupError(f"{place}: keyword {key}: no value")
    return Line(place, key, found[3])


def with_identity(table: T, name: str) -> T:
    """Return *table* with the text of its tls_cert and tls_key, which only root may read.

    *name* is the table's, for messages. StartupError where one is missing or cannot be read.
    """
    if table.tls_cert is None and table.tls_key is None:
        return table
    if table.tls_cert is None or table.tls_key is None:
        raise StartupError(f"{name}: tls_cert and tls_key belong together: one of them is missing")
    text = b""
    for path in (table.tls_cert, table.tls_key):
        try:
            text += Path(path).read_bytes() + b"\n"
        except OSError as error:
            raise StartupError(f"{name}: cannot read {path}: {error.strerror}") from None
    return msgspec.structs.replace(table, tls_identity=Secret(text))
