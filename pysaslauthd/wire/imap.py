"""One login at an IMAP server, the client's side, without sockets.

RFC 3501 and RFC 9051; response codes RFC 5530. LOGIN and LOGOUT and their tag
are the C daemon's (protocols/backends.md section 5), but it knows nothing of
TLS, capabilities and literals.
"""

from collections.abc import Generator
from typing import NamedTuple

from pysaslauthd.model import Reason
from pysaslauthd.wire.imap_credentials import Credentials
from pysaslauthd.wire.imap_responses import (
    CONTINUATION,
    UNTAGGED,
    Capabilities,
    Response,
    ResponseReader,
    Unexpected,
    parse_capabilities,
)

TAG = b"saslauthd"
# What is asked before has tags of its own (RFC 9051 section 2.2.1): were it answered twice, the
# second answer would be taken for the one to user and password.
STARTTLS_TAG, CAPABILITY_TAG = b"saslauthd1", b"saslauthd2"
LOGOUT = b"saslauthd LOGOUT\r\n"

NO_GREETINGS = {
    b"BYE": "it takes no connection now",
    b"NO": "it takes no connection now",
    b"PREAUTH": "it takes us for somebody who has logged in (PREAUTH)",
}
NO_PASSWORDS = (
    "it takes no passwords on this connection (LOGINDISABLED, and no AUTH=PLAIN); perhaps it does"
    " with TLS: imap+starttls:// or imaps://"
)
# With these, NO does not say that the password is wrong. With any other code, or none, it does.
OUTAGES = frozenset(
    {
        b"CLIENTBUG",
        b"CORRUPTION",
        b"INUSE",
        b"LIMIT",
        b"PRIVACYREQUIRED",
        b"REFERRAL",  # RFC 2221: another server knows
        b"SERVERBUG",
        b"UNAVAILABLE",
    }
)
REASONS = {
    b"AUTHORIZATIONFAILED": Reason.DENIED,
    b"CONTACTADMIN": Reason.DENIED,
    b"EXPIRED": Reason.PASSWORD_EXPIRED,
    b"NOPERM": Reason.DENIED,
}


class Yes(NamedTuple):
    """The server let the user in."""


class No(NamedTuple):
    """It did not, for *reason*; *said* is its answer, *is_alert* that people must see it."""

    reason: Reason
    said: bytes
    is_alert: bool


class Unclear(NamedTuple):
    """Whether the password is right cannot be told; *problem* says why, *said* the server."""

    problem: str
    said: bytes = b""


Outcome = Yes | No | Unclear
# Yields what to send, perhaps nothing, and gets the next response; returns None when TLS is due.
Script = Generator[bytes, Response, Outcome | None]
Saying = Generator[bytes, Response, Response]


