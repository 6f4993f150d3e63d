"""An IMAP server that says what a test tells it to, however odd that is."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum

from tests.helpers.certificates import Certificate
from tests.helpers.peers import presenting
from tests.helpers.processes import DEADLINE
from tests.helpers.workers import eventually

GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN] ready\r\n"
OK, NO = b"saslauthd OK in\r\n", b"saslauthd NO out\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER


class Do(Enum):
    """What a server does besides saying something."""

    HEAR = "read until a line ends"
    READ = "read something"
    HANG_UP = "close"
    RESET = "break the connection"
    SILENCE = "say nothing until the client leaves"
    START_TLS = "speak TLS from now on"


Act = bytes | Do | threading.Event  # which is awaited
HEAR, READ, HANG_UP, RESET, SILENCE, START_TLS = Do


class ImapServer:
    """Goes through *script* for each connection, then waits for LOGOUT and hangs up.

    *heard* has what the clients said, one entry for each connection.
    """

    def __init__(self, script: Sequence[Act], host: str, context: ssl.SSLContext | None) -> None:
        self.heard: list[bytes] = []
        self.is_open: list[bool] = []
        self.script = script
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=1000)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Serve until `stop`."""
        with self._listener, suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(DEADLINE)
                number = len(self.heard)
                self.is_open.append(True)
                self.heard.append(b"")
                threading.Thread(target=self._talk, args=(connection, number), daemon=True).start()

    def stop(self) -> None:
        """End `serve`."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    async def all_heard(self) -> list[bytes]:
        """Return what the clients said, when all of them are gone."""
        await eventually(lambda: not any(self.is_open), "end of all connections")
        return self.heard

    def _talk(self, connection: socket.socket, number: int) -> None:
        try:
            with suppress(OSError):
                for act in self.script:
                    connection = self._do(act, connection, number)
                while b" LOGOUT" not in self.heard[number] and self._hear(connection, number):
                    pass
        finally:
            connection.close()
            self.is_open[number] = False

    def _do(self, act: Act, connection: socket.socket, number: int) -> socket.socket:
        """Do one thing; return the connection, which has TLS from then on or not."""
        if isinstance(act, bytes):
            connection.sendall(act)
        elif isinstance(act, threading.Event):
            act.wait(DEADLINE)
        elif act is START_TLS:
            assert self._context is not None
            return self._context.wrap_socket(connection, server_side=True)
        elif act in {HEAR, READ, SILENCE}:
            while self._hear(connection, number) and not self._is_enough(act, number):
                pass
        else:
            if act is RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            connection.close()
        return connection

    def _is_enough(self, act: Act, number: int) -> bool:
        return act is READ or (act is HEAR and self.heard[number].endswith(b"\n"))

    def _hear(self, connection: socket.socket, number: int) -> bytes:
        data = connection.recv(65536)
        self.heard[number] += data
        return data


@contextmanager
def imap_server(
    *script: Act, host: str = "127.0.0.1", certificate: Certificate | None = None
) -> Iterator[ImapServer]:
    """Serve *script* in threads while the block runs."""
    server = ImapServer(script, host, None if certificate is None else presenting(certificate))
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=DEADLINE)
