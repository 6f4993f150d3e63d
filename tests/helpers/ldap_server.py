"""An LDAP server that answers as a test tells it to, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from pysaslauthd.wire import ber, ldap
from tests.helpers.processes import free_port
from tests.helpers.workers import eventually

SUCCESS, BUSY, INVALID_CREDENTIALS = 0, 51, 49
RESPONSES = {
    ldap.BIND_REQUEST: ldap.BIND_RESPONSE,
    ldap.SEARCH_REQUEST: ldap.SEARCH_DONE,
    ldap.COMPARE_REQUEST: ldap.COMPARE_RESPONSE,
    ldap.EXTENDED_REQUEST: ldap.EXTENDED_RESPONSE,
}


class Request(NamedTuple):
    """What a client asks, by number, tag and content; *connection* counts them from 1."""

    number: int
    tag: int
    content: bytes
    connection: int


class HangUp(Exception):
    """Raised by what answers: close the connection."""


Respond = Callable[[Request], Awaitable[bytes]]


def result(request: Request, code: int = SUCCESS, text: bytes = b"") -> bytes:
    """Return the end of *request*'s operation."""
    said = ber.integer(code, ber.ENUMERATED) + ber.octets(b"") + ber.octets(text)
    return ldap.message(request.number, ber.encode(RESPONSES[request.tag], said))


def entry(request: Request, dn: bytes = b"uid=joe") -> bytes:
    """Return an entry without attributes that a search has found, and not yet its end."""
    found = ber.octets(dn) + ber.encode(ber.SEQUENCE, b"")
    return ldap.message(request.number, ber.encode(ldap.SEARCH_ENTRY, found))


async def answer_all(request: Request) -> bytes:
    """Say yes to every bind, and find joe by every search."""
    found = entry(request) if request.tag == ldap.SEARCH_REQUEST else b""
    return found + result(request)


class LdapServer:
    """Listens on *port* of 127.0.0.1; *requests* has all that came, *open* counts connections.

    One beyond *most* is closed at once.
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.most = 1000
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def start(self, port: int = 0) -> None:
        """Listen on *port*, or on one that nobody gets while this is stopped for a while."""
        self.port = port or free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Close everything; it can be started again."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await eventually(lambda: not self.open, "end of all connections")

    @property
    def tags(self) -> list[int]:
        """The tags of all that was asked."""
        return [request.tag for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.open == self.most:
            writer.close()
            return
        self.connections += 1
        self.open += 1
        number = self.connections
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._take(await _read(reader, number), writer)
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _take(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        if request.tag in RESPONSES:
            task = asyncio.create_task(self._answer(request, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await self.respond(request))
        except HangUp:
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Request:
    head = await reader.readexactly(2)
    size = head[1]
    if size >= ber.SHORT_FORM:
        size = int.from_bytes(await reader.readexactly(size - ber.SHORT_FORM), "big")
    body = await reader.readexactly(size)
    inside = ber.Reader(body, 0, len(body))
    number = inside.read_integer()
    tag, content = inside.read_any()
    return Request(number, tag, content, connection)


@asynccontextmanager
async def ldap_server(respond: Respond = answer_all) -> AsyncIterator[LdapServer]:
    """Run one while the block runs."""
    made = LdapServer(respond)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
