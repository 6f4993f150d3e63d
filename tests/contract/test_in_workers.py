"""The front's side of a blocking backend: the contract, with real worker processes."""

from collections.abc import AsyncIterator

import pytest

from pysaslauthd.backends.in_workers import InWorkers
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected
from pysaslauthd.workers.child import Answer, checking
from tests.contract.verifier import VerifierContract
from tests.helpers.workers import DIE, backend, obedient, serving

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

NAME = "table"
PASSWORDS = {"joe": b"pw"}


def look_up(request: AuthRequest) -> AuthResult:
    """Be a backend with one user."""
    stored = PASSWORDS.get(request.user)
    if stored is None:
        return Rejected(Reason.NO_SUCH_USER, NAME)
    if not request.password.matches(stored):
        return Rejected(Reason.WRONG_PASSWORD, NAME)
    return Accepted(request.user, NAME)


def looking_up() -> Answer:
    return checking(look_up, NAME)


def dying() -> Answer:
    """Return what ends its process when it is asked."""
    die = obedient()
    return lambda _question, descriptors: die(DIE, descriptors)


class TestContract(VerifierContract):
    @pytest.fixture
    async def verifier(self) -> AsyncIterator[InWorkers]:
        async with backend(serving(looking_up)) as made:
            yield made

    @pytest.fixture
    async def broken(self) -> AsyncIterator[InWorkers]:
        async with backend(serving(dying)) as made:
            yield made
