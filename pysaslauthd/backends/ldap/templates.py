"""Texts with tokens such as %u, and what the tokens stand for in one request.

A value is escaped for where it goes: in a name by RFC 4514; in a filter it needs
none, for it is put into what has been parsed. Tokens: protocols/backends.md section 9.
"""

import re
from typing import NamedTuple

from pysaslauthd.wire import ldap_filter
from pysaslauthd.wire.ldap_filter import hole

TOKEN = re.compile(r"%(.?)", re.DOTALL)
TOKENS = frozenset("uUdsrRD123456789")
HOLE = re.compile("[\ud800-\ud8ff]")
SPECIAL_IN_DN = re.compile(rb'[\x00-\x1f "#+,;<=>\\\x7f]')
SPECIAL_IN_FILTER = re.compile(rb"[\x00-\x1f()*\\\x7f]")  # and what is not for people's eyes


class Subject(NamedTuple):
    """Whom a request is about; *dn* is the name of the entry, once that is known."""

    user: str
    service: str
    realm: str
    dn: bytes = b""

    def value(self, letter: str) -> bytes:
        """Return what a token stands for; nothing where that is missing."""
        if letter == "u":
            return self.user.encode()
        if letter == "D":
            return self.dn
        return self._text(letter).encode()

    def _text(self, letter: str) -> str:
        local, _, domain = self.user.partition("@")
        match letter:
            case "U":
                return local
            case "d":
                return domain
            case "s":
                return self.service
            case "r":
                return self.realm
            case "R":
                return f"@{self.realm}" if self.realm else ""
        labels = (domain or self.realm).split(".")
        number = int(letter)
        return labels[-number] if number <= len(labels) else ""


class Template:
    """A setting with tokens in it; unknown tokens stand for nothing, as in the C daemon."""

    def __init__(self, text: str) -> None:
        self._marked = TOKEN.sub(_hole, text)
        self.tokens = frozenset(TOKEN.findall(text)) & TOKENS

    def parse_filter(self) -> ldap_filter.Filter:
        """Return the filter that it is; FilterProblem where it is none."""
        return ldap_filter.parse(self._marked)

    def as_dn(self, subject: Subject) -> bytes:
        """Return the name that it makes for *subject*."""
        if not self.tokens:
            return self._marked.encode()
        return self._filled(subject, SPECIAL_IN_DN)

    def as_filter_text(self, subject: Subject) -> str:
        """Return the text of the filter that it makes for *subject*, for people."""
        return self._filled(subject, SPECIAL_IN_FILTER).decode(errors="backslashreplace")

    def _filled(self, subject: Subject, special: re.Pattern[bytes]) -> bytes:
        """Return its text, with what is *special* in a value as a backslash and two digits."""

        def escaped(found: re.Match[str]) -> str:
            letter = chr(ord(found[0]) - ldap_filter.HOLES)
            value = subject.value(letter)
            if letter != "D" or special is SPECIAL_IN_FILTER:  # a name in a name stands as it is
                value = special.sub(lambda one: b"\\%02x" % one[0][0], value)
            return value.decode(errors="surrogateescape")

        return HOLE.sub(escaped, self._marked).encode(errors="surrogateescape")


def _hole(found: re.Match[str]) -> str:
    if found[1] == "%":
        return "%"
    return hole(found[1]) if found[1] in TOKENS else ""
