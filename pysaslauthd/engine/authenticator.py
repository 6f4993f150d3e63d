"""Asks the backend one question under one deadline, and records the verdict once."""

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import Awaitable
from socket import SocketType
from typing import Protocol, Self, TypeGuard

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.cache import Cache
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    VERDICTS,
    Accepted,
    AuthRequest,
    AuthResult,
    Deadlines,
    Rejected,
    Unavailable,
)

log = logging.getLogger(__name__)

FAULT = "fault in backend %s"
REPLY_BY = 9.0  # seconds after the request, whatever delay is wanted: Postfix gives up after 10


class AddressSource(Protocol):
    """Finds the client of the process at the other end of a connection."""

    def worth_asking(self, connection: SocketType, /) -> bool:
        """Say whether it may be found at all."""
        ...

    async def find(self, connection: SocketType, /) -> str:
        """Return its address, "" where it is not found."""
        ...


class Authenticator:
    """What a door asks; a deadline starts when there is something to wait for.

    *cache* is asked first. *addresses* finds clients that the application does
    not name: for a backend that wants to know, and for the log.
    """

    def __init__(
        self,
        backend: PasswordVerifier,
        names: Names,
        audit: Audit,
        deadlines: Deadlines,
        *,
        cache: Cache | None = None,
        addresses: AddressSource | None = None,
    ) -> None:
        self.backend = backend
        self._names = names
        self._audit = audit
        self._deadlines = deadlines
        self._cache = cache
        self._addresses = addresses
        self._is_leaving = asyncio.Event()
        self._holds_replies = True

    def with_names(self, names: Names) -> Self:
        """Return another with other rules for names; backend, cache and all else are the same."""
        other = copy.copy(self)
        other._names = names  # noqa: SLF001 (it is one of us)
        return other

    def without_delays(self) -> Self:
        """Return another for a door that holds refusals itself, for as long as they say."""
        other = copy.copy(self)
        other._holds_replies = False  # noqa: SLF001 (it is one of us)
        return other

    def end_delays(self) -> None:
        """Hold no reply any more: the daemon is leaving."""
        self._is_leaving.set()

    def check(
        self, request: AuthRequest, connection: SocketType | None = None
    ) -> AuthResult | Awaitable[AuthResult]:
        """Return the verdict, at once where the backend knows it, else what to wait for.

        *connection* is where the request came from; it stays open until the
        verdict is there. Neither raises: a fault in a backend is logged and
        becomes Unavailable.
        """
        question = self._names.for_backend(request, self.backend.naming)
        if self._cache is not None and self._cache.holds(question):
            self._audit.record_cached(request)
            return Accepted(question.user, self.backend.name)
        if self.backend.uses_address and self._may_find(connection, request):
            return self._ask_with_address(request, connection)
        result = self._ask(question)
        if not isinstance(result, VERDICTS):
            return self._settle(request, question, result, connection)
        if self._audit.writes(result):
            if self._may_find(connection, request):
                return self._record_with_address(request, result, connection)
            self._audit.record(request, result)
        return result

    def _ask(self, question: AuthRequest) -> AuthResult | Awaitable[AuthResult]:
        try:
            return self.backend.verify(question)
        except Exception:
            log.exception(FAULT, self.backend.name)
            return self._fault()

    async def _ask_with_address(self, request: AuthRequest, connection: SocketType) -> AuthResult:
        located = await self._locate(request, connection)
        question = self._names.for_backend(located, self.backend.naming)
        result = self._ask(question)
        if not isinstance(result, VERDICTS):
            return await self._settle(located, question, result, None)
        self._audit.record(located, result)
        return result

    async def _settle(
        self,
        request: AuthRequest,
        question: AuthRequest,
        pending: Awaitable[AuthResult],
        connection: SocketType | None,
    ) -> AuthResult:
        deadline = self._deadlines.of(request.origin.service)
        try:
            async with asyncio.timeout(deadline):
                result = await pending
        except TimeoutError as error:
            # What was cancelled may have left a note on what it was waiting for.
            notes = getattr(error.__cause__, "__notes__", [])
            told = ", ".join([f"no answer within {deadline:g} s", *notes])
            result = Unavailable(told, self.backend.name)
        except Exception:
            log.exception(FAULT, self.backend.name)
            result = self._fault()
        self._remember(question, result)
        if self._audit.writes(result) and self._may_find(connection, request):
            request = await self._locate(request, connection)
        self._audit.record(request, result)
        if self._holds_replies and isinstance(result, Rejected) and result.delay:
            rest = request.received + REPLY_BY - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(result.delay, rest)):
                    await self._is_leaving.wait()
        return result

    def _remember(self, question: AuthRequest, result: AuthResult) -> None:
        if self._cache is None:
            return
        if isinstance(result, Accepted):
            self._cache.accepted(question)
        elif isinstance(result, Rejected):
            self._cache.refused(question, result.reason)

    async def _record_with_address(
        self, request: AuthRequest, result: AuthResult, connection: SocketType
    ) -> AuthResult:
        self._audit.record(await self._locate(request, connection), result)
        return result

    def _may_find(
        self, connection: SocketType | None, request: AuthRequest
    ) -> TypeGuard[SocketType]:
        return (
            self._addresses is not None
            and connection is not None
            and not request.origin.remote
            and self._addresses.worth_asking(connection)
        )

    async def _locate(self, request: AuthRequest, connection: SocketType) -> AuthRequest:
        """Return *request* with the address of the client behind *connection*, if it is found."""
        if self._addresses is None:
            return request
        address = await self._addresses.find(connection)
        return request._replace(origin=request.origin._replace(remote=address))

    def _fault(self) -> Unavailable:
        return Unavailable("internal error", self.backend.name)
