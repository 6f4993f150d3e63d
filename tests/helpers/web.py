"""Web servers under test: one that checks forms as real ones do, one that does as it is told."""

import asyncio
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from pysaslauthd.backends.httpform import Httpform
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.tls import TlsRules, make_context
from tests.helpers.processes import DEADLINE

URI = "/login"
DATA = "user=%u&password=%p&realm=%r"
RIGHT = {"user": "joe", "password": "pw", "realm": "r"}
LOOPBACK = "127.0.0.1"
LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

YES = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NO = b"HTTP/1.1 403 Wrong password\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def backend(
    port: int,
    host: str = LOOPBACK,
    *,
    tls: TlsRules | None = None,
    uri: str = URI,
    data: str = DATA,
    timeout: float = 5.0,  # noqa: ASYNC109 (it is the backend's setting)
    connections: int = 64,
) -> AsyncIterator[Httpform]:
    """Make the backend that asks the server at *port*; close it in the end."""
    endpoint = Endpoint(host, port, Security.NONE if tls is None else Security.TLS)
    context = None if tls is None else make_context(tls)
    made = Httpform(Connector(endpoint, context, timeout), uri, data, connections)
    await made.open()
    try:
        yield made
    finally:
        made.retire()
        await made.close()


class FormServer(ThreadingHTTPServer):
    """Knows joe of realm r, whose password is pw; *forms* are those that have been posted."""

    daemon_threads = True

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), FormHandler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.forms: list[dict[str, str]] = []
        self._connections: set[socket.socket] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_port

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        self._connections.add(request)
        return request, address

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # not of UDP
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class FormHandler(BaseHTTPRequestHandler):
    """One connection of a FormServer."""

    protocol_version = "HTTP/1.1"
    server: FormServer

    def do_POST(self) -> None:
        """Answer 204 to the right form, 403 to any other, 404 to one that went elsewhere."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        form = dict(
            parse_qsl(body.decode(), keep_blank_values=True, encoding="latin-1", errors="strict")
        )
        self.server.forms.append(form)
        if self.path != URI:
            self.send_error(404)
        elif form == RIGHT:
            self.send_response(204)
        else:
            self.send_response(403, "No such user, or wrong password")
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden one's)
        """Write nothing."""


@contextmanager
def form_server(
    host: str = LOOPBACK, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[FormServer]:
    """Run a web server in a thread while the block runs."""
    with FormServer(host, port, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.drop()
            thread.join()


@contextmanager
def held_server(serve: Callable[[socket.socket], socket.socket]) -> Iterator[int]:
    """Do *serve* with one connection, in a thread, and keep what it returns; yield the port."""
    over = threading.Event()

    def work(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with serve(connection):
            over.wait(DEADLINE)

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=work, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(DEADLINE)


class Peer:
    """One connection of a scripted server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = requests

    async def request(self) -> bytes:
        """Read one request, its body too."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        self._requests.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        """Send *data*; return when the system has taken most of it."""
        self._writer.write(data)
        await self._writer.drain()

    async def leaving(self) -> None:
        """Return when the client has left; what it sends meanwhile is dropped."""
        while await self._reader.read(65_536):
            pass

    def reset(self) -> None:
        """End the connection as a server that has crashed does."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._writer.transport.abort()


Handle = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Does with each connection what *handle* says; when that returns, it hangs up."""

    def __init__(self, handle: Handle) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.most_at_once = 0
        self._handle = handle
        self._serving: set[asyncio.Task[None] | None] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, host: str, tls: ssl.SSLContext | None) -> None:
        """Begin to serve, at a port that is free."""
        self._server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        self.connections += 1
        self.most_at_once = max(self.most_at_once, len(self._serving))
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._handle(Peer(reader, writer, self.requests))
        self._serving.discard(task)
        writer.close()

    async def end(self) -> None:
        """Serve no more, and drop what is connected."""
        if self._server is not None:
            self._server.close()
        serving = [task for task in self._serving if task is not None]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


@asynccontextmanager
async def scripted(
    handle: Handle, host: str = LOOPBACK, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """Run a server that does as *handle* says while the block runs."""
    server = ScriptedServer(handle)
    await server.listen(host, tls)
    try:
        yield server
    finally:
        await server.end()


def answering(*answers: bytes) -> Handle:
    """Return what answers one request after the other on a connection, and then no more."""

    async def handle(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.leaving()

    return handle
