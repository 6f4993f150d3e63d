"""The Dovecot door: connections that stay, with any number of requests in flight each.

No transports: the connections are in an epoll set of their own, and what is heard in
one turn is answered in it where the backend knows at once, in one write.
"""

import asyncio
import ipaddress
import itertools
import logging
import os
import secrets
import select
import socket
from collections import OrderedDict
from collections.abc import Iterable
from socket import SocketType
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.server.mechanism import Mechanism
from pysaslauthd.server import conversation
from pysaslauthd.server.complaints import Complaints
from pysaslauthd.server.conversation import Conversation, Rules
from pysaslauthd.server.intake import Intake
from pysaslauthd.server.listener import Networks
from pysaslauthd.server.peers import described
from pysaslauthd.wire.dovecot import encode_greeting

log = logging.getLogger(__name__)

READ_BYTES = 4096  # far more than a client in need; who floods is answered in small helpings
EVENTS_AT_ONCE = 64
ROUNDS_AT_ONCE = 8  # then everything else has its turn
TURN = 0.01  # seconds; the same after these
CONNECTIONS_AT_ONCE = 16
LOOKED_AT = 64  # of the longest silent, when a place is needed
SWEEP_EVERY = 15.0  # seconds between looks for requests whose client has abandoned them
STREAM, DONT_WAIT = int(socket.SOCK_STREAM), int(socket.MSG_DONTWAIT)
EPOLLIN, EPOLLOUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
# In Dovecot's order.
FLAGS = ("anonymous", "plaintext", "dictionary", "active", "forward_secrecy", "mutual_auth")


class Limits(NamedTuple):
    """*most* connections in all; over TCP, from addresses in *allowed* only."""

    most: int
    allowed: Networks = ()


class Connection:
    """A client's socket, what it has not taken yet, and what is waited for of it."""

    __slots__ = ("client", "conversation", "descriptor", "is_stale", "unsent", "wanted")

    def __init__(self, client: SocketType) -> None:
        self.client = client
        self.descriptor = client.fileno()
        self.unsent = b""
        self.wanted = EPOLLIN
        self.is_stale = False  # it was told of other mechanisms than there are
        self.conversation: Conversation

    @property
    def is_idle(self) -> bool:
        """Whether its client waits for nothing."""
        return self.conversation.is_idle and not self.unsent


