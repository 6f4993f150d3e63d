"""The listening sockets of a door: who knocks is let in, and an error does not keep it busy."""

import asyncio
import socket
from collections.abc import Callable

from pysaslauthd.server.complaints import Complaints

PAUSE = 0.1  # seconds without accepting after an error that would only come again


class Intake:
    """Calls *accept* with a socket at which somebody knocks, from `add` until `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        complaints: Complaints,
        accept: Callable[[socket.socket], None],
    ) -> None:
        self._loop = loop
        self._complaints = complaints
        self._accept = accept
        self._listeners: list[socket.socket] = []

    def add(self, listener: socket.socket) -> None:
        """Watch *listener*, a non-blocking listening socket."""
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def pause(self, listener: socket.socket, error: OSError) -> None:
        """Accept nothing for a moment: the listener stays readable, and trying burns time."""
        if isinstance(error, ConnectionAbortedError):
            return
        self._complaints.error("cannot accept connections: %s; trying again", error.strerror)
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE, self._resume, listener)

    def close(self) -> list[socket.socket]:
        """Watch nothing any more; return what was watched, which stays open."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._loop.remove_reader(listener)
        return listeners

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
