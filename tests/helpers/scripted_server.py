"""A unix-socket server that replies as a test tells it to, however odd that is."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path


class Odd(Enum):
    """What a server may do instead of replying; to read and hang up is the reply b""."""

    HANG_UP = "close without reading"
    SILENCE = "read, and say nothing until the client leaves"


Reply = bytes | Odd


class ScriptedServer:
    """One reply of the script for each connection; *requests* holds what the clients sent."""

    def __init__(self, path: Path, script: Sequence[Reply]) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()

    def serve(self) -> None:
        """Go through the script; ends early when the listener is shut down."""
        with self._listener, suppress(OSError):
            for reply in self._script:
                connection, _ = self._listener.accept()
                with connection:
                    self._answer(connection, reply)

    def _answer(self, connection: socket.socket, reply: Reply) -> None:
        if reply is Odd.HANG_UP:
            return
        self.requests.append(connection.recv(1 << 20))
        if reply is Odd.SILENCE:
            connection.recv(1)
        else:
            connection.sendall(reply)

    def stop(self) -> None:
        """End `serve`, wherever it is."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def scripted_server(path: Path, *script: Reply) -> Iterator[ScriptedServer]:
    """Serve *script* at *path* in a thread while the block runs."""
    server = ScriptedServer(path, script)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=10)
