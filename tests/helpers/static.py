"""A backend that answers what the test says, at once or later."""

from collections.abc import Awaitable

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import Accepted, AuthRequest, AuthResult

YES = Accepted("joe", "static")


class Static:
    """Answers with *answer*: a value, an awaitable, or an exception that is raised."""

    name = "static"
    naming = Naming.JOINED
    waits = False
    uses_address = False

    def __init__(self, answer: AuthResult | Awaitable[AuthResult] | Exception = YES) -> None:
        self.answer = answer
        self.asked: list[AuthRequest] = []

    def verify(self, request: AuthRequest, /) -> AuthResult | Awaitable[AuthResult]:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def open(self) -> None:
        """Nothing to get ready."""

    def retire(self) -> None:
        """Nothing to let go of."""

    async def close(self) -> None:
        """Nothing to let go of."""
