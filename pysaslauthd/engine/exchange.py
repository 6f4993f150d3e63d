"""Runs SASL exchanges: asks the backend what a mechanism needs, and judges the end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from pysaslauthd.backends.base import Found, SecretStore
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import FAULT, Authenticator
from pysaslauthd.engine.names import Names
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import (
    VERDICTS,
    Accepted,
    AuthRequest,
    AuthResult,
    Deadlines,
    Lookup,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.sasl.server.decoys import decoy_password
from pysaslauthd.sasl.server.mechanism import (
    Answer,
    Challenge,
    CheckPassword,
    Compute,
    FetchPassword,
    Finished,
    Mechanism,
    Need,
    Script,
    Step,
    Stored,
    Surroundings,
)

log = logging.getLogger(__name__)

Said: TypeAlias = Challenge | Finished
Known: TypeAlias = AuthResult | Stored  # what a backend was asked for
Reader: TypeAlias = Callable[[bytes], tuple[CheckPassword, str]]
# For isinstance, on the hot path.
SAID = (Challenge, Finished)
FOUND = (Secret, Rejected, Unavailable)
KNOWN = (*VERDICTS, Stored)

FAULTY = "fault in mechanism %s"
NO_PASSWORD = Secret(b"")  # of a request in which none was said


class Parts(NamedTuple):
    """What the engine is made of, for doors that speak SASL. *store*: None where there is none."""

    authenticator: Authenticator
    store: SecretStore | None
    names: Names
    audit: Audit
    deadlines: Deadlines

    def distrusting_realms(self) -> "Parts":
        """Return the same for a door whose clients say themselves of which realm they are."""
        names = self.names._replace(trusts_realms=False)
        return self._replace(names=names, authenticator=self.authenticator.with_names(names))

    def without_delays(self) -> "Parts":
        """Return the same for a door that holds refusals itself, for as long as they say."""
        return self._replace(authenticator=self.authenticator.without_delays())


class Exchanges:
    """What a door asks that speaks SASL: which mechanisms may succeed, and one exchange each time.

    *may_act_as* says of an authcid and another's name, both as the client wrote
    them, whether the one may act as the other; by default nobody may.
    """

    def __init__(
        self,
        parts: Parts,
        known: Iterable[Mechanism],
        *,
        may_act_as: Callable[[str, str], bool] = lambda _authcid, _authzid: False,
    ) -> None:
        self.may_act_as = may_act_as
        self._known = tuple(known)
        self.hashing = asyncio.Lock()  # held while a proof is hashed for
        self.follow(parts)

    def follow(self, parts: Parts) -> None:
        """Ask *parts* from now on; what has been asked already is answered by whom it was asked."""
        self.parts = parts
        hopeless = set() if parts.store else {Need.STORED_PASSWORD, Need.CHANNEL_BINDING}
        self.mechanisms = tuple(one for one in self._known if one.need not in hopeless)

    def start(
        self,
        mechanism: Mechanism,
        surroundings: Surroundings,
        initial: bytes | None,
        origin: Origin,
    ) -> "Exchange":
        """Return an exchange in which nothing has happened yet; *origin* is for the log."""
        if origin.mechanism != mechanism.name:
            origin = origin._replace(mechanism=mechanism.name)
        return Exchange(self, mechanism, surroundings, initial, origin)


class Exchange(Struct, eq=False):
    """One exchange with one client; see `Exchanges.start`."""

    _source: Exchanges
    _mechanism: Mechanism
    _surroundings: Surroundings
    _initial: bytes | None
    _origin: Origin
    _script: Script | None = None
    _received: float = 0.0
    _logged: AuthResult | None = None  # the verdict of which the log has a line

    def __repr__(self) -> str:
        return "Exchange(...)"  # there is a password in it

    async def proceed(self, response: bytes | None) -> Said:
        """Return what to say next, or the end; None first, then the client's responses.

        Never raises: messages that are none end it with a refusal, faults with Unavailable.
        """
        said = self.advance(response, time.monotonic())
        return said if isinstance(said, SAID) else await said

    def advance(self, response: bytes | None, received: float) -> Said | Awaitable[Said]:
        """Do what `proceed` does; at once where nothing has to be waited for, else return what has.

        *received* as in AuthRequest. Waiting does not raise either.
        """
        self._received = received
        if self._initial is not None and self._mechanism.reads is not None:
            return self._conclude(self._mechanism.reads, self._initial)
        return self._follow(self._proceed(response))

    def _conclude(self, reads: Reader, message: bytes) -> Said | Awaitable[Said]:
        """Do in one go what the script would: most exchanges go this way."""
        try:
            check, authzid = reads(message)
        except MalformedMessage as error:
            return self._end(self._refusal(error))
        except Exception:
            log.exception(FAULTY, self._mechanism.name)
            return self._end(self._fault())
        result = self._check(check)
        if isinstance(result, VERDICTS):
            return self._end(Finished(result, check.authcid, authzid))
        return self._conclude_later(result, check.authcid, authzid)

    async def _conclude_later(
        self, pending: Awaitable[AuthResult], authcid: str, authzid: str
    ) -> Said:
        return self._end(Finished(await pending, authcid, authzid))

    async def _compute(self, work: Callable[[], bytes]) -> Said:
        """Do *work* in a thread and go on; there is one at a time.

        So who guesses keeps one core busy, and no door from its other clients. A thread cannot
        be stopped: who does not want the answer any more has its turn to the end all the same.
        """
        deadline = self._source.parts.deadlines.of(self._origin.service)
        try:
            async with asyncio.timeout(deadline):
                await self._source.hashing.acquire()
        except TimeoutError:
            why = f"others are hashed for: no turn within {deadline:g} s"
            return self._end(Finished(Unavailable(why, self._mechanism.name), ""))
        try:
            thread = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                done = await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.wait({thread})
                raise
            except Exception:
                log.exception(FAULTY, self._mechanism.name)
                return self._end(self._fault())
        finally:
            self._source.hashing.release()
        return await self._go_on(done)

    def _proceed(self, answer: Answer | None) -> Step | Finished:
        try:
            if self._script is None:
                self._script = self._mechanism.start(self._surroundings, self._initial)
            return self._script.send(answer)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            finished: Finished = end.value
            return finished
        except MalformedMessage as error:
            return self._refusal(error)
        except Exception:
            log.exception(FAULTY, self._mechanism.name)
            return self._fault()

    def _refusal(self, error: MalformedMessage) -> Finished:
        return Finished(Rejected(Reason.MALFORMED, self._mechanism.name, detail=str(error)), "")

    def _fault(self) -> Finished:
        return Finished(Unavailable("internal error", self._mechanism.name), "")

    def _follow(self, step: Step | Finished) -> Said | Awaitable[Said]:
        """Return what comes of *step*, and of those after it."""
        while True:
            if isinstance(step, CheckPassword):
                answer: Known | Awaitable[Known] = self._check(step)
            elif isinstance(step, FetchPassword):
                answer = self._fetch(step.authcid)
            elif isinstance(step, Compute):
                return self._compute(step.work)
            else:
                return step if isinstance(step, Challenge) else self._end(step)
            if not isinstance(answer, KNOWN):
                return self._advance_later(answer)
            step = self._proceed(answer)

    async def _advance_later(self, pending: Awaitable[Known]) -> Said:
        return await self._go_on(await pending)

    async def _go_on(self, answer: Answer) -> Said:
        said = self._follow(self._proceed(answer))
        return said if isinstance(said, SAID) else await said

    def _check(self, step: CheckPassword) -> AuthResult | Awaitable[AuthResult]:
        request = self._request(step.authcid, step.password)
        result = self._source.parts.authenticator.check(request)
        if isinstance(result, VERDICTS):
            self._logged = result
            return result
        return self._check_later(result)

    async def _check_later(self, pending: Awaitable[AuthResult]) -> AuthResult:
        self._logged = await pending
        return self._logged

    def _fetch(self, authcid: str) -> Stored | Unavailable | Awaitable[Stored | Unavailable]:
        parts = self._source.parts
        if parts.store is None:  # not offered without one; but a reload may have taken it away
            return Unavailable("the backend has no passwords any more", self._mechanism.name)
        request = parts.names.for_backend(self._request(authcid, NO_PASSWORD), parts.store.naming)
        lookup = Lookup(request.user, request.realm, request.received)
        try:
            found = parts.store.fetch(lookup)
        except Exception:
            log.exception(FAULT, parts.store.name)
            return Unavailable("internal error", parts.store.name)
        if isinstance(found, FOUND):
            return self._stored(authcid, found, parts.store)
        return self._fetch_later(authcid, found, parts.store)

    async def _fetch_later(
        self, authcid: str, pending: Awaitable[Found], store: SecretStore
    ) -> Stored | Unavailable:
        deadline = self._source.parts.deadlines.of(self._origin.service)
        try:
            async with asyncio.timeout(deadline):
                found = await pending
        except TimeoutError:
            return Unavailable(f"no answer within {deadline:g} s", store.name)
        except Exception:
            log.exception(FAULT, store.name)
            return Unavailable("internal error", store.name)
        return self._stored(authcid, found, store)

    def _stored(self, authcid: str, found: Found, store: SecretStore) -> Stored | Unavailable:
        match found:
            case Secret():
                return Stored(authcid, found, store.name)
            case Rejected():
                decoy = decoy_password(self._surroundings.key, authcid)
                return Stored(authcid, decoy, store.name, refusal=found)
            case Unavailable():
                return found

    def _end(self, finished: Finished) -> Finished:
        """Return *finished* as it is after all, and see to it that the log has a line."""
        result = finished.result
        if isinstance(result, Accepted) and finished.authzid:
            result = self._authorised(finished, result)
        if result is not self._logged:
            request = self._request(finished.authcid, NO_PASSWORD)
            self._source.parts.audit.record(request, result)
        return finished if result is finished.result else replace(finished, result=result)

    def _authorised(self, finished: Finished, accepted: Accepted) -> AuthResult:
        """Return what is left of *accepted* for one who wants to act under a name."""
        authcid, authzid = finished.authcid, finished.authzid
        if self._source.parts.names.are_same(authcid, authzid):
            return accepted
        try:
            may = self._source.may_act_as(authcid, authzid)
        except Exception:
            log.exception("fault in the rule of who may act as whom")
            return Unavailable("internal error", accepted.backend)
        detail = f"may not act as {authzid}"
        refusal = Rejected(Reason.NO_AUTHORISATION, accepted.backend, detail=detail)
        return accepted if may else refusal

    def _request(self, authcid: str, password: Secret) -> AuthRequest:
        user, realm = self._source.parts.names.split(authcid)
        return AuthRequest(user, password, realm, self._origin, self._received)
