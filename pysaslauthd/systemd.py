"""What systemd passes to a service and wants to hear from it: sockets by name, and states.

sd_listen_fds(3) and sd_notify(3), without their library.
"""

import contextlib
import os
import socket
import time

from pysaslauthd.errors import StartupError
from pysaslauthd.server.listener import Listeners

FIRST_DESCRIPTOR = 3
DOORS = ("mux", "dovecot")
LATER_DOORS = ("submission", "control", "metrics")


def inherited_listeners() -> Listeners:
    """Return the listening sockets that systemd passed.

    FileDescriptorName= tells each one's door; a name may repeat. The environment
    variables are removed, so that no child takes the sockets for its own.
    StartupError where a socket has no door here: nobody would answer it.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return Listeners()
    names += [""] * (int(count) - len(names))
    for name in names[: int(count)]:
        _check_door(name)
    found = Listeners()
    for at in range(int(count)):
        sockets = found.mux if names[at] == "mux" else found.dovecot
        sockets.append(_listener(FIRST_DESCRIPTOR + at, names[at]))
    return found


def _check_door(name: str) -> None:
    served = " and ".join(DOORS)
    if name in LATER_DOORS:
        raise StartupError(f"systemd passed a socket named {name!r}: this release serves {served}")
    if name not in DOORS:
        raise StartupError(
            f"systemd passed a socket named {name!r}, which names no door",
            f"set FileDescriptorName= in its .socket unit: {served}",
        )


def _listener(descriptor: int, name: str) -> socket.socket:
    try:
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartupError(
            f"descriptor {descriptor} ({name}) from systemd: {error.strerror}"
        ) from None
    usable = listens and found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM
    if not usable:
        found.close()
        raise StartupError(
            f"descriptor {descriptor} ({name}) from systemd is no listening unix stream socket",
            "use ListenStream= with a path in its .socket unit",
        )
    found.settimeout(0)
    found.set_inheritable(False)
    return found


class Notifier:
    """Tells systemd the service's state; silent where NOTIFY_SOCKET is unset."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # WATCHDOG_PID is ours only when not detached; systemd supervises us then.
        self.watched = os.environ.pop("WATCHDOG_USEC", "").isdecimal()

    def ready(self) -> None:
        """Say that start-up or a reload is complete."""
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Say that a reload has begun."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service leaves."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog, where there is one."""
        if self.watched:
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(0)
            to.sendto(state.encode(), self._address)
