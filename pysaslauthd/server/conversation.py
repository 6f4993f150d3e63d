"""One client of the Dovecot door: what it has asked, and what it is still owed. No sockets."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

from pysaslauthd.engine.authenticator import REPLY_BY
from pysaslauthd.engine.exchange import Exchange, Exchanges, Said
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, Reason, Rejected, Secret
from pysaslauthd.sasl.server.mechanism import Challenge, Finished, Mechanism, Surroundings
from pysaslauthd.wire.dovecot import (
    INITIAL_GARBLED,
    NOT_PENDING,
    RESPONSE_GARBLED,
    UNEXPECTED,
    About,
    Auth,
    Cancel,
    Continue,
    Decoder,
    Garbled,
    encode_challenge,
    encode_failure,
    encode_success,
)

log = logging.getLogger(__name__)

PATIENCE = 150.0  # seconds for a client's response, as in Dovecot: Postfix abandons numbers
MOST_WAITING = 1024  # for their clients; the longest waiting one is forgotten
# Then the connection is not read: what comes is the other side's to keep.
MOST_WORKING = 256
MOST_HELD = 4096
MOST_ASKED = 4096  # questions under way in all; more would not be answered in time anyway
GARBLED_CODE = "invalid_base64"
PLAINTEXT_REFUSED = "Plaintext authentication disallowed on non-secure (SSL/TLS) connections."
CODES = {
    Reason.ACCOUNT_EXPIRED: "user_disabled",
    Reason.ACCOUNT_LOCKED: "user_disabled",
    Reason.PASSWORD_EXPIRED: "pass_expired",
    Reason.PASSWORD_MUST_CHANGE: "pass_expired",
    Reason.NO_AUTHORISATION: "authz_fail",
}
BEGUN_BY_SERVER = {"CRAM-MD5", "DIGEST-MD5"}  # Dovecot ignores an initial response to them


class Rules(NamedTuple):
    """How a door serves.

    *offered*: the mechanisms by name. *failure_delay*: seconds after which a refusal
    leaves. *only_secured*: none that shows the password is let through where somebody
    may read along. *tells_outage*: a client hears of every one; otherwise it is hung
    up on, if it waits for nothing else (docs/differences.md).
    """

    exchanges: Exchanges
    surroundings: Surroundings
    offered: Mapping[str, Mechanism]
    failure_delay: float
    only_secured: bool = False
    tells_outage: bool = False


class Request(Struct, eq=False):
    """One that is pending, and when the last of it was *received*.

    *granted*: what is left to say when its client has nodded.
    """

    number: int
    about: About
    mechanism: Mechanism
    exchange: Exchange
    received: float
    granted: bytes | None = None
    task: asyncio.Task[None] | None = None


class Conversation:
    """What a client says goes into `hear`; what it is to hear comes into *replies*.

    *on_reply* is called when something has come there later. When *is_over*, what is in
    *replies* is the last. *tasks* are those in which backends are waited for.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: Rules,
        tasks: set[asyncio.Task[None]],
        on_reply: Callable[[], None],
    ) -> None:
        self.rules = rules
        self.replies: list[bytes] = []
        self.is_over = False
        self._loop = loop
        self._tasks = tasks
        self._on_reply = on_reply
        self._decoder = Decoder()
        self._waiting: dict[int, Request] = {}  # for their client; the longest waiting first
        self._working: dict[int, Request] = {}  # for a backend
        self._held: dict[int, tuple[asyncio.TimerHandle, bytes]] = {}
        self._last_held = 0
        self._outages: list[bytes] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is pending."""
        return not (self._waiting or self._working or self._held)

    @property
    def is_busy(self) -> bool:
        """Whether no more should be read, for the client is owed so much."""
        return len(self._working) >= MOST_WORKING or len(self._held) >= MOST_HELD

    def hear(self, data: bytes, received: float) -> None:
        """Take in what the client says; MalformedMessage where it has to be hung up on.

        *received*: the loop's time, at or after the moment when *data* was read.
        """
        for message in self._decoder.feed(data):
            if isinstance(message, Auth):
                self._begin(message, received)
            elif isinstance(message, Continue):
                self._continue(message, received)
            else:
                self._cancel(message)
        if self._outages:
            self._settle_outages()

    def expire(self) -> None:
        """Forget what has waited for its client too long."""
        latest = self._loop.time() - PATIENCE
        for number, request in list(self._waiting.items()):
            if request.received > latest:
                return
            del self._waiting[number]

    def hurry(self) -> None:
        """Hold no reply any more."""
        for timer, reply in self._held.values():
            timer.cancel()
            self.replies.append(reply)
        self._held.clear()

    def abandon(self) -> None:
        """Do nothing for the client any more: it has gone."""
        for request in self._working.values():
            self._cancel_work(request)
        for timer, _ in self._held.values():
            timer.cancel()
        self._working.clear()
        self._held.clear()
        self._waiting.clear()

    def _begin(self, auth: Auth, received: float) -> None:
        rules = self.rules
        number, about, initial = auth.number, auth.about, auth.initial
        mechanism = rules.offered.get(auth.mechanism)
        if mechanism is None:
            raise MalformedMessage("AUTH with a mechanism that is not offered")
        if number in self._waiting or number in self._working:
            raise MalformedMessage("AUTH with a number that is in use")
        if isinstance(initial, Garbled):
            self._fail(number, GARBLED_CODE, INITIAL_GARBLED)
            return
        if rules.only_secured and mechanism.traits.plaintext and not about.secured:
            self._fail(number, reason=PLAINTEXT_REFUSED)
            return
        exchange = rules.exchanges.start(
            mechanism,
            _surroundings(rules.surroundings, about),
            _initial(mechanism, initial),
            about.origin,
        )
        self._advance(Request(number, about, mechanism, exchange, received), None)

    def _continue(self, message: Continue, received: float) -> None:
        number = message.number
        request = self._waiting.pop(number, None)
        if request is None:
            working = self._working.pop(number, None)
            if working is not None:
                self._cancel_work(working)
            self._fail(number, reason=UNEXPECTED if working else NOT_PENDING)
        elif isinstance(message.response, Garbled):
            self._fail(number, GARBLED_CODE, RESPONSE_GARBLED)
        elif request.granted is not None:
            self.replies.append(request.granted)
        else:
            request.received = received
            self._advance(request, message.response.reveal())

    def _advance(self, request: Request, response: bytes | None) -> None:
        if len(self._tasks) >= MOST_ASKED:
            self._outages.append(encode_failure(request.number, code="temp_fail"))
        else:
            self._tell(request, request.exchange.advance(response, request.received))

    def _cancel(self, message: Cancel) -> None:
        self._waiting.pop(message.number, None)
        working = self._working.pop(message.number, None)
        if working is not None:
            self._cancel_work(working)

    def _cancel_work(self, request: Request) -> None:
        if request.task is not None:
            # When it has begun: otherwise what it waits for would never have been waited for.
            self._loop.call_soon(request.task.cancel)

    def _tell(self, request: Request, said: Said | Awaitable[Said]) -> None:
        if isinstance(said, Finished):
            self._end(request, said)
        elif isinstance(said, Challenge):
            self._challenge(request, said.data)
        else:
            self._working[request.number] = request
            task = self._loop.create_task(self._tell_later(request, said))
            request.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_later(self, request: Request, pending: Awaitable[Said]) -> None:
        try:
            said = await pending
            if self._working.get(request.number) is not request:
                return  # it was abandoned, and what waited took no notice
            del self._working[request.number]
            self._tell(request, said)
            if self._outages:
                self._settle_outages()
        except Exception:
            log.exception("fault while serving a connection")
            self.is_over = True
        self._on_reply()

    def _challenge(self, request: Request, data: bytes) -> None:
        self._waiting[request.number] = request
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self.replies.append(encode_challenge(request.number, data))

    def _end(self, request: Request, finished: Finished) -> None:
        number, result = request.number, finished.result
        if isinstance(result, Accepted):
            self._grant(request, finished)
        elif isinstance(result, Rejected):
            code = CODES.get(result.reason, "")
            self._hold(request, encode_failure(number, finished.authcid, code), result.delay)
        else:
            self._outages.append(encode_failure(number, finished.authcid, "temp_fail"))

    def _grant(self, request: Request, finished: Finished) -> None:
        """Say yes; a mechanism's last message goes beside it, or before it for older clients."""
        user, final = finished.authzid or finished.authcid, finished.data
        beside = final if request.about.final_beside_success else None
        is_anonymous = request.mechanism.traits.anonymous
        reply = encode_success(request.number, user, is_anonymous=is_anonymous, final=beside)
        if final is None or beside is not None:
            self.replies.append(reply)
        else:
            request.granted = reply
            self._challenge(request, final)

    def _hold(self, request: Request, reply: bytes, delay: float) -> None:
        """Say no when it is time, which depends on when it was asked only: that tells nothing.

        But for a backend that wants *delay*, as PAM's modules do.
        """
        now = self._loop.time()
        until = request.received + self.rules.failure_delay
        if delay:
            until = max(until, min(now + delay, request.received + REPLY_BY))
        if request.about.nodelay or until <= now:
            self.replies.append(reply)
            return
        self._last_held += 1
        timer = self._loop.call_at(until, self._let_go, self._last_held)
        self._held[self._last_held] = timer, reply

    def _let_go(self, key: int) -> None:
        _, reply = self._held.pop(key)
        self.replies.append(reply)
        self._on_reply()

    def _settle_outages(self) -> None:
        """Tell what could not be found out; the last by hanging up, where nothing else is owed.

        Postfix takes every FAIL for a wrong password. Who waits for its client is not owed
        anything: Postfix abandons such numbers.
        """
        if not (self._working or self._held or self.rules.tells_outage):
            self._outages.pop()
            self.is_over = True
        self.replies += self._outages
        self._outages.clear()

    def _fail(self, number: int, code: str = "", reason: str = "") -> None:
        self.replies.append(encode_failure(number, code=code, reason=reason))


def _initial(mechanism: Mechanism, initial: Secret | None) -> bytes | None:
    if initial is None or mechanism.name in BEGUN_BY_SERVER:
        return None
    response = initial.reveal()
    # Dovecot takes an empty name for none.
    return None if mechanism.name == "LOGIN" and not response else response


def _surroundings(common: Surroundings, about: About) -> Surroundings:
    service = about.origin.service
    if about.certificate is None and service == common.service:
        return common
    return common._replace(service=service or common.service, external=about.certificate)
