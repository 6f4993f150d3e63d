"""Servers under test: started, awaited with a deadline, stopped by id, never left behind."""

import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

DEADLINE = 20.0
POLL_EVERY = 0.01
FIRST_PORT, PORTS = 10_000, 20_000  # below ip_local_port_range, ip(7)
_ports = itertools.count(os.getpid() * 1009)  # each process begins elsewhere


@contextmanager
def short_directory(prefix: str) -> Iterator[Path]:
    """Make a directory that anyone may pass through, short enough for a socket's path."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def wait_for(condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Return when *condition* holds; AssertionError, naming *what*, at the deadline."""
    until = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {deadline:g} seconds")
        time.sleep(POLL_EVERY)


def accepts(path: Path) -> bool:
    """Say whether a server accepts connections at the unix socket *path*."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has but who asks for it by its number.

    The system gives it to nobody who wants just any, and this process and those
    beside it not again for long.
    """
    while True:
        port = FIRST_PORT + next(_ports) % PORTS
        with socket.socket(socket.AF_INET) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def free_ports(number: int) -> list[int]:
    """Return so many of them, each once."""
    return [free_port() for _ in range(number)]


class ServerFailed(Exception):
    """A server ended too soon, was not ready in time, or did not end; the text has its output."""


class Server:
    """A process in a session of its own.

    Some servers signal their whole process group when they end, and that must
    not be the tests' one. Should the tests die, the server gets a SIGTERM.
    """

    def __init__(
        self, argv: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._output = output
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                [*guard, *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=env,
                start_new_session=True,
            )
        self.pid = self._process.pid
        # Readable when the process has ended: a wait that does not reap, so
        # that its id stays its own until its group is gone.
        self._ended = os.pidfd_open(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def has_ended(self, within: float = 0.0) -> bool:
        """Say whether the process ends *within* so many seconds."""
        return bool(select.select([self._ended], [], [], within)[0])

    def wait_until(self, ready: Callable[[], bool], deadline: float = DEADLINE) -> None:
        """Return when *ready* holds; stop the server and raise ServerFailed if it never does."""
        until = time.monotonic() + deadline
        while not ready():
            if self.has_ended(within=POLL_EVERY) or time.monotonic() > until:
                raise ServerFailed(f"not ready; exit code {self.stop()}\n{self.output()}")

    def output(self) -> str:
        """Return what the server has written so far."""
        return self._output.read_text(errors="backslashreplace")

    def stop(self, deadline: float = DEADLINE) -> int:
        """End the process and what is left of its group; return its exit code."""
        if self._process.returncode is not None:
            return self._process.returncode
        self._process.terminate()
        obeyed = self.has_ended(within=deadline)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        os.close(self._ended)
        if not obeyed:
            raise ServerFailed(f"no end within {deadline:g} seconds of SIGTERM\n{self.output()}")
        return code
