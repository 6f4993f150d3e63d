"""The front's side of a blocking backend: deadlines, and what a worker may say."""

import logging
import re
import signal
import socket

import pytest

from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Deadlines,
    Origin,
    Secret,
    Unavailable,
)
from pysaslauthd.workers import pool
from pysaslauthd.workers.child import HELLO, STAYS, Answer, checking
from pysaslauthd.workers.frames import LARGEST_FIELD, LARGEST_QUESTION, encode_answer
from pysaslauthd.workers.questions import TAG_BYTES
from tests.contract.verifier import request_for
from tests.helpers.instance import is_alive
from tests.helpers.workers import PATIENT, Children, backend, eventually, obedient, serving

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

JOE = request_for("joe", b"sesame")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_EVERY", 0.01)


def hanging() -> Answer:
    def hang(_question: bytes, _descriptors: list[int]) -> bytes:
        signal.pause()
        return b""

    return hang


def accepting() -> Answer:
    return lambda _question, _descriptors: encode_answer(Accepted("joe", "table", "welcome"))


def faulty() -> Answer:
    """Be what fails at every question, and says so nowhere."""
    logging.disable()

    def fail(_request: object) -> AuthResult:
        raise ZeroDivisionError

    return checking(fail, "table")


async def test_a_verdict_is_the_workers() -> None:
    async with backend(serving(accepting)) as made:
        assert await made.verify(JOE) == Accepted("joe", "table", "welcome")


async def test_a_verdict_bears_the_name_that_was_asked_for() -> None:
    async with backend(serving(accepting)) as made:
        assert await made.verify(request_for("ann", b"pw")) == Accepted("ann", "table", "welcome")


def tells_of_a_hang(result: AuthResult) -> bool:
    """Say whether *result* is the outage; how late the kill was depends on the machine."""
    return (
        isinstance(result, Unavailable)
        and result.backend == "table"
        and re.fullmatch(r"no answer in \d+\.\d s", result.detail) is not None
    )


async def test_a_worker_that_hangs_is_an_outage_at_the_deadline() -> None:
    async with backend(serving(hanging), Deadlines(0.1, {})) as made:
        assert tells_of_a_hang(await made.verify(JOE))


async def test_a_service_may_have_a_deadline_of_its_own() -> None:
    deadlines = Deadlines(PATIENT.default, {"imap": 0.1})
    async with backend(serving(hanging), deadlines) as made:
        assert tells_of_a_hang(await made.verify(JOE))


async def test_a_fault_in_the_verifier_is_an_outage() -> None:
    async with backend(serving(faulty)) as made:
        assert await made.verify(JOE) == Unavailable("internal error", "table")


async def test_an_answer_that_is_none_is_an_outage_that_shows_no_password() -> None:
    async with backend(serving(obedient)) as made:  # says the question again
        result = await made.verify(JOE)

    assert isinstance(result, Unavailable)
    assert result.detail == "a worker process gave a packet that is not 4 counted fields"


@pytest.mark.parametrize(
    "request_",
    [
        JOE._replace(password=Secret(b"sesame" * LARGEST_FIELD)),
        JOE._replace(origin=Origin("x" * (LARGEST_FIELD + 1))),
        JOE._replace(user="sesame\udcff"),
    ],
    ids=["password", "service", "no-utf-8"],
)
async def test_a_request_that_has_no_form_for_a_worker_is_an_outage(
    request_: AuthRequest,
) -> None:
    async with backend(serving(accepting)) as made:
        result = await made.verify(request_)

        assert isinstance(result, Unavailable)
        assert "sesame" not in result.detail
        assert await made.verify(JOE) == Accepted("joe", "table", "welcome")


def say_yes_to_the_first(end: socket.socket) -> None:
    """Be a worker that gives its first answer, a yes, again when it is asked for the second."""
    end.send(HELLO)
    first = end.recv(LARGEST_QUESTION)
    yes = first[:TAG_BYTES] + STAYS + encode_answer(Accepted("joe", "table"))
    end.send(yes)
    end.recv(LARGEST_QUESTION)
    end.send(yes)
    end.recv(1)


async def test_an_answer_to_the_question_before_is_no_verdict() -> None:
    async with backend(Children(say_yes_to_the_first)) as made:
        right = await made.verify(JOE)
        wrong = await made.verify(request_for("joe", b"wrong"))

    assert isinstance(right, Accepted)
    assert wrong == Unavailable("its worker process spoke out of turn", "table")


async def test_a_retired_one_answers_and_keeps_no_worker() -> None:
    source = serving(accepting)
    async with backend(source) as made:
        made.retire()

        assert isinstance(await made.verify(JOE), Accepted)
        await eventually(lambda: not any(map(is_alive, source.pids)), "their end")


async def test_a_closed_one_is_an_outage() -> None:
    async with backend(serving(accepting)) as made:
        await made.close()

        assert await made.verify(JOE) == Unavailable("the daemon is leaving", "table")