class DovecotDoor:
    """Answers the Dovecot auth-client protocol on any number of listening sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rules: Rules, limits: Limits) -> None:
        self._loop = loop
        self._rules = rules
        self._limits = limits
        self._mechanisms = _with_flags(rules.offered.values())
        self._epoll = select.epoll()
        self._by_silence: OrderedDict[int, Connection] = OrderedDict()  # the longest silent first
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._complaints = Complaints(log)
        self._intake = Intake(loop, self._complaints, self._accept)
        self._sweeper = loop.call_later(SWEEP_EVERY, self._sweep)
        loop.add_reader(self._epoll, self._on_events)

    def follow(self, rules: Rules, limits: Limits) -> None:
        """Serve by *rules* from now on.

        Who was told of other mechanisms is hung up on, when nothing is pending: Postfix
        connects again, and hears of those that there are. On who may not ask any more, at once.
        """
        mechanisms = _with_flags(rules.offered.values())
        is_changed = mechanisms != self._mechanisms
        self._rules, self._limits, self._mechanisms = rules, limits, mechanisms
        for connection in list(self._by_silence.values()):
            connection.conversation.rules = rules
            connection.is_stale |= is_changed
            if self._may_stay(connection.client):
                self._settle(connection)
            else:
                self._drop(connection)

    def listen(self, listener: socket.socket) -> None:
        """Serve the clients of *listener*, a non-blocking listening socket, until `stop`."""
        self._intake.add(listener)

    async def answered(self) -> None:
        """Return when every answer that a backend is asked for now has been given."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self) -> None:
        """Read nothing more, give the answers that are under way, hang up; but once."""
        if self._epoll.closed:
            return
        self._intake.close()
        self._loop.remove_reader(self._epoll)
        self._sweeper.cancel()
        await self.answered()
        for connection in list(self._by_silence.values()):
            connection.conversation.hurry()
            self._settle(connection)
            self._drop(connection)
        self._epoll.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            for _ in range(CONNECTIONS_AT_ONCE):
                descriptor, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
                client = SocketType(int(listener.family), STREAM, 0, descriptor)
                if listener.family == socket.AF_UNIX or self._may_ask(address[0]):
                    self._greet(client)
                else:
                    client.close()
        except BlockingIOError:
            pass
        except OSError as error:
            self._intake.pause(listener, error)

    def _may_ask(self, address: str) -> bool:
        found = ipaddress.ip_address(address)
        if any(found in network for network in self._limits.allowed):
            return True
        self._complaints.error("%s may not ask: it is not in dovecot_allow", address)
        return False

    def _may_stay(self, client: SocketType) -> bool:
        if client.family == socket.AF_UNIX:
            return True
        try:
            address: str = client.getpeername()[0]
        except OSError:  # it has gone
            return False
        return self._may_ask(address)

    def _greet(self, client: SocketType) -> None:
        if len(self._by_silence) >= self._limits.most:
            self._make_place()
        connection = Connection(client)
        connection.conversation = Conversation(
            self._loop, self._rules, self._tasks, lambda: self._settle(connection)
        )
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._epoll.register(connection.descriptor, connection.wanted)
        self._by_silence[connection.descriptor] = connection
        number, cookie = next(self._numbers), secrets.token_hex(16)
        connection.conversation.replies.append(
            encode_greeting(self._mechanisms, os.getpid(), number, cookie)
        )
        self._settle(connection)

    def _make_place(self) -> None:
        """Hang up on a client that has long been silent: Postfix connects again.

        On one that waits for something only if all that are looked at do.
        """
        self._complaints.error(
            "too many open connections (at most %d): closing those that are silent longest;"
            " raise the limit on open files or find the client that keeps them open",
            self._limits.most,
        )
        by_silence = self._by_silence.values()
        idle = (one for one in itertools.islice(by_silence, LOOKED_AT) if one.is_idle)
        self._drop(next(idle, next(iter(by_silence))))

    def _on_events(self) -> None:
        """Serve who says something, and who does so meanwhile: a turn of the loop costs more."""
        until = self._loop.time() + TURN
        for _ in range(ROUNDS_AT_ONCE):
            events = self._epoll.poll(0, EVENTS_AT_ONCE)
            if not events:
                return
            heard = []
            for descriptor, event in events:
                connection = self._by_silence[descriptor]
                data = self._read(connection, event)
                if data:
                    heard.append((connection, data))
            # All this was there before this moment: one look at a backend's file after it
            # is fresh enough for all of it.
            received = self._loop.time()
            for connection, data in heard:
                self._hear(connection, data, received)
            if self._loop.time() > until:
                return

    def _read(self, connection: Connection, event: int) -> bytes:
        """Return what a client says, if it may speak; hang up on one that has gone."""
        if not (event & EPOLLIN and connection.wanted == EPOLLIN):
            if event & GONE:
                self._drop(connection)
            else:
                self._settle(connection)
            return b""
        try:
            data = connection.client.recv(READ_BYTES, DONT_WAIT)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        return data

    def _hear(self, connection: Connection, data: bytes, received: float) -> None:
        self._by_silence.move_to_end(connection.descriptor)
        try:
            connection.conversation.hear(data, received)
        except MalformedMessage as error:
            self._complaints.error(
                "a client of the Dovecot door is hung up on: %s: %s; more of these are not logged"
                " for a minute: see that nothing but mail servers is told of this socket",
                described(connection.client),
                error,
            )
            connection.conversation.is_over = True
        except Exception:
            log.exception("fault while serving a connection")
            connection.conversation.is_over = True
        if len(self._tasks) >= conversation.MOST_ASKED:
            self._complaints.error(
                "too many requests wait for an answer: no more are asked about; find out why the"
                " backend is slow, or which client asks so much"
            )
        self._settle(connection)

    def _settle(self, connection: Connection) -> None:
        """Send what is to be sent; then hang up, or wait for what makes sense to wait for."""
        said = connection.conversation
        if said.replies or connection.unsent:
            self._send(connection)
        if said.is_over or (connection.is_stale and connection.is_idle):
            self._drop(connection)
            return
        # Who does not take its answers, or waits for many, is not read.
        wanted = EPOLLOUT if connection.unsent else 0 if said.is_busy else EPOLLIN
        if wanted != connection.wanted:
            connection.wanted = wanted
            self._epoll.modify(connection.descriptor, wanted)

    def _send(self, connection: Connection) -> None:
        replies = connection.conversation.replies
        data = connection.unsent + b"".join(replies)
        replies.clear()
        try:
            sent = connection.client.send(data, DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            connection.conversation.is_over = True
            return
        connection.unsent = data[sent:]

    def _drop(self, connection: Connection) -> None:
        """Hang up, and abandon what is under way."""
        # Of one that has gone already another may have the descriptor.
        if self._by_silence.get(connection.descriptor) is connection:
            del self._by_silence[connection.descriptor]
            connection.conversation.abandon()
            connection.client.close()  # which takes it out of the epoll set

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_EVERY, self._sweep)
        for connection in list(self._by_silence.values()):
            connection.conversation.expire()
            self._settle(connection)


def _with_flags(mechanisms: Iterable[Mechanism]) -> list[tuple[str, list[str]]]:
    """Return names and flags for a greeting."""
    return [
        (one.name, [flag.replace("_", "-") for flag in FLAGS if getattr(one.traits, flag)])
        for one in mechanisms
    ]
