"""Connections to one server that are kept: some that many share, others for one at a time.

Both ask once more, on another connection, where one turns out to be closed: the
server, or somebody on the way, may have done that while nobody used it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter
from typing import TypeVar

from pysaslauthd.backends.ldap.connection import Answer, Connection, Lost
from pysaslauthd.remote.connect import GOODBYE

PIPELINED = 32  # operations on one connection: slapd closes one that has over 100 (slapd.conf(5))
SHARED = 4  # connections for that many each

Open = Callable[[Callable[[Connection], None]], Awaitable[Connection]]
"""Opens a connection, which calls back when it is closed; raises where it cannot."""

T = TypeVar("T")


class Shared:
    """A few connections on which many ask at once. Belongs to the running event loop."""

    def __init__(self, open_: Open) -> None:
        self._open = open_
        self._places = asyncio.Semaphore(SHARED * PIPELINED)
        self._connections: list[Connection] = []
        self._opening: asyncio.Task[None] | None = None

    async def ask(self, kind: int, operation: bytes) -> Answer:
        """Return a response of *kind*; raises what a connection raises, or the opening of one."""
        async with self._places:
            try:
                return await self._ask(kind, operation)
            except Lost:
                return await self._ask(kind, operation)

    async def _ask(self, kind: int, operation: bytes) -> Answer:
        while (connection := self._least_busy()) is None:
            await self._open_one()
        answer = connection.ask(kind, operation)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.abandon(answer)
            raise

    def _least_busy(self) -> Connection | None:
        """Return the connection to ask on, None where another should be opened."""
        least = min(self._connections, key=attrgetter("load"), default=None)
        if least is None or (least.load >= PIPELINED and len(self._connections) < SHARED):
            return None
        return least

    async def _open_one(self) -> None:
        """Open another connection; whoever needs one meanwhile waits for the same."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_new())
            # Nobody may be left to hear that it failed.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._opening)

    async def _open_new(self) -> None:
        try:
            connection = await self._open(self._forget)
        finally:
            self._opening = None
        if connection.failure is not None:  # it was closed as soon as it was open
            raise connection.failure
        self._connections.append(connection)

    def _forget(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def close(self, why: str) -> None:
        """Close all connections; who waits for an answer gets none."""
        for connection in self._connections[:]:
            connection.close(why)

    async def end(self) -> None:
        """Close all connections, also one that is being opened, and wait a moment for that."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await _end(self._connections)

    def close_unused(self, since: float) -> None:
        """Close those that nobody has used since that time of the loop."""
        for connection in self._connections[:]:
            if connection.used < since and not connection.load:
                connection.close()


class Exclusive:
    """At most *most* connections, each for one at a time. Belongs to the running event loop."""

    def __init__(self, open_: Open, most: int) -> None:
        self._open = open_
        self._places = asyncio.Semaphore(most)
        self._idle: list[Connection] = []  # the one used last at the end
        self._busy: set[Connection] = set()

    async def use(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what *work* makes of a connection, which it has for itself.

        Where it raises, the connection is in no known state, and is closed.
        """
        async with self._places:
            if self._idle:
                try:
                    return await self._use(self._idle.pop(), work)
                except Lost:
                    pass
            return await self._use(await self._open(self._forget), work)

    async def _use(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        self._busy.add(connection)
        try:
            done = await work(connection)
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if connection.failure is None:
            self._idle.append(connection)
        return done

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self, why: str) -> None:
        """Close all connections; who waits for an answer gets none."""
        for connection in [*self._idle, *self._busy]:
            connection.close(why)

    async def end(self) -> None:
        """Close all connections, and wait a moment for that."""
        await _end([*self._idle, *self._busy])

    def close_unused(self, since: float) -> None:
        """Close those that nobody has used since that time of the loop."""
        for connection in self._idle[:]:
            if connection.used < since:
                connection.close()


async def _end(connections: Iterable[Connection]) -> None:
    """Close *connections*; TLS wants to say goodbye."""
    gone = []
    for connection in list(connections):
        connection.close("the daemon is leaving")
        gone.append(connection.gone)
    if gone:
        await asyncio.wait(gone, timeout=GOODBYE)
