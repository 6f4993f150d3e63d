"""User and password as an IMAP server is told them: RFC 3501, RFC 4616, RFC 4959, RFC 7888.

Commands are in pieces: before each but the first the server must say that it
agrees. No bytes can end their string or the command: what does not print is in
a literal, which is as long as it says.
"""

import base64
import re

from pysaslauthd.model import Secret
from pysaslauthd.wire.imap_responses import Capabilities

COMMAND_BYTES = 1000  # RFC 2683 section 3.2.1.5; Dovecot takes no LOGIN over 1024
FREE_LITERAL_BYTES = 4096  # RFC 7888: the most that LITERAL- lets pass unasked
SHOWN_BYTES = 200  # of what a server said, in the log
NOT_SHOWN = "(not shown: it may repeat the password)"

QUOTABLE = re.compile(rb"[ -~]*")
TO_ESCAPE = re.compile(rb'["\\]')


class Asking:
    """A command that asks whether user and password are right: its *name*, and its *pieces*.

    It is no tuple, for that would print the password.
    """

    __slots__ = ("name", "pieces")

    def __init__(self, name: str, pieces: list[bytes]) -> None:
        self.name = name
        self.pieces = pieces


class Credentials:
    """User and password; ValueError where IMAP cannot carry them."""

    __slots__ = ("_password", "_user")

    def __init__(self, user: str, password: Secret) -> None:
        self._user = user.encode()
        self._password = password.reveal()
        if b"\0" in self._user or b"\0" in self._password:
            raise ValueError("IMAP carries no NUL byte")

    def encode(self, capabilities: Capabilities) -> Asking | None:
        """Return the command for a server of these capabilities; None where it takes no password.

        LOGIN, as the C daemon; AUTHENTICATE where that is forbidden, or too
        long for servers that take more of the other.
        """
        pieces = self._login(capabilities)
        is_forbidden = b"LOGINDISABLED" in capabilities
        if b"AUTH=PLAIN" in capabilities and (
            is_forbidden or sum(map(len, pieces)) > COMMAND_BYTES
        ):
            return Asking("AUTHENTICATE PLAIN", self._authenticate(capabilities))
        return None if is_forbidden else Asking("LOGIN", pieces)

    def shown(self, said: bytes) -> str:
        """Return what a server said for the log: bounded, printable, without the password.

        In none of the forms in which it was sent, nor the beginning of one, in any case.
        """
        forms = (self._password, quote(self._password)[1:], self._plain())
        if any(Secret(form).shows_in(said) for form in forms):
            return NOT_SHOWN
        text = said[:SHOWN_BYTES].decode(errors="backslashreplace")
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

    def _login(self, capabilities: Capabilities) -> list[bytes]:
        pieces = [b"saslauthd LOGIN"]
        for text in (self._user, self._password):
            first, *others = encode_string(text, capabilities)
            pieces[-1] += b" " + first
            pieces += others
        pieces[-1] += b"\r\n"
        return pieces

    def _authenticate(self, capabilities: Capabilities) -> list[bytes]:
        command, message = b"saslauthd AUTHENTICATE PLAIN", self._plain()
        if b"SASL-IR" in capabilities and len(command) + len(message) < COMMAND_BYTES:
            return [b"%b %b\r\n" % (command, message)]
        return [command + b"\r\n", message + b"\r\n"]

    def _plain(self) -> bytes:
        return base64.b64encode(b"\0%b\0%b" % (self._user, self._password))


def encode_string(text: bytes, capabilities: Capabilities) -> list[bytes]:
    """Return *text*, without NUL, as a string in pieces: quoted where it prints, else a literal."""
    if QUOTABLE.fullmatch(text):
        return [quote(text)]
    if b"LITERAL+" in capabilities or (
        b"LITERAL-" in capabilities and len(text) <= FREE_LITERAL_BYTES
    ):
        return [b"{%d+}\r\n%b" % (len(text), text)]
    return [b"{%d}\r\n" % len(text), text]


def quote(text: bytes) -> bytes:
    """Return *text* as a quoted string."""
    return b'"%b"' % TO_ESCAPE.sub(rb"\\\g<0>", text)
