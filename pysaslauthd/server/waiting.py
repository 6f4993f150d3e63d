"""Connections that have not yet said all, kept so cheaply that thousands delay nobody.

A waiting connection is in an epoll set of its own and costs one small object:
no transport, no task, no timer. The set's own descriptor is what the event loop
watches.
"""

import asyncio
import logging
import select
import time
from collections import OrderedDict
from collections.abc import Callable
from socket import SocketType
from typing import NamedTuple

from pysaslauthd.server.complaints import Complaints

log = logging.getLogger(__name__)

ONCE = select.EPOLLIN | select.EPOLLONESHOT
EVENTS_AT_ONCE = 64  # then the listeners get their turn
DRIBBLE_FACTOR = 3  # a request must be complete within so many idle times of its first byte


# The C type below socket.socket: that one's methods cost a quarter of the rate.
Client = SocketType


class Waiting:
    """One connection: what it said so far, and whether it has been answered already."""

    __slots__ = ("answered", "began", "client", "data", "descriptor", "heard")

    def __init__(self, client: Client, *, answered: bool = False) -> None:
        self.client = client
        self.descriptor = client.fileno()
        self.data = b""
        self.answered = answered
        self.began = self.heard = time.monotonic()


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
        self.bounds = bounds
        self._loop = loop
        self._on_bytes = on_bytes
        self._epoll = select.epoll()
        self._by_silence: OrderedDict[int, Waiting] = OrderedDict()  # the longest silent first
        self._sweeper: asyncio.TimerHandle | None = None
        self._complaints = Complaints(log)
        loop.add_reader(self._epoll, self._on_events)

    def __len__(self) -> int:
        return len(self._by_silence)

    def __contains__(self, connection: Waiting) -> bool:
        return self._by_silence.get(connection.descriptor) is connection

    def admit(self, connection: Waiting) -> None:
        """Keep a connection until it says more, or is silent or dribbles for too long."""
        connection.heard = time.monotonic()
        dribbles = connection.heard - connection.began > self.bounds.idle_after * DRIBBLE_FACTOR
        if dribbles or not self._watch(connection.descriptor):
            connection.client.close()
            return
        self._by_silence[connection.descriptor] = connection
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self.bounds.idle_after, self._sweep)

    def _watch(self, descriptor: int) -> bool:
        """Wait for bytes on *descriptor*; False where the kernel takes no more of them."""
        try:
            self._epoll.register(descriptor, ONCE)
        except FileExistsError:  # it was released a moment ago
            self._epoll.modify(descriptor, ONCE)
        except OSError as error:
            self._complain(f"one cannot be watched: {error.strerror}")
            return False
        return True

    def release(self, connection: Waiting) -> None:
        """Forget *connection*, which has something to say; it is the caller's to close.

        It stays in the epoll set, disarmed, until it is closed: that saves a call.
        """
        del self._by_silence[connection.descriptor]

    def close(self, connection: Waiting) -> None:
        """Close *connection* if it still waits."""
        if connection in self:
            # Closing takes the descriptor out of the epoll set: nothing else refers to it.
            del self._by_silence[connection.descriptor]
            connection.client.close()

    def make_place(self) -> bool:
        """Close the connection that has been silent longest; False where there is none."""
        longest = self._longest_silent()
        if longest is None:
            return False
        silent = time.monotonic() - longest.heard
        self._complain(f"closing those that are silent longest ({silent:.1f} s)")
        self.close(longest)
        return True

    def shut(self) -> None:
        """Close everything; once more does nothing."""
        if self._epoll.closed:
            return
        while (connection := self._longest_silent()) is not None:
            self.close(connection)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._loop.remove_reader(self._epoll)
        self._epoll.close()

    def _longest_silent(self) -> Waiting | None:
        return next(iter(self._by_silence.values()), None)

    def _on_events(self) -> None:
        for descriptor, _ in self._epoll.poll(0, EVENTS_AT_ONCE):
            # One of these may have been closed to make place for another.
            connection = self._by_silence.get(descriptor)
            if connection is not None:
                self._on_bytes(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        now = time.monotonic()
        while (connection := self._longest_silent()) is not None:
            rest = connection.heard + self.bounds.idle_after - now
            if rest > 0:
                self._sweeper = self._loop.call_later(rest, self._sweep)
                return
            self.close(connection)

    def _complain(self, what: str) -> None:
        self._complaints.warning(
            "too many open connections (at most %d): %s; raise the limit on open files"
            " or find the client that keeps them open",
            self.bounds.most,
            what,
        )
