"""pysaslsmtpd as a process of its own, and servers of the test's own to stand behind it."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.helpers.daemon import command, environment, put
from tests.helpers.processes import Server, free_ports

REALM = "example.org"


class Submission(NamedTuple):
    """A running server: STARTTLS and the clear at *port*, TLS from the beginning at *tls_port*."""

    port: int
    tls_port: int
    server: Server

    def log(self) -> str:
        """Return what it has logged so far."""
        return self.server.output()


@contextmanager
def submission(
    directory: Path, *flags: str, within_tls: bool = False, port: int | None = None
) -> Iterator[Submission]:
    """Run the server while the block runs; it knows joe@example.org, whose password is joepw.

    *directory* is one that anybody may enter. *flags* may name another backend. The *port*
    is any that is free, unless it is named.
    """
    database = directory / "sasldb2"
    if not database.exists():
        put(database, REALM, "joe", b"joepw")
        database.chmod(0o644)
    free, tls_port = free_ports(2)
    port = port or free
    backend = [] if "-a" in flags else ["-a", "sasldb", "-O", str(database)]
    listen = ["--listen", f"127.0.0.1:{port}", "--hostname", "submit.test.example", "-V"]
    if within_tls:
        listen += ["--listen-tls", f"127.0.0.1:{tls_port}"]
    argv = [*command("smtpd"), *backend, *listen, *flags]
    log = directory / f"smtpd.log.{len(list(directory.glob('smtpd.log.*')))}"
    with Server(argv, log, environment()) as server:
        server.wait_until(lambda: ":serving\n" in server.output())
        yield Submission(port, tls_port, server)


class Behind:
    """A handler that answers as *answers* says, by verb and address, and keeps what it takes."""

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self._answers = answers or {}
        self.kept: list[tuple[str | None, list[str], bytes | None]] = []

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._answers.get(f"MAIL {address}", "250 2.1.0 Ok")

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = self._answers.get(f"RCPT {address}", "250 2.1.5 Ok")
        if answer == "hang up" and server.transport is not None:
            server.transport.close()
        elif answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        answer = self._answers.get("DATA", "250 2.0.0 Ok: queued as 1")
        if answer.startswith("250"):
            self.kept.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return answer


@contextmanager
def behind(handler: Behind) -> Iterator[int]:
    """Run a server with *handler* while the block runs; return its port."""
    (port,) = free_ports(1)
    server = Controller(handler, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield port
    finally:
        server.stop()


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and say nothing; return the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
