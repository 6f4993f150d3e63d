"""The conversations of tests/vectors/dovecot: what a client says, and what it hears.

`hears` is what a real Dovecot 2.3 answers; where we answer otherwise, `here` has our lines,
and `because` the reason. Answers are in the order of the requests' ids, and refusals last.

A line's fields are separated by a blank, which stands for TAB, and may be quoted as in
a shell. `\\x09` is that byte, `[x*9]` nine times x, `{text}` is text in base64. `{=}` is what
our own client half of the mechanism in `client` says next: at first, or to the line heard
then. `(hear)`: the client hears a line before it goes on; `(end)`: it says that nothing will
follow. In answers `*` is any text within a field, and `(closed)` means that the server has
hung up, which it must not have done where that is missing.
"""

import base64
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials, find
from tests.helpers.dovecot_client import CLOSED, SILENT, DovecotClient
from tests.helpers.postfix import HOST_NAME

VECTORS = Path(__file__).parents[1] / "vectors" / "dovecot"
GREETING = ("VERSION 1 2", "CPID 77")
ENCODED = re.compile(rb"{([^=}].*?)}", re.DOTALL)
LAST = b"AUTH\t999\tPLAIN\tservice=last\tresp=AGpvZQBqb2Vwdw==\n"
ENDS = {CLOSED, SILENT}
LAST_OK = b"OK\t999\t"


class Transcript(NamedTuple):
    """A conversation; see above."""

    name: str
    say: list[str]
    hears: list[str]
    here: list[str] | None = None
    because: str = ""
    greeting: tuple[str, ...] | list[str] = GREETING
    client: tuple[str, ...] | list[str] = ()

    def responses(self) -> "Responses":
        """Return what the client says."""
        if not self.client:
            return Responses(None)
        mechanism, authcid, password, *authzid = self.client
        secret = Secret(password.encode())
        credentials = Credentials(authcid, secret, "".join(authzid), None, "smtp", HOST_NAME)
        return Responses(ClientExchange(find(mechanism), credentials))


class Responses:
    """What a client says in one exchange, in turn."""

    def __init__(self, exchange: ClientExchange | None) -> None:
        self._exchange = exchange
        self._initial = exchange.initial if exchange else None

    def to(self, challenge: bytes) -> bytes:
        """Return the initial response, if there is one and it is due; else the answer."""
        response, self._initial = self._initial, None
        if response is None and self._exchange is not None:
            return self._exchange.respond(challenge)
        return response or b""


def _transcripts() -> list[Transcript]:
    table = tomllib.loads((VECTORS / "transcripts.toml").read_text())
    return [Transcript(**item) for item in table["transcript"]]


TRANSCRIPTS = _transcripts()


def answers(path: Path, transcript: Transcript, expected: list[str]) -> list[bytes]:
    """Return what the server at *path* says: as many lines as are *expected*, or one more.

    A server that has not hung up has then said all, for it still answers.
    """
    with DovecotClient(path) as client:
        heard = list(_converse(client, transcript))
        while len(heard) < len(expected) and not ENDS & set(heard):
            heard.append(client.hear())
        if not ENDS & set(heard):
            client.say(LAST)
            heard.append(client.hear())
    return sorted((line for line in heard if not line.startswith(LAST_OK)), key=_order)


def all_answers(path: Path, expected: Callable[[Transcript], list[str]]) -> dict[str, list[bytes]]:
    """Return the answers to all transcripts, by their names; refusals take their time."""
    with ThreadPoolExecutor(24) as pool:
        found = pool.map(lambda one: answers(path, one, expected(one)), TRANSCRIPTS)
        return dict(zip((one.name for one in TRANSCRIPTS), found, strict=True))


def fits(answer: bytes, expected: str) -> bool:
    """Say whether *answer* is the line *expected*: its fields one by one."""
    fields, wanted = answer.split(b"\t"), _fields(expected)
    return len(fields) == len(wanted) and all(map(_fits, fields, wanted))


def _converse(client: DovecotClient, transcript: Transcript) -> Iterator[bytes]:
    """Say it all, in as few pieces as may be; yield the lines that had to be heard meanwhile."""
    responses, pending = transcript.responses(), b""
    for line in [*transcript.greeting, *transcript.say]:
        challenge = b""
        if line == "(hear)" or ("{=}" in line and line.startswith("CONT")):
            client.say(pending)
            pending = b""
            heard = client.hear()
            yield heard
            if not heard.startswith(b"CONT\t"):
                return
            challenge = base64.b64decode(heard.split(b"\t")[2])
        if line == "(end)":
            client.say(pending)
            client.say_no_more()
            return
        if line != "(hear)":
            pending += _line(line, responses.to(challenge) if "{=}" in line else b"")
    client.say(pending)


def _line(text: str, response: bytes) -> bytes:
    fields = [field.replace(b"{=}", base64.b64encode(response)) for field in _fields(text)]
    return b"\t".join(ENCODED.sub(_encoded, field) for field in fields) + b"\n"


def _fields(text: str) -> list[bytes]:
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.escape, lexer.commenters = " ", True, "", ""
    return [_bytes(field) for field in lexer]


def _bytes(text: str) -> bytes:
    data = re.sub(rb"\\x(..)", lambda code: bytes.fromhex(code[1].decode()), text.encode())
    return re.sub(rb"\[(.)\*(\d+)\]", lambda found: found[1] * int(found[2]), data)


def _encoded(text: re.Match[bytes]) -> bytes:
    return base64.b64encode(text[1])


def _fits(field: bytes, wanted: bytes) -> bool:
    text = ENCODED.search(wanted)
    if text is None:
        return _is_like(field, wanted)
    name, message = field[: text.start()], field[text.start() :]
    return name == wanted[: text.start()] and _is_like(base64.b64decode(message), text[1])


def _is_like(text: bytes, pattern: bytes) -> bool:
    return re.fullmatch(re.escape(pattern).replace(rb"\*", b".*"), text, re.DOTALL) is not None


def _order(line: bytes) -> tuple[bool, bytes, bytes]:
    """Return what sorts the lines: those of one id as they came, but refusals last."""
    word, *rest = line.split(b"\t")
    return line == CLOSED, b"".join(rest[:1]), line if word == b"FAIL" else b""
