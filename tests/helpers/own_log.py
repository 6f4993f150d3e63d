"""A syslog that only one program sees: in a mount namespace of its own; root only."""

import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tests.helpers.processes import DEADLINE, short_directory

# With a /dev of its own, whose log is its first argument, it runs the others.
SCRIPT = """
mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 &&
ln -s "$0" /dev/log && exec "$@"
"""
END = b"end"


class OwnLog:
    """The syslog of a program that runs by the command *within*; it never makes that wait."""

    def __init__(self, path: str) -> None:
        self.within = ["unshare", "--mount", "sh", "-c", SCRIPT, path]
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def lines(self) -> Iterator[str]:
        """Yield the lines that it gets, as they come."""
        while True:
            yield self._heard.get(timeout=DEADLINE)

    def listen(self, listening: socket.socket) -> None:
        """Take lines until there is END."""
        while (line := listening.recv(4096)) != END:
            self._heard.put(line.decode(errors="backslashreplace"))


def require_mount_namespaces(lacking: Callable[[str], NoReturn]) -> None:
    """Leave the test out where a program can have no mount namespace; *lacking* is the fixture."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        lacking("needs a mount namespace of its own")


@contextmanager
def own_log(lacking: Callable[[str], NoReturn]) -> Iterator[OwnLog]:
    """Make one; *lacking*, the fixture, leaves the test out where that cannot be."""
    require_mount_namespaces(lacking)
    with (
        short_directory("sd-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        path = directory / "log"
        listening.bind(str(path))
        path.chmod(0o666)
        made = OwnLog(str(path))
        thread = threading.Thread(target=made.listen, args=(listening,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listening.sendto(END, str(path))
            thread.join(DEADLINE)
