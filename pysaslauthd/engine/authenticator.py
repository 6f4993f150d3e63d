"""Asks the backend one question under one deadline, and records the verdict once."""

import asyncio
import logging
from collections.abc import Awaitable

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.names import Names
from pysaslauthd.model import VERDICTS, AuthRequest, AuthResult, Unavailable

log = logging.getLogger(__name__)

FAULT = "fault in backend %s"


class Authenticator:
    """What a door asks; *deadline* is in seconds and starts when there is something to wait for."""

    def __init__(
        self, backend: PasswordVerifier, names: Names, audit: Audit, deadline: float
    ) -> None:
        self.backend = backend
        self._names = names
        self._audit = audit
        self._deadline = deadline

    def check(self, request: AuthRequest) -> AuthResult | Awaitable[AuthResult]:
        """Return the verdict, at once where the backend knows it, else what to wait for.

        Neither raises: a fault in a backend is logged and becomes Unavailable.
        """
        question = self._names.for_backend(request, keeps_realm=self.backend.keeps_realm)
        try:
            result = self.backend.verify(question)
        except Exception:
            log.exception(FAULT, self.backend.name)
            result = self._fault()
        if isinstance(result, VERDICTS):
            self._audit.record(request, result)
            return result
        return self._settle(request, result)

    async def _settle(self, request: AuthRequest, pending: Awaitable[AuthResult]) -> AuthResult:
        try:
            async with asyncio.timeout(self._deadline):
                result = await pending
        except TimeoutError:
            result = Unavailable(f"no answer within {self._deadline:g} s", self.backend.name)
        except Exception:
            log.exception(FAULT, self.backend.name)
            result = self._fault()
        self._audit.record(request, result)
        return result

    def _fault(self) -> Unavailable:
        return Unavailable("internal error", self.backend.name)
