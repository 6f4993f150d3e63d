"""The mux door: one short connection per request, so accepting is the hot path.

Raw descriptors and no transport: a connection whose request is there is read,
answered and closed inside the listener's callback. Everything else is the
waiting room's, or a task's where a backend has to wait.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pysaslauthd.model import AuthRequest, AuthResult
from pysaslauthd.server.waiting import Bounds, Waiting, WaitingRoom, read_some, write_and_forget
from pysaslauthd.wire.mux import (
    Limits,
    RefusedRequest,
    awaits_address,
    decode_request,
    encode_result,
)

log = logging.getLogger(__name__)

# Reading a request wakes its client in vain, for there is room to write again. If the
# answer follows at once, the client has not run yet, and one switch serves for both.
CONNECTIONS_AT_ONCE = 8
ROUNDS_AT_ONCE = 16  # then everything else has its turn
READ_BYTES = 4096
ADDRESS_GRACE = 0.05  # seconds for the rest of a fifth field that has begun
LINGER = 1.0  # seconds in which a client may still write after its answer
PAUSE = 0.1  # seconds without accepting after an error that would only come again
SECONDS_BETWEEN_COMPLAINTS = 60.0

Check = Callable[[AuthRequest], AuthResult | Awaitable[AuthResult]]


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
        self._listeners: list[socket.socket] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._complained = float("-inf")

    def follow(self, rules: Rules) -> None:
        """Serve by *rules* from now on; answers under way are not affected."""
        self._rules = rules
        self._room.bounds = rules.bounds

    def listen(self, listener: socket.socket) -> None:
        """Serve the clients of *listener*, a non-blocking listening socket, until `stop`."""
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    async def answered(self) -> None:
        """Return when every answer that is under way now has been given."""
        if self._answering:
            await asyncio.wait(set(self._answering))

    async def stop(self, grace: float) -> None:
        """Answer who has connected and asked, within *grace* seconds; wait for answers under way.

        Who connects later finds a socket that nobody accepts from.
        """
        until = time.monotonic() + grace
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            while self._accept_some(listener) and time.monotonic() < until:
                pass
        self._listeners.clear()
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
        requests: list[tuple[int, bytes]] = []
        silent: list[int] = []
        try:
            for _ in range(CONNECTIONS_AT_ONCE):
                # accept() would make a socket object for each: a quarter of the rate.
                descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
                os.set_blocking(descriptor, False)
                data = read_some(descriptor, READ_BYTES)
                if data is None:
                    silent.append(descriptor)
                else:
                    requests.append((descriptor, data))
        except BlockingIOError:
            pass
        except OSError as error:
            self._on_accept_error(listener, error)
        # Every request of this round was read before this moment: one look at
        # a backend's file after it is fresh enough for all of them.
        received = time.monotonic()
        for descriptor, data in requests:
            self._serve(descriptor, data, received)
        for descriptor in silent:
            self._second_look(descriptor)
        return len(requests) + len(silent)

    def _second_look(self, descriptor: int) -> None:
        """Read once more what was silent a moment ago: clients write just after they connect."""
        data = read_some(descriptor, READ_BYTES)
        if data is None:
            self._wait(Waiting(descriptor))
        else:
            self._serve(descriptor, data, time.monotonic())

    def _serve(
        self,
        descriptor: int,
        data: bytes,
        received: float,
        earlier: Waiting | None = None,
        *,
        final: bool = False,
    ) -> None:
        """Answer what a connection has said, or keep it until the rest comes.

        *earlier* is there if it comes in pieces; nothing more will come if *final*.
        """
        rules = self._rules
        try:
            request = decode_request(data, received, rules.limits, final=final)
            if request is None:
                self._keep(descriptor, data, earlier, final=final)
                return
            result = rules.check(request)
            if not isinstance(result, tuple):
                self._answer_later(descriptor, result)
            elif earlier is not None:
                self._answer_and_linger(descriptor, encode_result(result, rules.on_outage))
            else:
                write_and_forget(descriptor, encode_result(result, rules.on_outage))
                os.close(descriptor)
        except RefusedRequest as refusal:
            log.error("%s", refusal)
            self._answer_and_linger(descriptor, refusal.reply)
        except Exception:
            log.exception("fault while serving a connection")
            os.close(descriptor)

    def _keep(self, descriptor: int, data: bytes, earlier: Waiting | None, *, final: bool) -> None:
        if final or not data:
            os.close(descriptor)
            return
        connection = earlier or Waiting(descriptor)
        connection.data = data
        self._wait(connection)
        if awaits_address(data, self._rules.limits):
            self._loop.call_later(ADDRESS_GRACE, self._on_silence, connection)

    def _wait(self, connection: Waiting) -> None:
        self._room.admit(connection)
        self._keep_bound()

    def _on_bytes(self, connection: Waiting) -> None:
        self._room.release(connection)
        data = read_some(connection.descriptor, READ_BYTES)
        if data is None or (data and connection.answered):
            self._room.admit(connection)
        elif connection.answered:
            os.close(connection.descriptor)
        elif connection.data:
            whole = connection.data + data
            self._serve(connection.descriptor, whole, time.monotonic(), connection, final=not data)
        else:
            self._serve(connection.descriptor, data, time.monotonic())

    def _on_silence(self, connection: Waiting) -> None:
        """Answer without the address whose field was begun and not finished."""
        if connection in self._room and not connection.answered:
            self._room.release(connection)
            self._serve(
                connection.descriptor, connection.data, time.monotonic(), connection, final=True
            )

    def _answer_and_linger(self, descriptor: int, reply: bytes) -> None:
        """Reply, then read on for a moment.

        Closing while the client still has something to write would turn its
        reply into a connection reset.
        """
        write_and_forget(descriptor, reply)
        half = socket.socket(fileno=descriptor)
        with contextlib.suppress(OSError):
            half.shutdown(socket.SHUT_WR)
        half.detach()
        connection = Waiting(descriptor, answered=True)
        self._wait(connection)
        self._loop.call_later(LINGER, self._room.close, connection)

    def _answer_later(self, descriptor: int, pending: Awaitable[AuthResult]) -> None:
        task = self._loop.create_task(self._answer(descriptor, pending, self._rules.on_outage))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        self._keep_bound()

    async def _answer(
        self, descriptor: int, pending: Awaitable[AuthResult], on_outage: bytes
    ) -> None:
        try:
            write_and_forget(descriptor, encode_result(await pending, on_outage))
        finally:
            os.close(descriptor)

    def _keep_bound(self) -> None:
        while len(self._room) + len(self._answering) > self._rules.bounds.most:
            if not self._room.make_place():
                return

    def _on_accept_error(self, listener: socket.socket, error: OSError) -> None:
        """Make place where descriptors ran out, else accept nothing for a moment.

        The listener stays readable, so trying again at once would only burn time.
        """
        if isinstance(error, ConnectionAbortedError) or self._room.make_place():
            return
        now = time.monotonic()
        if now - self._complained >= SECONDS_BETWEEN_COMPLAINTS:
            self._complained = now
            log.error("cannot accept connections: %s; trying again", error.strerror)
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
