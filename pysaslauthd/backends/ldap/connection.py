"""One connection to a directory server: operations go out, answers come back by their numbers."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from pysaslauthd.backends.ldap.results import SUCCESS, explain
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.remote.connect import Connector, describe
from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import Decoder, Entry, Received, Result

ENTRIES_KEPT = 2  # of what a search finds: more than one is as good as many
RECEIVED_AT_ONCE = 16_384  # bytes
LARGEST_NUMBER = 0x7FFFFFFF
WORDLESS = "before it said a word: does it speak TLS there, or want a certificate of ours?"


class ServerFailed(Exception):
    """A server could not be asked, or gave no answer; the text says why."""


class Lost(ServerFailed):
    """The connection broke, or the server closed it."""


class Silent(ServerFailed):
    """The server has not said a word, to anybody, since it was asked."""


class Unanswered(ServerFailed):
    """This one answer takes too long; others are given."""


class Pulse:
    """When a server was *heard* last, on any of its connections, by the loop's time.

    *buffer* is where they all receive: what is there is taken out at once, and
    the 256 KiB that asyncio would allocate each time cost as much as the rest of an answer.
    """

    __slots__ = ("buffer", "heard")

    def __init__(self) -> None:
        self.heard = 0.0
        self.buffer = memoryview(bytearray(RECEIVED_AT_ONCE))


class Answer(NamedTuple):
    """How an operation ended, and the first entries that it found."""

    result: Result
    entries: list[Entry]


class _Operation:
    __slots__ = ("answer", "asked", "entries", "kind")

    def __init__(self, kind: int, answer: asyncio.Future[Answer], asked: float) -> None:
        self.kind = kind
        self.answer = answer
        self.asked = asked
        self.entries: list[Entry] = []


class Connection(asyncio.BufferedProtocol):
    """An open connection, on which an operation is given up after *timeout* seconds.

    If nothing has come by it for all that time, the connection is given up too; if
    the server of that *pulse* has been silent, that is said. *on_closed* is called
    when it can be asked nothing more.
    """

    def __init__(
        self, timeout: float, pulse: Pulse, on_closed: Callable[["Connection"], None]
    ) -> None:
        self._timeout = timeout
        self._pulse = pulse
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._in_flight: dict[int, _Operation] = {}
        self._last_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0  # when anything came here last
        self._transport: asyncio.Transport
        self.failure: ServerFailed | None = None  # why it is closed
        self.used = self._loop.time()  # when it was last asked something
        self.gone: asyncio.Future[None] = self._loop.create_future()  # its descriptor is closed

    @property
    def load(self) -> int:
        """How many operations are under way."""
        return len(self._in_flight)

    def ask(self, kind: int, operation: bytes, controls: bytes = b"") -> asyncio.Future[Answer]:
        """Return the answer to come, a response of *kind*; ServerFailed where none will.

        Whoever stops waiting for it says so by `abandon` or `close`.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        if self.failure is not None:
            answer.set_exception(_again(self.failure))
            return answer
        number = self._next_number()
        self.used = asked = self._loop.time()
        self._in_flight[number] = _Operation(kind, answer, asked)
        self._transport.write(ldap.message(number, operation, controls))
        if self._timer is None:
            self._timer = self._loop.call_at(asked + self._timeout, self._look)
        return answer

    def abandon(self, answer: asyncio.Future[Answer]) -> None:
        """Tell the server that *answer*, which is no bind's, is not wanted any more."""
        for number, operation in self._in_flight.items():
            if operation.answer is answer:
                self._give_up(number)
                return

    async def start_tls(self, connector: Connector) -> None:
        """Go on in TLS. ServerFailed or Unreachable where the server does not."""
        operation = ldap.extended(ldap.START_TLS_OID)
        result = (await self.ask(ldap.EXTENDED_RESPONSE, operation)).result
        if result.code != SUCCESS:
            raise ServerFailed(f"it refuses StartTLS: {explain(result)}")
        if not self._decoder.is_between_messages:
            raise ServerFailed("it said more before TLS began")
        self._transport = await connector.start_tls(self._transport, self)

    def close(self, why: str = "closed") -> None:
        """Ask nothing more, and wait for nothing."""
        if self.failure is None:
            self._transport.write(ldap.message(self._next_number(), ldap.UNBIND))
            self._transport.close()
            self._end(Lost(why))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to write; called by asyncio."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (asyncio's own promise)
        self._transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where to put what comes; called by asyncio."""
        return self._pulse.buffer

    def buffer_updated(self, size: int) -> None:
        """Hand answers to who waits for them; called by asyncio."""
        try:
            several = self._decoder.feed(bytes(self._pulse.buffer[:size]))
            if several or self._decoder.is_between_messages:  # a part of a message is no word
                self._heard = self._pulse.heard = self._loop.time()
            for received in several:
                self._take(received)
        except MalformedMessage as error:
            self._transport.abort()
            self._end(Lost(f"what it sends is no LDAP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is still asked; called by asyncio."""
        self.gone.set_result(None)
        why = describe(exc) if isinstance(exc, OSError) else "it hung up"
        self._end(Lost(why if self._pulse.heard else f"{why} {WORDLESS}"))

    def _next_number(self) -> int:
        self._last_number = self._last_number % LARGEST_NUMBER + 1
        return self._last_number

    def _take(self, received: Received) -> None:
        message_id, content = received
        operation = self._in_flight.get(message_id)
        if isinstance(content, Entry):
            if operation is not None and len(operation.entries) < ENTRIES_KEPT:
                operation.entries.append(content)
        elif operation is not None:
            if content.kind != operation.kind:
                raise MalformedMessage(f"an answer of kind {content.kind:#x}")
            del self._in_flight[message_id]
            if not operation.answer.done():
                operation.answer.set_result(Answer(content, operation.entries))
        elif message_id == 0:  # RFC 4511 section 4.4.1: it is about to hang up
            # Its text may repeat what it could not read: a password.
            self.close(f"it disconnects: {explain(content._replace(diagnostic=''))}")

    def _look(self) -> None:
        """Give up what has been asked for too long."""
        self._timer = None
        for number, operation in list(self._in_flight.items()):
            until = operation.asked + self._timeout
            if until > self._loop.time():
                self._timer = self._loop.call_at(until, self._look)
                return
            if self._pulse.heard < operation.asked:
                self._transport.abort()
                self._end(Silent(f"no word from it within {self._timeout:g} s"))
                return
            self._give_up(number)
            if self.failure is not None:
                return

    def _give_up(self, number: int) -> None:
        operation = self._in_flight.pop(number)
        self._transport.write(ldap.message(self._next_number(), ldap.abandon(number)))
        if not operation.answer.done():
            operation.answer.set_exception(Unanswered(f"no answer within {self._timeout:g} s"))
        if self._heard < operation.asked:  # the way from the server may be lost, of this one only
            self.close("no word came by it")

    def _end(self, failure: ServerFailed) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        if self._timer is not None:
            self._timer.cancel()
        for operation in self._in_flight.values():
            if not operation.answer.done():
                operation.answer.set_exception(_again(failure))
        self._in_flight.clear()
        self._on_closed(self)


def _again(failure: ServerFailed) -> ServerFailed:
    """Return the same failure for somebody else: each that is raised collects its own traceback."""
    return type(failure)(*failure.args)
