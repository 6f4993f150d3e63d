"""What the servers under measure ask in their turn: found or missing, started, delayed, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.servers import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GRACE = 5.0  # seconds


@dataclass(frozen=True)
class Peer:
    """A server at a port of 127.0.0.1; *pid* is its first process, *log* what it has said."""

    pid: int
    port: int
    log: Path


def need(programs: Mapping[str, str]) -> None:
    """NotMeasuredError, with the Debian package, where one of the *programs* is missing."""
    for program, package in programs.items():
        if shutil.which(program) is None:
            raise NotMeasuredError(f"{program} is missing: apt-get install {package}")


@contextlib.contextmanager
def compiled(program: str, *arguments: str, tools: Path) -> Iterator[Peer]:
    """Run one of the compiled servers, which says at which port it listens."""
    log = tools / f"{program}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(tools / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        word, _, port = process.stdout.readline().decode().strip().partition(" ")
        if word != "port":
            raise NotMeasuredError(f"{program} does not listen: {log.read_text()}")
        yield Peer(process.pid, int(port), log)
    finally:
        process.kill()
        process.communicate(timeout=GRACE)


@contextlib.contextmanager
def delayed(peer: Peer, milliseconds: float, tools: Path) -> Iterator[Peer]:
    """Put a way of so many milliseconds, in either direction, before *peer*."""
    with compiled("relay", str(milliseconds), str(peer.port), tools=tools) as relay:
        yield relay


@contextlib.contextmanager
def silenced(peer: Peer) -> Iterator[None]:
    """Let *peer* say nothing for the length of a block; whoever connects meanwhile is let in.

    The kernel lets them in, for the process is stopped.
    """
    os.kill(peer.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(peer.pid, signal.SIGCONT)
