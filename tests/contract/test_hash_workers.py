"""Stored passwords compared in real worker processes."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from pysaslauthd.errors import CannotCheck
from pysaslauthd.model import Deadlines, Secret
from pysaslauthd.passwords import schemes
from pysaslauthd.workers import pool
from pysaslauthd.workers.child import Answer
from pysaslauthd.workers.hashes import MOST_BYTES, MOST_VALUES, HashWorkers, checking_hashes
from pysaslauthd.workers.pool import Pool, Size
from pysaslauthd.workers.questions import WorkerLost
from tests.helpers.instance import is_alive
from tests.helpers.workers import DIE, PATIENT, Children, eventually, obedient, serving

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ONE = Size(1, 1, 1)
SECRET = Secret(b"secret")
SSHA = b"{SSHA}48EbGTABFvkICA15liCsBBcpm+TxjqGv"
PBKDF2 = b"{PBKDF2}10000$OGSnEpmp78Lh0MUnpi3yMQ$pLt6EJqnNUCKfeV4HLb8qFBPyc8"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_EVERY", 0.01)


def checking() -> Answer:
    return checking_hashes(schemes.any_fits, "ldap")


@asynccontextmanager
async def asking(
    answer: Callable[[], Answer] = checking, deadlines: Deadlines = PATIENT, size: Size = ONE
) -> AsyncIterator[tuple[HashWorkers, Children]]:
    """Have one worker, or *size*, that answers by *answer*, while the block runs."""
    source = serving(answer)
    made = HashWorkers("ldap", Pool("ldap", source, size), deadlines)
    made.open()
    try:
        yield made, source
    finally:
        made.close()
        source.end()


@pytest.fixture
async def workers() -> AsyncIterator[HashWorkers]:
    async with asking() as (made, _):
        yield made


async def fault_of(workers: HashWorkers, values: Sequence[bytes], password: Secret = SECRET) -> str:
    with pytest.raises(CannotCheck) as caught:
        await workers.fits(password, values, "imap", "joe")
    return str(caught.value)


@pytest.mark.parametrize(
    "values", [[SSHA], [PBKDF2], [b"secret"], [b"other", SSHA], [SSHA, b"{FOO}x"]], ids=repr
)
async def test_a_password_fits_one_of_its_values(workers: HashWorkers, values: list[bytes]) -> None:
    assert await workers.fits(SECRET, values, "imap", "joe")


@pytest.mark.parametrize(
    "values", [[], [b""], [b"other"], [b"other", b"others", b""], [SSHA.lower()]], ids=repr
)
async def test_it_fits_no_others(workers: HashWorkers, values: list[bytes]) -> None:
    assert not await workers.fits(SECRET, values, "imap", "joe")


async def test_what_cannot_be_checked_is_told(workers: HashWorkers) -> None:
    assert await fault_of(workers, [b"other", b"{FOO}x"]) == "{FOO}: not known here"


@pytest.mark.parametrize(
    "values",
    [[b"secret"] * MOST_VALUES, [b"x" * (MOST_BYTES - 6), b"secret"]],
    ids=["many", "long"],
)
async def test_values_may_be_many_or_long(workers: HashWorkers, values: list[bytes]) -> None:
    assert await workers.fits(SECRET, values, "imap", "joe")


@pytest.mark.parametrize(
    "values",
    [[b"secret"] * (MOST_VALUES + 1), [b"x" * MOST_BYTES, b"secret"]],
    ids=["many", "long"],
)
async def test_more_are_not_checked(workers: HashWorkers, values: list[bytes]) -> None:
    assert await fault_of(workers, values) == "more than 16 values, or 65535 bytes of them"


async def test_a_question_may_be_as_long_as_passwords_and_values_are(workers: HashWorkers) -> None:
    longest = b"p" * 65535

    assert await workers.fits(Secret(longest), [longest], "imap", "joe")


async def test_a_longer_password_is_not_checked(workers: HashWorkers) -> None:
    password = Secret(b"p" * 65536)

    assert await fault_of(workers, [SSHA], password) == "a field is longer than 65535 bytes"


async def test_one_worker_answers_many_questions(workers: HashWorkers) -> None:
    for number in range(20):
        assert await workers.fits(Secret(b"%d" % number), [b"%d" % number], "imap", "joe")
        assert not await workers.fits(SECRET, [b"%d" % number], "imap", "joe")


def faulty() -> Answer:
    """Be what fails at every question, and says so nowhere."""
    logging.disable()

    def fail(_password: bytes, _values: Sequence[bytes]) -> bool:
        raise ZeroDivisionError

    return checking_hashes(fail, "ldap")


async def test_a_fault_in_the_check_is_no_answer() -> None:
    async with asking(faulty) as (workers, _):
        assert await fault_of(workers, [SSHA]) == "internal error"


async def test_a_worker_that_says_something_else_is_lost_and_shows_no_password() -> None:
    async with asking(obedient) as (workers, _):  # says the question again
        with pytest.raises(WorkerLost) as caught:
            await workers.fits(SECRET, [SSHA], "imap", "joe")

    assert str(caught.value) == "a worker process gave a packet that is not 4 counted fields"


def dying() -> Answer:
    die = obedient()
    return lambda _question, descriptors: die(DIE, descriptors)


async def test_a_worker_that_dies_is_lost() -> None:
    async with asking(dying) as (workers, _):
        with pytest.raises(WorkerLost, match="died"):
            await workers.fits(SECRET, [SSHA], "imap", "joe")


def hanging() -> Answer:
    def hang(_question: bytes, _descriptors: list[int]) -> bytes:
        signal.pause()
        return b""

    return hang


async def test_a_worker_that_takes_too_long_is_lost() -> None:
    deadlines = Deadlines(PATIENT.default, {"imap": 0.1})
    async with asking(hanging, deadlines) as (workers, _):
        with pytest.raises(WorkerLost, match="no answer in"):
            await workers.fits(SECRET, [SSHA], "imap", "joe")


def hanging_for_eve() -> Answer:
    def fits(_password: bytes, values: Sequence[bytes]) -> bool:
        if b"of eve" in values:
            signal.pause()
        return True

    return checking_hashes(fits, "ldap")


async def test_who_has_a_hash_that_takes_for_ever_leaves_workers_for_others() -> None:
    async with asking(hanging_for_eve, size=Size(1, 2, 1)) as (workers, _):
        hung = (workers.fits(SECRET, [b"of eve"], "imap", "eve") for _ in range(4))
        tasks = list(map(asyncio.create_task, hung))

        assert await workers.fits(SECRET, [SSHA], "imap", "ann")
        workers.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_retired_workers_answer_and_go() -> None:
    async with asking() as (workers, source):
        workers.retire()

        assert await workers.fits(SECRET, [SSHA], "imap", "joe")
        await eventually(lambda: not any(map(is_alive, source.pids)), "their end")


async def test_closed_workers_give_no_answer() -> None:
    async with asking() as (workers, _):
        workers.close()

        with pytest.raises(WorkerLost, match="leaving"):
            await workers.fits(SECRET, [SSHA], "imap", "joe")
