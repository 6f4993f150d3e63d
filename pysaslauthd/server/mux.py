"""The mux door: one short connection per request, so accepting is the hot path.

Raw descriptors and no transport: a connection whose request is there is read,
answered and closed inside the listener's callback. Everything else is the
waiting room's, or a task's where a backend has to wait.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

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

CONNECTIONS_AT_ONCE = 32  # so that nothing else starves, and a first reply is not late
ROUNDS_AT_ONCE = 4
READ_BYTES = 4096
ADDRESS_GRACE = 0.05  # seconds for the rest of a fifth field that has begun
LINGER = 1.0  # seconds in which a client may still write after its answer
PAUSE = 0.1  # seconds without accepting where not one descriptor can be freed
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Check = Callable[[AuthRequest], AuthResult | Awaitable[AuthResult]]


class MuxDoor:
    """Answers the mux protocol on any number of listening sockets.

    *check* may be replaced at any time; requests in flight keep the one they began with.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        check: Check,
        *,
        limits: Limits,
        bounds: Bounds,
        on_outage: bytes,
    ) -> None:
        self.check = check
        self._loop = loop
        self._limits = limits
        self._most = bounds.most
        self._on_outage = on_outage
        self._room = WaitingRoom(loop, bounds, self._on_bytes)
        self._listeners: list[socket.socket] = []
        self._answering: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Serve the clients of *listener*, a non-blocking listening socket, until `stop`."""
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def unlisten(self) -> None:
        """Stop accepting; the listening sockets stay open, for another door."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._listeners.clear()

    async def drain(self, grace: float) -> None:
        """Wait *grace* seconds for requests that have begun, and for all answers; then close."""
        self.unlisten()
        if len(self._room):
            await asyncio.sleep(grace)
        while self._answering:
            await asyncio.wait(self._answering)
        self._room.shut()

    async def stop(self, grace: float) -> None:
        """Answer everybody who has connected, then drain."""
        for listener in self._listeners:
            while self._accept_some(listener):
                pass
        await self.drain(grace)

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
            self._room.admit(descriptor)
            self._keep_bound()
        else:
            self._serve(descriptor, data, time.monotonic())

    def _serve(self, descriptor: int, data: bytes, received: float) -> None:
        """Answer the first bytes of a connection, or keep it until the rest comes."""
        try:
            request = decode_request(data, received, self._limits)
            if request is None:
                self._keep(descriptor, data)
                return
            result = self.check(request)
            if isinstance(result, tuple):
                write_and_forget(descriptor, encode_result(result, self._on_outage))
                os.close(descriptor)
            else:
                self._answer_later(descriptor, result)
        except RefusedRequest as refusal:
            log.error("%s", refusal)
            self._linger(self._room.admit(descriptor), refusal.reply)
        except Exception:
            log.exception("fault while serving a connection")
            os.close(descriptor)

    def _keep(self, descriptor: int, data: bytes) -> None:
        if not data:
            os.close(descriptor)
            return
        connection = self._room.admit(descriptor, data)
        self._keep_bound()
        if awaits_address(data, self._limits):
            self._loop.call_later(ADDRESS_GRACE, self._on_silence, connection)

    def _on_bytes(self, connection: Waiting) -> None:
        data = read_some(connection.descriptor, self._limits.request)
        if data is None:
            self._room.keep(connection)
        elif connection.answered:
            self._discard(connection, data)
        elif not connection.data:
            self._serve(self._room.release(connection), data, time.monotonic())
        else:
            connection.data += data
            self._room.keep(connection)
            self._continue(connection, final=not data)

    def _discard(self, connection: Waiting, data: bytes) -> None:
        if data:
            self._room.keep(connection)
        else:
            self._room.close(connection)

    def _on_silence(self, connection: Waiting) -> None:
        """Answer without the address whose field was begun and not finished."""
        if connection in self._room and not connection.answered:
            self._continue(connection, final=True)

    def _continue(self, connection: Waiting, *, final: bool) -> None:
        """Answer a connection whose request came in pieces; it may have another piece to write."""
        try:
            request = decode_request(connection.data, time.monotonic(), self._limits, final=final)
            if request is None:
                if final:
                    self._room.close(connection)
                elif awaits_address(connection.data, self._limits):
                    self._loop.call_later(ADDRESS_GRACE, self._on_silence, connection)
                return
            result = self.check(request)
            if isinstance(result, tuple):
                self._linger(connection, encode_result(result, self._on_outage))
            else:
                self._answer_later(self._room.release(connection), result)
        except RefusedRequest as refusal:
            log.error("%s", refusal)
            self._linger(connection, refusal.reply)
        except Exception:
            log.exception("fault while serving a connection")
            self._room.close(connection)

    def _linger(self, connection: Waiting, reply: bytes) -> None:
        """Reply, then read on for a moment.

        Closing while the client still has something to write would turn its
        reply into a connection reset.
        """
        write_and_forget(connection.descriptor, reply)
        connection.answered = True
        connection.data = b""
        half = socket.socket(fileno=connection.descriptor)
        with contextlib.suppress(OSError):
            half.shutdown(socket.SHUT_WR)
        half.detach()
        self._loop.call_later(LINGER, self._room.close, connection)

    def _answer_later(self, descriptor: int, pending: Awaitable[AuthResult]) -> None:
        task = self._loop.create_task(self._answer(descriptor, pending))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        self._keep_bound()

    async def _answer(self, descriptor: int, pending: Awaitable[AuthResult]) -> None:
        try:
            write_and_forget(descriptor, encode_result(await pending, self._on_outage))
        finally:
            os.close(descriptor)

    def _keep_bound(self) -> None:
        while len(self._room) + len(self._answering) > self._most and self._room.make_place():
            pass

    def _on_accept_error(self, listener: socket.socket, error: OSError) -> None:
        """Make place, or stop accepting for a moment: the listener stays readable."""
        if error.errno not in OUT_OF_DESCRIPTORS or self._room.make_place():
            return
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
