"""aiosmtpd servers with our AUTH, each in a thread of its own, and a client to talk to them."""

import base64
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.backends.static import Static
from pysaslauthd.engine.library import exchanges
from pysaslauthd.model import Secret
from pysaslauthd.server.auth import Auth
from pysaslauthd.server.smtp import SaslSMTP
from pysaslauthd.smtp.dialogue import Tries
from pysaslauthd.smtp.options import DEFAULT_POLICY, Policy
from tests.helpers.certificates import Certificate
from tests.helpers.processes import DEADLINE, free_port, wait_for

HOST = "mail.test.example"
USERS = Static({"joe": Secret(b"joepw"), "ann": Secret(b"annpw")})
AT_ONCE = Tries(most=3, first_delay=0.0)


class Keeper:
    """A handler that keeps who has sent what."""

    def __init__(self) -> None:
        self.kept: list[tuple[object, str | None, list[str]]] = []

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.kept.append((session.auth_data, envelope.mail_from, envelope.rcpt_tos))
        return "250 2.0.0 Ok"


def auth(
    policy: Policy = DEFAULT_POLICY,
    *,
    backend: PasswordVerifier = USERS,
    broken_clients: bool = False,
    tries: Tries = AT_ONCE,
) -> Auth:
    """Return the AUTH of a server whose users are Joe and Ann."""
    made = Auth.of(exchanges(backend, HOST), HOST, policy, broken_clients=broken_clients)
    return replace(made, tries=tries)


@contextmanager
def smtp_server(
    made: Auth,
    handler: object | None = None,
    *,
    within_tls: ssl.SSLContext | None = None,
    **options: Any,
) -> Iterator[int]:
    """Run a server while the block runs; return its port. *options* are SaslSMTP's."""
    connections: list[SaslSMTP] = []

    class Server(Controller):
        def factory(self) -> SMTP:
            one = SaslSMTP(self.handler, auth=made, hostname=HOST, loop=self.loop, **options)
            connections.append(one)
            return one

    chosen = handler or Keeper()
    server = Server(chosen, hostname="127.0.0.1", port=free_port(), ssl_context=within_tls)
    server.start()
    try:
        yield server.port
    finally:
        # The loop must not end before they do.
        wait_for(lambda: all(one.transport is None for one in connections), "the connections' end")
        server.stop()


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a context with which a server shows *certificate*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def trusting_context() -> ssl.SSLContext:
    """Return a context with which a client believes any server."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Client:
    """A connection to the server at *port*, which has greeted, unless the caller *hears* it."""

    def __init__(
        self,
        port: int,
        wrap: Callable[[socket.socket], socket.socket] | None = None,
        *,
        hears: bool = True,
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        if wrap is not None:
            self._socket = wrap(self._socket)
        self._lines = self._socket.makefile("rb")
        if hears:
            self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lines.close()
        self._socket.close()

    def say(self, line: bytes | str) -> list[str]:
        """Send *line*; return the lines of the reply."""
        self._socket.sendall((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.hear()

    def hear(self) -> list[str]:
        """Return the lines of the next reply; none where the server has hung up."""
        said = []
        while (line := self._lines.readline())[3:4] == b"-":
            said.append(line)
        return [one.decode().rstrip("\r\n") for one in [*said, line] if one]

    def say_nothing_more(self, data: bytes) -> None:
        """Send *data* and wait for nothing."""
        self._socket.sendall(data)

    def is_cut_off_by(self, data: bytes, times: int) -> bool:
        """Send *data* so many times; say whether the server hangs up before it has it all."""
        try:
            for _ in range(times):
                self._socket.sendall(data)
        except ConnectionError:
            return True
        return False

    def read_little(self) -> None:
        """Have no room for many replies, but some: Linux drops what comes where there is none.

        With it goes the word that what was sent has arrived, and nothing more is sent.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)

    def break_off(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def certificate(self) -> bytes:
        """Return the certificate that the server has shown, in DER."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.getpeercert(binary_form=True) or b""

    def start_tls(self) -> None:
        """Ask for TLS and begin with it."""
        assert self.say("STARTTLS")[0].startswith("220")
        self._lines.close()
        self._socket = trusting_context().wrap_socket(self._socket)
        self._lines = self._socket.makefile("rb")


def auth_plain(user: str, password: str) -> str:
    """Return the command by which *user* logs in with *password*."""
    message = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    return f"AUTH PLAIN {message}"
