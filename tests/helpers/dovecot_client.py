"""A client of the Dovecot auth-client protocol that says what it is told, good or bad."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.helpers.processes import DEADLINE

CLOSED, SILENT = b"(closed)", b"(silent)"  # in place of a line


class DovecotClient:
    """A connection to the server at *path*; *greeting* are its lines up to DONE."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self.greeting = list(iter(self.hear, b"DONE"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lines.close()
        self._socket.close()

    def say(self, data: bytes) -> None:
        """Send *data*; a server that has hung up meanwhile is heard of later."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def say_no_more(self) -> None:
        """Tell the server that nothing will follow."""
        self._socket.shutdown(socket.SHUT_WR)

    def hear(self) -> bytes:
        """Return the next line without its end; CLOSED where the server has hung up.

        SILENT where it says nothing until the deadline.
        """
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            return CLOSED
        except TimeoutError:
            return SILENT
        return line.removesuffix(b"\n") if line else CLOSED
