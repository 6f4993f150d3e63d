"""The mux door: one short connection per request, so accepting is the hot path.

No transport: a connection whose request is there is answered and closed inside
the listener's callback. Everything else is the waiting room's, or a task's where
a backend has to wait.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pysaslauthd.model import AuthRequest, AuthResult
from pysaslauthd.server.complaints import Complaints
from pysaslauthd.server.intake import Intake
from pysaslauthd.server.waiting import Bounds, Client, Waiting, WaitingRoom
from pysaslauthd.wire.mux import (
    Limits,
    RefusedRequest,
    awaits_address,
    decode_request,
    encode_result,
)

log = logging.getLogger(__name__)

CONNECTIONS_AT_ONCE = 8  # so that a first reply is not late
ROUNDS_AT_ONCE = 16  # then everything else has its turn
READ_BYTES = 4096
UNIX, STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
# Reading a request wakes its client, which waits for the answer, in vain: it could write
# again. So a request is looked at, answered, and read when its client is awake.
CONSUME = int(socket.MSG_DONTWAIT)
PEEK = CONSUME | int(socket.MSG_PEEK)
ADDRESS_GRACE = 0.05  # seconds for the rest of a fifth field that has begun
LINGER = 1.0  # seconds in which a client may still write after its answer

Check = Callable[[AuthRequest, Client], AuthResult | Awaitable[AuthResult]]


class Rules(NamedTuple):
    """How a door serves: *check* answers, *on_outage* is the reply where nobody knows."""

    check: Check
    limits: Limits
    bounds: Bounds
    on_outage: bytes


class MuxDoor:
    """Answers the mux protocol on any number of listening sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rules: Rules) -> None:
        self._loop = loop
        self._rules = rules
        self._room = WaitingRoom(loop, rules.bounds, self._on_bytes)
        self._answering: set[asyncio.Task[None]] = set()
        self._complaints = Complaints(log)
        self._intake = Intake(loop, self._complaints, self._accept)

    def follow(self, rules: Rules) -> None:
        """Serve by *rules* from now on; answers under way are not affected."""
        self._rules = rules
        self._room.bounds = rules.bounds

    def listen(self, listener: socket.socket) -> None:
        """Serve the clients of *listener*, a non-blocking listening socket, until `stop`."""
        self._intake.add(listener)

    async def answered(self) -> None:
        """Return when every answer that is under way now has been given."""
        if self._answering:
            await asyncio.wait(set(self._answering))

    async def stop(self, grace: float) -> None:
        """Answer who has connected and asked, within *grace* seconds; wait for answers under way.

        Who connects later finds a socket that nobody accepts from.
        """
        until = time.monotonic() + grace
        for listener in self._intake.close():
            while self._accept_some(listener) and time.monotonic() < until:
                pass
        if len(self._room):
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        self._room.shut()
        await self.answered()

    def _accept(self, listener: socket.socket) -> None:
        """Serve who has connected, and who connects meanwhile: a turn of the loop costs more."""
        for _ in range(ROUNDS_AT_ONCE):
            if not self._accept_some(listener):
                return

    def _accept_some(self, listener: socket.socket) -> int:
        """Take and serve the connections that have come; return how many."""
        requests: list[tuple[Client, bytes]] = []
        silent: list[Client] = []
        try:
            for _ in range(CONNECTIONS_AT_ONCE):
                descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
                client = Client(UNIX, STREAM, 0, descriptor)
                data = receive(client, PEEK)
                if data is None:
                    silent.append(client)
                else:
                    requests.append((client, data))
        except BlockingIOError:
            pass
        except OSError as error:
            self._on_accept_error(listener, error)
        # Every request of this round was there before this moment: one look at
        # a backend's file after it is fresh enough for all of them.
        received = time.monotonic()
        for client, data in requests:
            self._serve(client, data, received)
        for client in silent:
            # Clients write just after they connect: most have by now.
            self._look(Waiting(client))
        return len(requests) + len(silent)

    def _look(self, connection: Waiting) -> None:
        """Serve a connection that has said nothing so far, if it has something to say now."""
        data = receive(connection.client, PEEK)
        if data is None:
            self._wait(connection)
        else:
            self._serve(connection.client, data, time.monotonic())

    def _serve(
        self,
        client: Client,
        data: bytes,
        received: float,
        earlier: Waiting | None = None,
        *,
        final: bool = False,
    ) -> None:
        """Answer what a client has said, or keep it until the rest comes.

        *earlier* is there if it comes in pieces, which have been read; otherwise
        *data* was only looked at. Nothing more will come if *final*.
        """
        rules = self._rules
        try:
            request = decode_request(data, received, rules.limits, final=final)
            if len(self._answering) >= rules.bounds.most:
                self._complaints.error(
                    "too many requests wait for an answer: no more are asked about"
                )
                answer(client, rules.on_outage)
            elif request is not None:
                result = rules.check(request, client)
                if not isinstance(result, tuple):
                    self._answer_later(client, result)
                elif earlier is None:
                    answer(client, encode_result(result, rules.on_outage))
                else:
                    self._answer_and_linger(client, encode_result(result, rules.on_outage))
            elif earlier is None:
                self._hear_out(Waiting(client))
            else:
                self._keep(earlier, final=final)
        except RefusedRequest as refusal:
            log.error("%s", refusal)
            self._answer_and_linger(client, refusal.reply)
        except Exception:
            log.exception("fault while serving a connection")
            answer(client, rules.on_outage)

    def _hear_out(self, connection: Waiting) -> None:
        """Read what a client says of a request that comes in pieces."""
        data = receive(connection.client, CONSUME)
        if data is None:
            self._wait(connection)
        elif data:
            connection.data += data
            self._serve(connection.client, connection.data, time.monotonic(), connection)
        else:
            self._finish(connection)

    def _keep(self, connection: Waiting, *, final: bool) -> None:
        """Wait for the rest of a request; close if none will come."""
        if final:
            connection.client.close()
            return
        awaits = awaits_address(connection.data, self._rules.limits)  # or refuses, while it is open
        self._wait(connection)
        if awaits:
            self._loop.call_later(ADDRESS_GRACE, self._on_silence, connection)

    def _finish(self, connection: Waiting) -> None:
        """Answer what there is, or close without a reply: the client says no more."""
        now = time.monotonic()
        self._serve(connection.client, connection.data, now, connection, final=True)

    def _wait(self, connection: Waiting) -> None:
        self._room.admit(connection)
        self._keep_bound()

    def _on_bytes(self, connection: Waiting) -> None:
        self._room.release(connection)
        if connection.answered:
            self._discard(connection)
        elif connection.data:
            self._hear_out(connection)
        else:
            self._look(connection)

    def _discard(self, connection: Waiting) -> None:
        if receive(connection.client, CONSUME) == b"":
            connection.client.close()
        else:
            self._room.admit(connection)

    def _on_silence(self, connection: Waiting) -> None:
        """Answer without the address whose field was begun and not finished."""
        if connection in self._room and not connection.answered:
            self._room.release(connection)
            self._finish(connection)

    def _answer_and_linger(self, client: Client, reply: bytes) -> None:
        """Reply, then read on for a moment.

        Closing while the client still has something to write would turn its
        reply into a connection reset.
        """
        with contextlib.suppress(OSError):
            client.send(reply, CONSUME)
            client.shutdown(socket.SHUT_WR)
        connection = Waiting(client, answered=True)
        self._wait(connection)
        self._loop.call_later(LINGER, self._room.close, connection)

    def _answer_later(self, client: Client, pending: Awaitable[AuthResult]) -> None:
        task = self._loop.create_task(self._answer(client, pending, self._rules.on_outage))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        self._keep_bound()

    async def _answer(
        self, client: Client, pending: Awaitable[AuthResult], on_outage: bytes
    ) -> None:
        try:
            answer(client, encode_result(await pending, on_outage))
        finally:
            client.close()

    def _keep_bound(self) -> None:
        while len(self._room) + len(self._answering) > self._rules.bounds.most:
            if not self._room.make_place():
                return

    def _on_accept_error(self, listener: socket.socket, error: OSError) -> None:
        """Make place where descriptors ran out, else accept nothing for a moment."""
        if not isinstance(error, ConnectionAbortedError) and not self._room.make_place():
            self._intake.pause(listener, error)


def receive(client: Client, how: int) -> bytes | None:
    """Return what there is to read, b"" at the end or after an error, None if nothing has come."""
    try:
        return client.recv(READ_BYTES, how)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def answer(client: Client, reply: bytes) -> None:
    """Reply, take what was only looked at, and close; a client that has gone gets nothing.

    A reply is small and the first thing written: it always fits the socket's
    buffer. Unread bytes at the close would reset the connection.
    """
    try:  # contextlib.suppress costs as much as a system call
        client.send(reply, CONSUME)
        client.recv(READ_BYTES, CONSUME)
    except OSError:
        pass
    client.close()
