"""Servers in the test's own loop, odd ones too; clients of theirs; who says where they are."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.remote.resolver import Address
from tests.helpers.certificates import Certificate
from tests.helpers.processes import DEADLINE

Reply = Callable[[asyncio.Transport, bytes], None]


def repeat(transport: asyncio.Transport, data: bytes) -> None:
    """Say what was heard."""
    transport.write(data)


def be_silent(_transport: asyncio.Transport, _data: bytes) -> None:
    """Say nothing, and stay."""


def hang_up(transport: asyncio.Transport, _data: bytes) -> None:
    """Leave in an orderly way."""
    transport.close()


def reset(transport: asyncio.Transport, _data: bytes) -> None:
    """Leave as who has crashed does."""
    at_once = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


def say(text: bytes) -> Reply:
    """Return what answers *text*, whatever it hears."""
    return lambda transport, _data: transport.write(text)


class Peer(NamedTuple):
    """A server: its port, and its connections at this moment (with TLS: those that have it)."""

    port: int
    connections: set[asyncio.Transport]


class _Conversation(asyncio.Protocol):
    def __init__(self, reply: Reply, connections: set[asyncio.Transport]) -> None:
        self._reply = reply
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._reply(self._transport, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)


@asynccontextmanager
async def peer(
    reply: Reply = repeat,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    path: Path | None = None,
) -> AsyncIterator[Peer]:
    """Serve on *host* and *port*, or at the unix socket *path*, while the block runs."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.Transport] = set()
    family = socket.AF_INET if path is None else socket.AF_UNIX
    if ":" in host:
        family = socket.AF_INET6
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port) if path is None else str(path))
    server = await loop.create_server(
        lambda: _Conversation(reply, connections), sock=listener, ssl=tls
    )
    address = listener.getsockname()
    try:
        yield Peer(address[1] if path is None else 0, connections)
    finally:
        server.close()
        for transport in list(connections):
            transport.abort()
        await asyncio.sleep(0)


def presenting(
    certificate: Certificate, *, clients: Path | None = None, ciphers: str | None = None
) -> ssl.SSLContext:
    """Return a server's context. It wants a certificate of *clients*, if given, from who comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ciphers is not None:
        context.set_ciphers(ciphers)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


class Client(asyncio.Protocol):
    """A client's side; *lost* has the reason when the connection is no more."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.heard = b""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def ask(self, text: bytes) -> bytes:
        """Say *text*; return what is said to it, when as much has come, or more."""
        self.heard = b""
        self.transport.write(text)
        async with asyncio.timeout(DEADLINE):
            while len(self.heard) < len(text):
                self._news.clear()
                await self._news.wait()
        return self.heard

    async def end(self) -> Exception | None:
        """Return why the connection is no more, when that is so."""
        async with asyncio.timeout(DEADLINE):
            return await self.lost


class NameServer:
    """Answers what the test says, when the test says so; counts how often it was asked."""

    def __init__(self, answer: list[Address] | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append((host, port))
        assert self.may_answer.wait(DEADLINE)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@contextmanager
def nobody_answers(host: str, port: int = 0) -> Iterator[int]:
    """Let nobody answer at *host*, as behind a firewall; its port. The queue there is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        stack.enter_context(socket.create_connection(listener.getsockname()))
        yield listener.getsockname()[1]


@contextmanager
def no_room(path: Path) -> Iterator[socket.socket]:
    """Have a listener at the unix socket *path* whose queue is full until it accepts."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        yield listener