class Login:
    """One login: `receive` takes what the server says and returns what to say, until *outcome*.

    When it *wants_tls*, TLS is due, and then `go_on`. From when it *has_asked*
    the server knows user and password.
    """

    __slots__ = (
        "_capabilities",
        "_command",
        "_credentials",
        "_failure",
        "_reader",
        "_script",
        "has_asked",
        "outcome",
        "wants_tls",
    )

    def __init__(self, credentials: Credentials, *, starts_tls: bool) -> None:
        self._credentials = credentials
        self._reader = ResponseReader()
        self._capabilities: Capabilities | None = None
        self._failure: Unexpected | None = None
        self._script = self._open(starts_tls=starts_tls)
        next(self._script)
        self._command = ""  # whose answer is awaited; at first there is none
        self.has_asked = False
        self.outcome: Outcome | None = None
        self.wants_tls = False

    def receive(self, data: bytes) -> bytes:
        """Return what to send, perhaps nothing, now that the server has said *data*.

        Unexpected where this is no login any more: then nothing can be sent.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._receive(data)
        except Unexpected as failure:
            self._failure = failure
            raise

    def go_on(self) -> bytes:
        """Return what to send now that there is TLS."""
        self.wants_tls = False
        self._capabilities = None  # anybody could have said what was said before
        self._script = self._log_in()
        return next(self._script)

    def awaited(self, server: str = "") -> str:
        """Return what is being waited for, in words: `answer of imap.example.org to LOGIN`."""
        whose = f" of {server}" if server else ""
        return f"answer{whose} to {self._command}" if self._command else f"greeting{whose}"

    def _receive(self, data: bytes) -> bytes:
        if self.outcome is not None:
            return b""
        self._reader.feed(data)
        reply = b""
        while not self._is_paused and (response := self._reader.next()) is not None:
            reply += self._step(response)
        if self.wants_tls and self._reader.has_more():
            raise Unexpected("it went on unencrypted after its answer to STARTTLS")
        return reply

    @property
    def _is_paused(self) -> bool:
        return self.wants_tls or self.outcome is not None

    def _step(self, response: Response) -> bytes:
        if response.code == b"CAPABILITY":
            self._capabilities = parse_capabilities(response.arguments)
        try:
            reply = self._script.send(response)
        except StopIteration as end:
            self.outcome = end.value
            self.wants_tls = end.value is None
            return b""
        if reply:
            self._reader.note_command()
        return reply

    def _open(self, *, starts_tls: bool) -> Script:
        greeting = yield b""
        if greeting.tag != UNTAGGED or greeting.status in (b"", b"BAD"):
            raise Unexpected("it does not greet as an IMAP server does", greeting.said)
        if greeting.status != b"OK":
            return Unclear(NO_GREETINGS[greeting.status], greeting.said)
        if not starts_tls:
            return (yield from self._log_in())
        command = STARTTLS_TAG + b" STARTTLS\r\n"
        answer = yield from self._say(command, "STARTTLS", STARTTLS_TAG)
        return None if answer.status == b"OK" else _unclear(answer, "STARTTLS")

    def _log_in(self) -> Script:
        if self._capabilities is None:
            command = CAPABILITY_TAG + b" CAPABILITY\r\n"
            answer = yield from self._say(command, "CAPABILITY", CAPABILITY_TAG)
            if answer.tag != CAPABILITY_TAG:
                return _unclear(answer, "CAPABILITY")
        asking = self._credentials.encode(self._capabilities or frozenset())
        if asking is None:
            return Unclear(NO_PASSWORDS)
        for piece in asking.pieces[:-1]:
            answer = yield from self._say(piece, asking.name)
            if answer.tag != CONTINUATION:
                return _unclear(answer, asking.name)
        self.has_asked = True
        return _judge((yield from self._say(asking.pieces[-1], asking.name)), asking.name)

    def _say(self, command: bytes, name: str, tag: bytes = TAG) -> Saying:
        """Return the answer to *command*: its completion, a continuation request, or BYE."""
        self._command = name
        response = yield command
        while response.tag == UNTAGGED and response.status != b"BYE":
            response = yield b""
        if response.is_early and response.tag != UNTAGGED:
            raise Unexpected(f"it answered {name} before it was asked", response.said)
        if response.tag == tag and response.status not in (b"OK", b"NO", b"BAD"):
            raise Unexpected(f"no answer to {name}", response.said)
        if response.tag not in (tag, CONTINUATION, UNTAGGED):
            raise Unexpected(f"an answer to something else than {name}", response.said)
        return response


def _unclear(answer: Response, name: str) -> Unclear:
    word = (answer.status or answer.tag).decode()
    code = f" ({answer.code.decode()})" if answer.code in OUTAGES else ""
    return Unclear(f"it answered {word}{code} to {name}", answer.said)


def _judge(answer: Response, name: str) -> Outcome:
    """Return what the answer to user and password means."""
    if answer.tag == CONTINUATION:
        raise Unexpected(f"it wants more than user and password of {name}", answer.said)
    if answer.status == b"OK":
        return Yes()
    if answer.status != b"NO" or answer.code in OUTAGES:
        return _unclear(answer, name)
    reason = REASONS.get(answer.code, Reason.WRONG_PASSWORD)
    return No(reason, answer.said, is_alert=answer.code == b"ALERT")
