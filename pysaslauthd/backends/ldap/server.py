"""One directory server: how it is asked, and what becomes of it when it does not answer.

The service's identity asks on shared connections. Passwords are checked on
others, one at a time on each (RFC 4511 section 4.2.1), and whoever such a
connection has become by that asks nothing: all that is ever said on it is the
next bind.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

from pysaslauthd.backends.ldap.connection import (
    Answer,
    Connection,
    Lost,
    Pulse,
    ServerFailed,
    Silent,
    Unanswered,
)
from pysaslauthd.backends.ldap.pools import Exclusive, Shared
from pysaslauthd.remote.connect import Connector, Unreachable
from pysaslauthd.remote.endpoint import Security
from pysaslauthd.wire import ldap, ldap_filter

log = logging.getLogger(__name__)

IDLE = 30.0  # seconds without use until a connection is closed, before others on the way do that
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds between looks at a server that has failed
REFUSED_PAUSE = 30.0  # the same where it refuses the service, which might lock the service out
ANYTHING = ldap.search(b"", ldap.SearchRules("base"), ldap_filter.ANY_ENTRY)

T = TypeVar("T")


class Refused(ServerFailed):
    """The server does not take the service for what it says it is."""


TakeOn = Callable[[Connection], Awaitable[None]]
"""Makes a new connection the service's; Refused where the server does not let it."""


class Limits(NamedTuple):
    """*timeout* in seconds for connecting, and for each answer; *connections* for passwords."""

    timeout: float
    connections: int


class Server:
    """The server that *connector* leads to. Belongs to the running event loop.

    Once it has failed nobody asks it, *problem* says why, and it is looked at
    until it answers again.
    """

    def __init__(self, name: str, connector: Connector, take_on: TakeOn, limits: Limits) -> None:
        self.name = name
        self.problem = ""
        self._connector = connector
        self._take_on = take_on
        self._timeout = limits.timeout
        self._pulse = Pulse()
        self._shared = Shared(self._open_for_service)
        self._exclusive = Exclusive(self._open, limits.connections)
        self._looking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(IDLE, self._sweep)

    @property
    def host(self) -> str:
        """The host's name, as it is configured."""
        return self._connector.endpoint.host

    async def ask(self, kind: int, operation: bytes) -> Answer:
        """Return the answer to what the service asks; ServerFailed where there is none."""
        begun = self._loop.time()
        try:
            return await self._shared.ask(kind, operation)
        except (ServerFailed, Unreachable, asyncio.CancelledError) as error:
            raise self._learned(error, begun) from None

    async def use(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what *work* makes of a connection that it has for itself, to bind on.

        ServerFailed where there is no connection, or no answer.
        """
        begun = self._loop.time()
        try:
            return await self._exclusive.use(work)
        except (ServerFailed, Unreachable, asyncio.CancelledError) as error:
            raise self._learned(error, begun) from None

    async def greet(self) -> None:
        """Be ready for the first request, or say in the log why that is not to be."""
        with contextlib.suppress(ServerFailed):
            await self.ask(ldap.SEARCH_DONE, ANYTHING)

    async def close(self) -> None:
        """Let go of everything; nothing is opened any more."""
        self.problem = self.problem or f"{self.name}: it is not asked any more"
        self._sweeper.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._shared.end()
        await self._exclusive.end()

    def _learned(self, error: Exception | asyncio.CancelledError, begun: float) -> BaseException:
        """Return what to raise for *error*; note what it tells about the server."""
        if isinstance(error, asyncio.CancelledError):
            # By the request's deadline, which may be before our timeout.
            if self._pulse.heard < begun:
                self._failed(Silent(f"no word from it within {self._loop.time() - begun:.1f} s"))
            return error
        return self._failed(error)

    def _failed(self, error: Exception) -> ServerFailed:
        """Return what to raise for *error*; ask the server no more if that is its failure."""
        if isinstance(error, Unanswered):
            return Unanswered(f"{self.name}: {error}")
        if not self.problem:
            self._give_up(error)
        return ServerFailed(self.problem)

    def _give_up(self, error: Exception) -> None:
        self._note(error)
        if isinstance(error, Silent):
            # Whoever else waits need not wait for as long.
            self._shared.close("it is silent")
            self._exclusive.close("it is silent")
        self._looking = asyncio.create_task(self._look(_first_pause(error)))

    def _note(self, error: Exception) -> None:
        """Say what the problem is, unless that has been said."""
        told = str(error) if isinstance(error, Unreachable) else f"{self.name}: {error}"
        if told != self.problem:
            self.problem = told
            log.error("%s", told)

    async def _look(self, pause: float) -> None:
        """Return when the server answers again."""
        while self.problem:
            await asyncio.sleep(pause)
            pause = min(max(FIRST_PAUSE, pause * 2), LONGEST_PAUSE)
            try:
                await self._try_out()
            except Refused as error:
                self._note(error)
                pause = REFUSED_PAUSE
            except (ServerFailed, Unreachable) as error:
                self._note(error)
                self._close_unused(self._loop.time())  # it may have no room
            else:
                self.problem = ""
                log.warning("%s: it answers again", self.name)

    async def _try_out(self) -> None:
        """Have a word from it, for it may accept a connection and be silent."""
        connection = await self._connect(lambda _: None)
        try:
            await self._take_on(connection)
            await connection.ask(ldap.SEARCH_DONE, ANYTHING)
        finally:
            connection.close()

    async def _open_for_service(self, on_closed: Callable[[Connection], None]) -> Connection:
        connection = await self._open(on_closed)
        try:
            await self._take_on(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _open(self, on_closed: Callable[[Connection], None]) -> Connection:
        if self.problem:
            raise ServerFailed(self.problem)
        return await self._connect(on_closed)

    async def _connect(self, on_closed: Callable[[Connection], None]) -> Connection:
        connection = await self._connector.connect(
            partial(Connection, self._timeout, self._pulse, on_closed)
        )
        if self._connector.endpoint.security is Security.STARTTLS:
            try:
                await connection.start_tls(self._connector)
            except BaseException:
                connection.close()
                raise
        return connection

    def _close_unused(self, since: float) -> None:
        self._shared.close_unused(since)
        self._exclusive.close_unused(since)

    def _sweep(self) -> None:
        self._close_unused(self._loop.time() - IDLE)
        self._sweeper = self._loop.call_later(IDLE / 2, self._sweep)


def _first_pause(error: Exception) -> float:
    """Return after how many seconds to look at a server that has failed by *error*."""
    if isinstance(error, Lost | Silent):  # it may have been no more than one connection's fault
        return 0.0
    return REFUSED_PAUSE if isinstance(error, Refused) else FIRST_PAUSE
