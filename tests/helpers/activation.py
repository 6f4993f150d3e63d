"""Starts the daemon as systemd does with sockets."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.helpers.daemon import environment
from tests.helpers.instance import Instance

ACTIVATE = """
import os, sys
names, *numbers = sys.argv[1].split(",")
for target, number in enumerate(numbers, 3):
    os.dup2(int(number), target)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=names)
os.execv(sys.argv[2], sys.argv[2:])
"""


def activate(
    place: Instance, names: str, numbers: list[int], *flags: str
) -> subprocess.Popen[bytes]:
    """Start the daemon as systemd does with sockets; *numbers* are their descriptors here."""
    what = ",".join([names, *map(str, numbers)])
    with (place.directory / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, what, *place.argv("-f", *flags)],
            pass_fds=numbers,
            stdout=output,
            stderr=output,
            env=environment(),
        )


@contextmanager
def passed_sockets(place: Instance, names: str, count: int, *flags: str) -> Iterator[list[Path]]:
    """Serve *count* sockets that were passed by name, for the length of a block."""
    paths = [place.directory / f"passed{number}" for number in range(count)]
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in paths]
        for listener, path in zip(listeners, paths, strict=True):
            listener.bind(str(path))
            listener.listen()
        process = activate(place, names, [listener.fileno() for listener in listeners], *flags)
        try:
            yield paths
        finally:
            process.terminate()
            process.wait(timeout=10)
