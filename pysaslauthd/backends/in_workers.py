"""The front's side of a backend that blocks: it is asked in worker processes."""

from pysaslauthd.backends.base import Naming
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import AuthRequest, AuthResult, Deadlines, Unavailable
from pysaslauthd.workers.frames import decode_answer, encode_question
from pysaslauthd.workers.pool import Pool
from pysaslauthd.workers.questions import WorkerLost


class InWorkers:
    """The backend *name*, whose `BlockingVerifier` runs in the workers of *pool*.

    A worker that needs longer than *deadlines* allow is killed.
    """

    naming = Naming.JOINED
    waits = True

    def __init__(self, name: str, pool: Pool, deadlines: Deadlines, *, uses_address: bool) -> None:
        self.name = name
        self.uses_address = uses_address
        self._pool = pool
        self._deadlines = deadlines

    async def open(self) -> None:
        """Start the first workers; they need not be ready when this returns."""
        self._pool.open()

    def retire(self) -> None:
        """Answer what has been asked, and keep no worker beyond that."""
        self._pool.retire()

    async def close(self) -> None:
        """Let the workers go."""
        self._pool.close()

    async def verify(self, request: AuthRequest, /) -> AuthResult:
        """Return a worker's verdict; `Unavailable` where none could give one."""
        service = request.origin.service
        try:
            question = encode_question(request)
        except ValueError as error:
            return Unavailable(str(error), self.name)
        try:
            answer = await self._pool.ask(service, question, self._deadlines.of(service))
            return decode_answer(answer, request.user, self.name)
        except WorkerLost as lost:
            return Unavailable(str(lost), self.name)
        except MalformedMessage as error:
            return Unavailable(f"a worker process gave {error}", self.name)
