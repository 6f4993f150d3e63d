"""The servers that are compared: how each is started, found and ended.

A new one is a new Server record: a command, and for a daemon that detaches the
file with its process id.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

# Seconds until a server must listen; it is wanted in half a second.
START_LIMIT = 10.0
LOG_BYTES_SHOWN = 400


class NotMeasuredError(Exception):
    """A number could not be had; the text says why."""


@dataclass(frozen=True)
class Place:
    """Where a server of one benchmark run finds its things."""

    tools: Path
    database: Path
    directory: Path

    @property
    def socket(self) -> Path:
        """The mux socket in the server's run directory."""
        return self.directory / "mux"


@dataclass(frozen=True)
class Server:
    """One thing to measure. *pid_file* is for a program that detaches itself.

    *peers* are the first processes of what it asks in its turn: their time is
    not its own. *environment* is added to ours.
    """

    name: str
    title: str
    command: Callable[[Place], list[str]]
    pid_file: str | None = None
    peers: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that listens: its first process, its socket, when and how fast it began."""

    server: Server
    pid: int
    socket: Path
    began: float
    start_seconds: float
    log: Path

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def peers(self) -> tuple[int, ...]:
        """The first processes of what it asks in its turn."""
        return self.server.peers


def ours(mechanism: str, *flags: str) -> Server:
    """Return ours with that backend."""

    def command(place: Place) -> list[str]:
        database = ["-O", str(place.database)] if mechanism == "sasldb" else []
        run = [sys.executable, "-m", "pysaslauthd", "-a", mechanism, "-f", *database]
        return [*run, "-m", str(place.directory), *flags]

    return Server("ours", "ours: pysaslauthd", command)


def cyrus(mechanism: str, *flags: str) -> Server:
    """Return the C daemon as distributions start it."""
    return _cyrus("cyrus", mechanism, ["-n", "5"], flags)


def cyrus32(mechanism: str, *flags: str) -> Server:
    """Return the C daemon for those who wait for others: with 32 processes."""
    return _cyrus("cyrus32", mechanism, ["-n", "32"], flags)


def tuned(mechanism: str) -> Server:
    """Return the C daemon at its fastest: with its cache, and without its accept lock."""
    return _cyrus("tuned", mechanism, ["-n", "5", "-l", "-c"], ())


def _cyrus(name: str, mechanism: str, kind: Sequence[str], flags: Sequence[str]) -> Server:
    def command(place: Place) -> list[str]:
        run = ["saslauthd", "-a", mechanism, "-m", str(place.directory)]
        return [*run, *kind, *flags]

    return Server(name, f"{name}: `{' '.join(kind)}`", command, "saslauthd.pid")


def _floor(place: Place) -> list[str]:
    return [str(place.tools / "floor"), str(place.socket)]


OURS, CYRUS, TUNED = ours("sasldb"), cyrus("sasldb"), tuned("sasldb")
FLOOR = Server("floor", "floor: C loop, no check", _floor)


@contextlib.contextmanager
def running(server: Server, place: Place) -> Iterator[Running]:
    """Start *server*, wait until it listens, and end it in the end."""
    place.directory.mkdir(mode=0o755)
    log = place.directory.with_suffix(".log")
    began = time.monotonic()
    with log.open("wb") as output:
        # A session of its own: when the C daemon ends it signals its whole process
        # group, and Ctrl-C must reach the benchmark only, which then ends the rest.
        child = subprocess.Popen(
            server.command(place),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **server.environment},
            start_new_session=True,
        )
    try:
        _wait_until(lambda: _listens(place.socket), child, server, log)
        seconds = time.monotonic() - began
        yield Running(
            server, _first_process(child, server, place), place.socket, began, seconds, log
        )
    finally:
        _end(child, server, place)


def _first_process(child: subprocess.Popen[bytes], server: Server, place: Place) -> int:
    if server.pid_file is None:
        return child.pid
    child.wait(START_LIMIT)
    return int((place.directory / server.pid_file).read_text())


def _end(child: subprocess.Popen[bytes], server: Server, place: Place) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError, subprocess.TimeoutExpired):
        processes.stop(_first_process(child, server, place))
    if child.poll() is None:
        processes.stop(child.pid)
    child.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(START_LIMIT)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _wait_until(
    is_ready: Callable[[], bool], child: subprocess.Popen[bytes], server: Server, log: Path
) -> None:
    limit = time.monotonic() + START_LIMIT
    while not is_ready():
        # A program that detaches itself ends with 0 when all is well.
        if child.poll() or (child.returncode == 0 and server.pid_file is None):
            raise NotMeasuredError(
                f"{server.name} ended with {child.returncode}: {last_words(log)}"
            )
        if time.monotonic() > limit:
            raise NotMeasuredError(f"{server.name} did not listen within {START_LIMIT:g} s")
        time.sleep(0.001)


def last_words(log: Path) -> str:
    """Return the end of what a server has written."""
    return log.read_text(errors="replace")[-LOG_BYTES_SHOWN:].strip() or "it said nothing"
