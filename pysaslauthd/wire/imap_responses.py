"""What an IMAP server says, cut into responses: RFC 3501 and RFC 9051.

Only what a login needs is understood: status, code and capabilities.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage

MOST_BYTES = 65536  # of all a server says in one dialogue; they are some hundreds as a rule
LINE_BYTES = 8192  # RFC 2683 section 3.2.1.5 wants servers to take as much

UNTAGGED, CONTINUATION = b"*", b"+"
STATUSES = frozenset({b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"})

# A tag, a word, and after a status perhaps a code in brackets with its arguments. Possessive, so
# that no line takes longer than it is long.
RESPONSE = re.compile(rb"(\S++)(?: ++(\S++)(?: ++\[([^\] ]++) ?+([^\]]*+)\])?)?")
LITERAL = re.compile(rb"\{([0-9]{1,10})\}\r?\n")

Capabilities = frozenset[bytes]


class Response(NamedTuple):
    """One response; *said* is its line as it came, which may repeat what the server was sent.

    *status* is one of STATUSES with its *code*, upper-case, and the code's
    *arguments*; both b"" where it has none. Without a status, *code* is the kind
    of the data, and *arguments* the data. *is_early*: it came before the command.
    """

    tag: bytes
    status: bytes
    code: bytes
    arguments: bytes
    said: bytes
    is_early: bool


class Unexpected(MalformedMessage):
    """A response that has no place here; the text is safe to log, *said* need not be."""

    def __init__(self, text: str, said: bytes = b"") -> None:
        super().__init__(text)
        self.said = said


class ResponseReader:
    """Cuts what a server says into responses; Unexpected where there is too much of it."""

    __slots__ = ("_at", "_early_until", "_heard", "_looked_until", "_size")

    def __init__(self) -> None:
        self._heard = b""
        self._at = 0  # where in _heard the next response begins
        self._looked_until = 0  # to where its literals are known
        self._early_until = 0
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise Unexpected(f"more than {MOST_BYTES} bytes")
        self._early_until -= self._at
        self._looked_until -= self._at
        self._heard = self._heard[self._at :] + data
        self._at = 0

    def next(self) -> Response | None:
        """Return the next response, None while it is incomplete."""
        start = self._at
        end = self._heard.find(b"\n", start) + 1
        if (end or len(self._heard)) - start > LINE_BYTES:
            raise Unexpected(f"a line of more than {LINE_BYTES} bytes")
        if not end:
            return None
        line = self._heard[start : end - 1].removesuffix(b"\r")
        response = _parse(line, is_early=start < self._early_until)
        if not response.status and response.tag == UNTAGGED:
            end = self._end_of_data()
        if not end:
            return None
        self._at = end
        return response

    def note_command(self) -> None:
        """Note that a command is sent: what is here already does not answer it."""
        self._early_until = len(self._heard)

    def has_more(self) -> bool:
        """Say whether something has come that no response was made of."""
        return self._at < len(self._heard)

    def _end_of_data(self) -> int:
        """Return where the data end that begin here; 0 while they are incomplete.

        Each of their lines may announce a literal (RFC 3501 section 4.3); texts
        for people announce none, whatever they look like.
        """
        start = max(self._at, self._looked_until)
        while end := self._heard.find(b"\n", start) + 1:
            literal = LITERAL.search(self._heard, start, end)
            if not literal:
                break
            start = end + int(literal[1])
            if start > MOST_BYTES:
                raise Unexpected(f"more than {MOST_BYTES} bytes")
            if start > len(self._heard):
                return 0
            self._looked_until = start
        return end


def _parse(line: bytes, *, is_early: bool) -> Response:
    found = RESPONSE.match(line)
    if found is None:
        raise Unexpected("a line that is no response", line)
    tag, word, code, arguments = found.groups(b"")
    word = word.upper()
    if word in STATUSES and tag != CONTINUATION:
        return Response(tag, word, code.upper(), arguments, line, is_early)
    arguments = line[found.end(2) :] if word else b""
    return Response(tag, b"", word, arguments, line, is_early)


@lru_cache(maxsize=64)  # a server says the same to everybody
def parse_capabilities(text: bytes) -> Capabilities:
    """Return the words of a capability list, upper-case."""
    return frozenset(text.upper().split())
