"""Stored passwords of a directory, compared in worker processes: the words of both sides.

A question is a password and the values that it may fit, as counted fields; its
answer is a verdict. What knows the schemes is the caller's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pysaslauthd.errors import CannotCheck, MalformedMessage
from pysaslauthd.model import (
    Accepted,
    AuthResult,
    Deadlines,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.workers.child import Answer, answering
from pysaslauthd.workers.frames import LARGEST_FIELD, decode, decode_answer, encode
from pysaslauthd.workers.pool import Pool
from pysaslauthd.workers.questions import WorkerLost

MOST_VALUES = 16
MOST_BYTES = LARGEST_FIELD  # of all values together

AnyFits = Callable[[bytes, Sequence[bytes]], bool]


class _Question(NamedTuple):
    password: Secret
    values: Sequence[bytes]


def checking_hashes(any_fits: AnyFits, name: str) -> Answer:
    """Return what answers by *any_fits*, which may raise CannotCheck; *name* is the backend's."""

    def check(question: _Question) -> AuthResult:
        try:
            fits = any_fits(question.password.reveal(), question.values)
        except CannotCheck as fault:
            return Unavailable(str(fault), name)
        return Accepted("", name) if fits else Rejected(Reason.WRONG_PASSWORD, name)

    return answering(_decode, check, name)


class HashWorkers:
    """The front's side, for the backend *name*: asks the workers of *pool*.

    A worker that needs longer than *deadlines* allow is killed.
    """

    def __init__(self, name: str, pool: Pool, deadlines: Deadlines) -> None:
        self._name = name
        self._pool = pool
        self._deadlines = deadlines

    def open(self) -> None:
        """Start the first workers; they need not be ready when this returns."""
        self._pool.open()

    def retire(self) -> None:
        """Answer what has been asked, and keep no worker beyond that."""
        self._pool.retire()

    def close(self) -> None:
        """Let the workers go."""
        self._pool.close()

    async def fits(
        self, password: Secret, values: Sequence[bytes], service: str, owner: str
    ) -> bool:
        """Say whether *password* fits one of *values*; *service* is who asks.

        Questions about the same *owner* share the workers with others: who may choose
        a hash of their own may choose one that takes for ever.
        CannotCheck where none is known to fit and one could not be checked, or
        there are too many; WorkerLost where no worker gave an answer.
        """
        question = _encode(_Question(password, values))
        answer = await self._pool.ask(owner, question, self._deadlines.of(service))
        try:
            result = decode_answer(answer, "", self._name)
        except MalformedMessage as error:
            raise WorkerLost(f"a worker process gave {error}") from None
        if isinstance(result, Unavailable):
            raise CannotCheck(result.detail)
        return isinstance(result, Accepted)


def _encode(question: _Question) -> bytes:
    """Return *question* as so many fields as there may be; what is missing is empty."""
    password, values = question
    if len(values) > MOST_VALUES or sum(map(len, values)) > MOST_BYTES:
        raise CannotCheck(f"more than {MOST_VALUES} values, or {MOST_BYTES} bytes of them")
    missing = [b""] * (MOST_VALUES - len(values))
    try:
        return encode([password.reveal(), *values, *missing])
    except ValueError as error:
        raise CannotCheck(str(error)) from None


def _decode(packet: bytes) -> _Question:
    password, *values = decode(packet, 1 + MOST_VALUES)
    return _Question(Secret(password), [value for value in values if value])
