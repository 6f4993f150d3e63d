"""Asks an IMAP server: whom it lets in is let in.

Facts: protocols/backends.md section 5; the dialogue itself is in `wire.imap`.
"""

import asyncio
import logging
from collections.abc import Callable

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Rejected, Unavailable
from pysaslauthd.remote.connect import Connector, Unreachable, describe
from pysaslauthd.remote.endpoint import Security
from pysaslauthd.wire.imap import LOGOUT, Login, No, Outcome, Unclear, Yes
from pysaslauthd.wire.imap_credentials import Credentials
from pysaslauthd.wire.imap_responses import Unexpected

log = logging.getLogger(__name__)

NAME = "rimap"
PENALTY = "if it is a Dovecot that makes wrong passwords wait: see rimap in pysaslauthd(8)"
YES = "remote authentication successful"
NO = "remote server rejected your credentials"
# Seconds for the server to hang up after LOGOUT. If we did, what it still says would be answered
# by a reset, which may cost the LOGOUT, and the port here would stay taken for a minute.
GOODBYE = 1.0


class Rimap:
    """The backend `-a rimap`: logs users in at the server of *connector*, and out again.

    Each request has a connection of its own; there are *connections* at most,
    for which others wait in the order of their coming. All before the login has
    *patience* seconds, the answer to it what the engine allows. Where that is
    over, `verify` adds a note to the CancelledError: the end of a sentence that
    says what took so long, such as "while waiting for the answer of
    imap.example.org:143 to LOGIN".
    """

    name = NAME
    naming = Naming.JOINED
    waits = True
    uses_address = False

    def __init__(self, connector: Connector, patience: float, connections: int) -> None:
        self._connector = connector
        self._server = str(connector.endpoint)
        self._starts_tls = connector.endpoint.security is Security.STARTTLS
        self._patience = patience
        self._connections = connections
        self._free = asyncio.Semaphore(connections)
        self._queueing = Noting(f"one of {connections} connections to {self._server}")
        self._connecting = Noting(f"a connection to {self._server}")
        self._starting_tls = Noting(f"TLS with {self._server}")

    async def open(self) -> None:
        """Do nothing: the server need not be there yet."""

    def retire(self) -> None:
        """Do nothing: whatever is held, a request holds."""

    async def close(self) -> None:
        """Return when the last connection is gone; servers have a moment to hang up."""
        for _ in range(self._connections):
            await self._free.acquire()
        for _ in range(self._connections):
            self._free.release()

    async def verify(self, request: AuthRequest, /) -> AuthResult:
        """Return the server's verdict; `Unavailable` where that is not clear."""
        try:
            credentials = Credentials(request.user, request.password)
        except ValueError as error:
            return Unavailable(str(error), NAME)
        with self._queueing:
            await self._free.acquire()
        try:
            outcome = await self._ask(credentials)
        except Unreachable as error:
            return Unavailable(str(error), NAME)
        return self._verdict(outcome, request, credentials)

    async def _ask(self, credentials: Credentials) -> Outcome:
        """Ask by a connection; its place is free again when it is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience

        def make() -> Conversation:
            login = Login(credentials, starts_tls=self._starts_tls)
            return Conversation(loop, login, until, self._patience)

        conversation: Conversation | None = None
        try:
            with self._connecting:
                conversation = await self._connector.connect(make)
            while (outcome := await self._next_turn(conversation)) is None:
                conversation.go_on(await self._start_tls(conversation, until))
            return outcome
        finally:
            if conversation is None:
                self._free.release()
            else:
                conversation.leave(self._free.release)

    async def _next_turn(self, conversation: "Conversation") -> Outcome | None:
        try:
            return await conversation.turn
        except asyncio.CancelledError as error:
            error.add_note(f"while waiting for the {conversation.login.awaited(self._server)}")
            if conversation.login.has_asked:
                error.add_note(PENALTY)
            raise

    async def _start_tls(self, conversation: "Conversation", until: float) -> asyncio.Transport:
        try:
            with self._starting_tls:
                async with asyncio.timeout_at(until):
                    return await self._connector.start_tls(conversation.transport, conversation)
        except TimeoutError:
            raise Unreachable(f"{self._server}: no TLS within {self._patience:g} s") from None

    def _verdict(
        self, outcome: Outcome, request: AuthRequest, credentials: Credentials
    ) -> AuthResult:
        if isinstance(outcome, Yes):
            return Accepted(request.user, NAME, YES)
        if isinstance(outcome, No):
            level = logging.INFO if outcome.is_alert else logging.DEBUG
            if log.isEnabledFor(level):
                said = credentials.shown(outcome.said)
                log.log(level, "auth_rimap: %r: %s", request.user, said)
            return Rejected(outcome.reason, NAME, NO)
        words = f": {credentials.shown(outcome.said)}" if outcome.said else ""
        return Unavailable(f"{self._server}: {outcome.problem}{words}", NAME)


class Conversation(asyncio.Protocol):
    """One connection: *turn* becomes the outcome of *login*, or None where TLS is due.

    All before the login must be done by *until*, which is *patience* seconds from its start.
    """

    __slots__ = (
        "_is_lost",
        "_loop",
        "_on_gone",
        "_patience",
        "_timer",
        "_until",
        "login",
        "transport",
        "turn",
    )

    transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(
        self, loop: asyncio.AbstractEventLoop, login: Login, until: float, patience: float
    ) -> None:
        self._loop = loop
        self.login = login
        self._until = until
        self._patience = patience
        self.turn: asyncio.Future[Outcome | None] = loop.create_future()
        self._is_lost = False
        self._on_gone: Callable[[], object] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (asyncio's own promise)
        self.transport = transport
        self._timer = self._loop.call_at(self._until, self._on_silence)

    def data_received(self, data: bytes) -> None:
        """Say what is due; what comes when the turn has ended is of no interest any more."""
        if self.turn.done():
            return
        login = self.login
        try:
            reply = login.receive(data)
        except Unexpected as error:
            self._end_turn(Unclear(str(error), error.said))
            return
        if reply:
            self.transport.write(reply)
        if login.has_asked:
            self._timer.cancel()
        if login.wants_tls:
            self.transport.pause_reading()  # whatever comes now is TLS
            self._end_turn(None)
        elif login.outcome is not None:
            self._end_turn(login.outcome)

    def go_on(self, transport: asyncio.Transport) -> None:
        """Go on over *transport*, which has TLS."""
        self.transport = transport
        self.turn = self._loop.create_future()
        transport.write(self.login.go_on())

    def connection_lost(self, exc: Exception | None) -> None:
        """Make do with what has been said."""
        self._is_lost = True
        self._timer.cancel()
        cause = describe(exc) if isinstance(exc, OSError) else "it hung up"
        self._end_turn(Unclear(f"{cause} before its {self.login.awaited()}"))
        self._on_gone()

    def leave(self, on_gone: Callable[[], object]) -> None:
        """Log out, if there is an outcome, and call *on_gone* when the connection is gone."""
        self._timer.cancel()
        if self._is_lost or self.login.outcome is None:
            self.transport.abort()
            on_gone()
            return
        self._on_gone = on_gone
        self.transport.write(LOGOUT)
        self._timer = self._loop.call_later(GOODBYE, self.transport.abort)

    def _on_silence(self) -> None:
        self._end_turn(Unclear(f"no {self.login.awaited()} within {self._patience:g} s"))

    def _end_turn(self, outcome: Outcome | None) -> None:
        if not self.turn.done():
            self.turn.set_result(outcome)


class Noting:
    """Adds a note to a CancelledError that passes: that *what* was being waited for."""

    def __init__(self, what: str) -> None:
        self._note = f"while waiting for {what}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            error.add_note(self._note)


def _nothing() -> None:
    """Do what has to be done when a connection goes that nobody has left yet."""
