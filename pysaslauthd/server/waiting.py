"""Connections that have not yet said all, kept so cheaply that thousands delay nobody.

A waiting connection is a descriptor in an epoll set of its own and one small
object: no transport, no task, no timer. The set's own descriptor is what the
event loop watches.
"""

import asyncio
import logging
import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger(__name__)

ONCE = select.EPOLLIN | select.EPOLLONESHOT
EVENTS_AT_ONCE = 64  # then the listeners get their turn
DRIBBLE_FACTOR = 3  # a request must be complete within this many idle times
SECONDS_BETWEEN_COMPLAINTS = 60.0


class Waiting:
    """One connection: what it said so far, and whether it has been answered already."""

    __slots__ = ("accepted", "answered", "data", "descriptor", "heard")

    def __init__(self, descriptor: int, data: bytes, now: float) -> None:
        self.descriptor = descriptor
        self.data = data
        self.accepted = self.heard = now
        self.answered = False


class Bounds(NamedTuple):
    """*idle_after* in seconds of silence; *most* connections in all."""

    idle_after: float
    most: int


class WaitingRoom:
    """Calls *on_bytes* when a connection has something to read; closes the silent ones."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds,
        on_bytes: Callable[[Waiting], None],
    ) -> None:
        self._loop = loop
        self._bounds = bounds
        self._on_bytes = on_bytes
        self._epoll = select.epoll()
        self._by_silence: dict[int, Waiting] = {}  # the longest silent first
        self._sweeper: asyncio.TimerHandle | None = None
        self._complained = float("-inf")
        loop.add_reader(self._epoll, self._on_events)

    def __len__(self) -> int:
        return len(self._by_silence)

    def __contains__(self, connection: Waiting) -> bool:
        return self._by_silence.get(connection.descriptor) is connection

    def admit(self, descriptor: int, data: bytes = b"") -> Waiting:
        """Keep a connection that has said *data* until it says more, or is silent for too long."""
        connection = Waiting(descriptor, data, time.monotonic())
        self._by_silence[descriptor] = connection
        try:
            self._epoll.register(descriptor, ONCE)
        except FileExistsError:  # released a moment ago
            self._epoll.modify(descriptor, ONCE)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._bounds.idle_after, self._sweep)
        return connection

    def keep(self, connection: Waiting) -> None:
        """Wait for more from *connection*, which said something; dribbling helps only so long."""
        self._epoll.modify(connection.descriptor, ONCE)
        now = time.monotonic()
        if now - connection.accepted < self._bounds.idle_after * (DRIBBLE_FACTOR - 1):
            connection.heard = now
            self._by_silence[connection.descriptor] = self._by_silence.pop(connection.descriptor)

    def release(self, connection: Waiting) -> int:
        """Forget *connection*, which said something; its descriptor is the caller's to close.

        It stays in the epoll set, disarmed, until it is closed: that saves a call.
        """
        del self._by_silence[connection.descriptor]
        return connection.descriptor

    def close(self, connection: Waiting) -> None:
        """Close *connection* if it still waits."""
        if connection in self:
            # Closing takes the descriptor out of the epoll set: nothing else refers to it.
            del self._by_silence[connection.descriptor]
            os.close(connection.descriptor)

    def make_place(self) -> bool:
        """Close the connection that has been silent longest; False where there is none."""
        longest = next(iter(self._by_silence.values()), None)
        if longest is None:
            return False
        self._complain(time.monotonic() - longest.heard)
        self.close(longest)
        return True

    def shut(self) -> None:
        """Close everything; once more does nothing."""
        if self._epoll.closed:
            return
        for connection in list(self._by_silence.values()):
            self.close(connection)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._loop.remove_reader(self._epoll)
        self._epoll.close()

    def _on_events(self) -> None:
        for descriptor, _ in self._epoll.poll(0, EVENTS_AT_ONCE):
            # One of these may have been closed to make place for another.
            connection = self._by_silence.get(descriptor)
            if connection is not None:
                self._on_bytes(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        now = time.monotonic()
        for connection in list(self._by_silence.values()):
            rest = connection.heard + self._bounds.idle_after - now
            if rest > 0:
                self._sweeper = self._loop.call_later(rest, self._sweep)
                return
            self.close(connection)

    def _complain(self, silent: float) -> None:
        now = time.monotonic()
        if now - self._complained < SECONDS_BETWEEN_COMPLAINTS:
            return
        self._complained = now
        log.warning(
            "too many open connections (at most %d): closing those that are silent longest"
            " (%.1f s); raise the limit on open files or find the client that keeps them open",
            self._bounds.most,
            silent,
        )


def read_some(descriptor: int, size: int) -> bytes | None:
    """Return what there is to read, b"" at the end or after an error, None if nothing has come."""
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def write_and_forget(descriptor: int, reply: bytes) -> None:
    """Send *reply*; a client that has gone does not get it.

    A reply is small and the first thing written: it always fits the socket's buffer.
    """
    try:  # noqa: SIM105 (contextlib.suppress costs as much as the rest of the call)
        os.write(descriptor, reply)
    except OSError:
        pass
