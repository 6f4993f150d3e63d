"""The AUTH command (RFC 4954), the server's side, as a dialogue without sockets.

Codes and texts are Postfix's (mechanisms.md section 1), also where RFC 4954 has others:
base64 that is none, and a mechanism that is not offered, are 535 there.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import NamedTuple

from pysaslauthd.model import Accepted, Reason, Rejected
from pysaslauthd.sasl.server.mechanism import Challenge, Finished, Mechanism

LONGEST_LINE = 12288  # bytes of base64 (RFC 4954 section 4)
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
CANCEL, EMPTY = b"*", b"="

SUCCESS = "235 2.7.0 Authentication successful"
NOT_GREETED = "503 5.5.1 Error: send HELO/EHLO first"
NOT_ENABLED = "503 5.5.1 Error: authentication not enabled"
IN_TRANSACTION = "503 5.5.1 Error: MAIL transaction in progress"
NEEDS_TLS = "504 5.5.4 Encryption required for requested authentication mechanism"
ALREADY = "503 5.5.1 Error: already authenticated"
SYNTAX = "501 5.5.4 Syntax: AUTH mechanism"
ABORTED = "501 5.7.0 Authentication aborted"
TOO_LONG = "500 5.5.6 SASL response limit exceeded"
REFUSED = "535 5.7.8 Error: authentication failed: "
OUTAGE = "454 4.7.0 Temporary authentication failure: generic failure"
TOO_MANY = "421 4.7.0 {host} Error: too many errors"


class Start(NamedTuple):
    """Begin an exchange, and tell what it says first; *initial*: None is not b""."""

    mechanism: Mechanism
    initial: bytes | None


class Respond(NamedTuple):
    """Let the exchange go on with the client's *response*, and tell what it says then."""

    response: bytes


class Reply(NamedTuple):
    """Say *lines* to the client, after *delay* seconds.

    *awaits_response*: what it says next is for `hear`. *closes*: then hang up.
    """

    lines: tuple[str, ...]
    awaits_response: bool = False
    delay: float = 0.0
    closes: bool = False


class Connection(NamedTuple):
    """What a connection is at the moment of AUTH."""

    greeted: bool = True
    secured: bool = False
    in_transaction: bool = False


class Tries(NamedTuple):
    """How often a connection may fail, and the seconds a refusal is held: doubled each time."""

    most: int = 5
    first_delay: float = 1.0
    longest_delay: float = 8.0

    def delay(self, failures: int) -> float:
        """Return the seconds for the refusal that makes so many *failures*."""
        return min(self.longest_delay, self.first_delay * 2.0 ** min(failures - 1, 32))


class Dialogue:
    """AUTH on one connection to *host*, over as many tries as it takes.

    `begin` is for the command, `hear` for the lines that follow it, `tell` for what the
    exchange says. No bytes of the client's raise anything.
    """

    def __init__(self, host: str, tries: Tries, *, only_with_tls: bool = False) -> None:
        self.accepted: Finished | None = None  # whose result is Accepted
        self._host = host
        self._tries = tries
        self._only_with_tls = only_with_tls
        self._failures = 0
        self._owed: Finished | None = None  # once the client has answered the server's last word

    def begin(
        self, argument: bytes, connection: Connection, offered: Sequence[Mechanism]
    ) -> Start | Reply:
        """Return what AUTH with this *argument* leads to, where *offered* is what EHLO named."""
        self._owed = None
        words = argument.split()
        if problem := self._problem(words, connection, offered):
            return Reply((problem,))
        name = words[0].upper()
        chosen = [one for one in offered if one.name.encode() == name]
        if not chosen:
            return self._refuse("Invalid authentication mechanism")
        if len(words) == 1:
            return Start(chosen[0], None)
        initial = b"" if words[1] == EMPTY else _decode(words[1])
        if initial is None:
            return self._refuse("Invalid base64 data in initial response")
        return Start(chosen[0], initial)

    def hear(self, line: bytes) -> Respond | Reply:
        """Return what the *line*, without its end, leads to that answers a 334."""
        if len(line) > LONGEST_LINE:
            return Reply((TOO_LONG,))
        if line == CANCEL:
            return Reply((ABORTED,))
        response = _decode(line)
        if response is None:
            return self._refuse("Invalid base64 data in continued response")
        if self._owed is None:
            return Respond(response)
        if response:
            return self._refuse("bad protocol / cancel")
        return self._succeed(self._owed)

    def tell(self, said: Challenge | Finished) -> Reply:
        """Return what the client hears of what the exchange has *said*."""
        if isinstance(said, Challenge):
            return _challenge(said.data)
        result = said.result
        if isinstance(result, Accepted):
            if said.data is None:
                return self._succeed(said)
            # SMTP has no place for it beside 235 (RFC 4954 section 4).
            self._owed = said
            return _challenge(said.data)
        if isinstance(result, Rejected):
            is_malformed = result.reason is Reason.MALFORMED
            return self._refuse(
                "bad protocol / cancel" if is_malformed else "authentication failure"
            )
        return Reply((OUTAGE,))

    def restart(self) -> None:
        """Forget who the client is, as STARTTLS wants it (RFC 3207 section 4.2); not how often.

        What it has failed counts on.
        """
        self.accepted = self._owed = None

    def _problem(
        self, words: Sequence[bytes], connection: Connection, offered: Sequence[Mechanism]
    ) -> str | None:
        """Return why AUTH is no command to be followed now; the order is Postfix's."""
        needs_tls = self._only_with_tls and not connection.secured
        problems = (
            (not connection.greeted, NOT_GREETED),
            (connection.in_transaction, IN_TRANSACTION),
            (needs_tls, NEEDS_TLS),
            (not offered, NOT_ENABLED),
            (self.accepted is not None, ALREADY),
            (not 1 <= len(words) <= 2, SYNTAX),
        )
        return next((text for is_so, text in problems if is_so), None)

    def _succeed(self, end: Finished) -> Reply:
        self.accepted, self._owed = end, None
        return Reply((SUCCESS,))

    def _refuse(self, text: str) -> Reply:
        self._owed = None
        self._failures += 1
        delay = self._tries.delay(self._failures)
        if self._failures < self._tries.most:
            return Reply((REFUSED + text,), delay=delay)
        lines = (REFUSED + text, TOO_MANY.format(host=self._host))
        return Reply(lines, delay=delay, closes=True)


def _challenge(data: bytes) -> Reply:
    return Reply((f"334 {base64.b64encode(data).decode()}",), awaits_response=True)


def _decode(text: bytes) -> bytes | None:
    """Return what *text* is the base64 of; None where it is none."""
    return binascii.a2b_base64(text) if BASE64.fullmatch(text) else None
