"""Runs SASL exchanges: asks the backend what a mechanism needs, and judges the end."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

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
from pysaslauthd.sasl.server.exchange import ServerExchange
from pysaslauthd.sasl.server.mechanism import (
    Answer,
    Challenge,
    CheckPassword,
    FetchPassword,
    Finished,
    Mechanism,
    Need,
    Step,
    Stored,
    Surroundings,
)

log = logging.getLogger(__name__)

NO_PASSWORD = Secret(b"")  # of a request in which none was said


class Parts(NamedTuple):
    """What the engine is made of, for doors that speak SASL. *store*: None where there is none."""

    authenticator: Authenticator
    store: SecretStore | None
    names: Names
    audit: Audit
    deadlines: Deadlines


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
        self._rules = _Rules(parts, may_act_as, asyncio.Lock())
        hopeless = set() if parts.store else {Need.STORED_PASSWORD, Need.CHANNEL_BINDING}
        self.mechanisms = tuple(one for one in known if one.need not in hopeless)

    def start(
        self,
        mechanism: Mechanism,
        surroundings: Surroundings,
        initial: bytes | None,
        origin: Origin,
    ) -> "Exchange":
        """Return an exchange in which nothing has happened yet; *origin* is for the log."""
        script = ServerExchange(mechanism, surroundings, initial)
        origin = origin._replace(mechanism=mechanism.name)
        return Exchange(self._rules, script, surroundings.key, origin)


class _Rules(NamedTuple):
    """What is the same for all exchanges. *hashing* is held while a proof is hashed for."""

    parts: Parts
    may_act_as: Callable[[str, str], bool]
    hashing: asyncio.Lock


class Exchange:
    """One exchange with one client; see `Exchanges.start`."""

    def __init__(self, rules: _Rules, script: ServerExchange, key: Secret, origin: Origin) -> None:
        self._rules = rules
        self._parts = rules.parts
        self._script = script
        self._key = key
        self._origin = origin
        self._logged: AuthResult | None = None  # the verdict of which the log has a line

    async def proceed(self, response: bytes | None) -> Challenge | Finished:
        """Return what to say next, or the end; None first, then the client's responses.

        Never raises: messages that are none end it with a refusal, faults with Unavailable.
        """
        try:
            return await self._proceed(response)
        except MalformedMessage as error:
            name = self._script.mechanism.name
            return self._end(Finished(Rejected(Reason.MALFORMED, name, detail=str(error)), ""))
        except Exception:
            log.exception("fault in mechanism %s", self._script.mechanism.name)
            result = Unavailable("internal error", self._script.mechanism.name)
            return self._end(Finished(result, ""))

    async def _proceed(self, answer: Answer | None) -> Challenge | Finished:
        while True:
            step = await self._step(answer)
            match step:
                case Challenge():
                    return step
                case CheckPassword():
                    answer = await self._check(step)
                case FetchPassword():
                    answer = await self._fetch(step.authcid)
                case Finished():
                    return self._end(step)

    async def _step(self, answer: Answer | None) -> Step | Finished:
        """Go on; in a thread where that takes long, of which there is one at a time.

        So who guesses keeps one core busy, and no door from its other clients.
        """
        if not (isinstance(answer, Stored) and self._script.mechanism.hashes):
            return self._script.proceed(answer)
        async with self._rules.hashing:
            return await asyncio.to_thread(self._script.proceed, answer)

    async def _check(self, step: CheckPassword) -> AuthResult:
        result = self._parts.authenticator.check(self._request(step.authcid, step.password))
        self._logged = result if isinstance(result, VERDICTS) else await result
        return self._logged

    async def _fetch(self, authcid: str) -> Stored | Unavailable:
        store = self._parts.store
        assert store is not None  # noqa: S101 (such a mechanism is not offered without)
        request = self._parts.names.for_backend(self._request(authcid, NO_PASSWORD), store.naming)
        found = await self._look_up(store, Lookup(request.user, request.realm, request.received))
        match found:
            case Secret():
                return Stored(authcid, found, store.name)
            case Rejected():
                decoy = decoy_password(self._key, authcid)
                return Stored(authcid, decoy, store.name, refusal=found)
            case Unavailable():
                return found

    async def _look_up(self, store: SecretStore, lookup: Lookup) -> Found:
        deadline = self._parts.deadlines.of(self._origin.service)
        try:
            found = store.fetch(lookup)
            if isinstance(found, Secret | Rejected | Unavailable):
                return found
            async with asyncio.timeout(deadline):
                return await found
        except TimeoutError:
            return Unavailable(f"no answer within {deadline:g} s", store.name)
        except Exception:
            log.exception(FAULT, store.name)
            return Unavailable("internal error", store.name)

    def _end(self, finished: Finished) -> Finished:
        """Return *finished* as it is after all, and see to it that the log has a line."""
        result = finished.result
        if isinstance(result, Accepted) and not self._is_authorised(finished):
            result = Rejected(
                Reason.NO_AUTHORISATION,
                result.backend,
                detail=f"may not act as {finished.authzid}",
            )
        if result is not self._logged:
            self._parts.audit.record(self._request(finished.authcid, NO_PASSWORD), result)
        return finished._replace(result=result)

    def _is_authorised(self, finished: Finished) -> bool:
        authcid, authzid = finished.authcid, finished.authzid
        if not authzid or self._parts.names.are_same(authcid, authzid):
            return True
        return self._rules.may_act_as(authcid, authzid)

    def _request(self, authcid: str, password: Secret) -> AuthRequest:
        user, realm = self._parts.names.split(authcid)
        return AuthRequest(user, password, realm, self._origin, time.monotonic())
