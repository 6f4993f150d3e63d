"""The life of a worker: whom it answers, when it leaves, what it survives."""

import logging
import mmap
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Reason,
    Rejected,
    Unavailable,
)
from pysaslauthd.workers.child import (
    HELLO,
    LEAVES,
    MOST_LEAKED,
    REQUESTS_BETWEEN_LOOKS,
    STAYS,
    Answer,
    Term,
    checking,
    serve,
)
from pysaslauthd.workers.frames import (
    LARGEST_FIELD,
    LARGEST_QUESTION,
    decode_answer,
    encode_question,
)
from pysaslauthd.workers.questions import TAG_BYTES
from tests.contract.verifier import request_for
from tests.helpers.workers import FOR_EVER, child

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

MEGABYTE = 1_000_000
TAG = b"12345678"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The front's end and the worker's; what is asked before the worker serves waits for it."""
    fronts, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with fronts, workers:
        yield fronts, workers


def echo(question: bytes, _descriptors: list[int]) -> bytes:
    return question


@contextmanager
def worker(answer: Answer, term: Term = FOR_EVER) -> Iterator[tuple[int, socket.socket]]:
    """Run a worker in a process of its own, which is ready: its id and our end of its channel."""
    with child(lambda end: serve(end, answer, term)) as (pid, end):
        assert end.recv(4096) == HELLO
        yield pid, end


def ask(end: socket.socket, question: bytes) -> bytes:
    """Return what a worker that runs says behind the question's tag."""
    end.send(TAG + question)
    reply = end.recv(4096)
    assert reply.startswith(TAG)
    return reply.removeprefix(TAG)


def said(end: socket.socket) -> list[bytes]:
    """Return what a worker that has left had said."""
    return list(iter(lambda: end.recv(4096), b""))


class TestServing:
    def test_it_says_that_it_is_ready_before_it_is_asked(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.shutdown(socket.SHUT_WR)

        serve(workers, echo, FOR_EVER)
        workers.close()

        assert said(fronts) == [HELLO]

    def test_it_answers_one_question_after_the_other(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.send(TAG + b"one")
        fronts.send(TAG + b"two")
        fronts.shutdown(socket.SHUT_WR)

        serve(workers, echo, FOR_EVER)
        workers.close()

        assert said(fronts)[1:] == [TAG + STAYS + b"one", TAG + STAYS + b"two"]

    def test_each_answer_bears_the_tag_of_its_question(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        tags = [b"87654321", b"\0" * TAG_BYTES, HELLO.ljust(TAG_BYTES)]
        for tag in tags:
            fronts.send(tag + b"question")
        fronts.shutdown(socket.SHUT_WR)

        serve(workers, echo, FOR_EVER)
        workers.close()

        assert [answer[:TAG_BYTES] for answer in said(fronts)[1:]] == tags

    def test_it_leaves_when_the_front_went_before_it_was_ready(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.close()

        serve(workers, echo, FOR_EVER)

    def test_it_leaves_when_the_front_went_while_it_was_asked(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.send(TAG + b"one")
        fronts.close()

        serve(workers, echo, FOR_EVER)

    def test_it_leaves_when_the_front_goes_without_hearing_the_answer(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.send(TAG + b"one")

        def go(question: bytes, _descriptors: list[int]) -> bytes:
            fronts.close()
            return question

        serve(workers, go, FOR_EVER)

    def test_the_largest_question_arrives_whole(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        fronts.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST_QUESTION)
        fronts.send(TAG + b"x" * LARGEST_QUESTION)
        fronts.shutdown(socket.SHUT_WR)

        serve(workers, lambda question, _: b"%d" % len(question), FOR_EVER)

        assert fronts.recv(4096) == HELLO
        assert fronts.recv(4096) == TAG + STAYS + b"%d" % LARGEST_QUESTION

    def test_descriptors_come_with_their_question(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        fronts, workers = ends
        reader, writer = os.pipe()
        socket.send_fds(fronts, [TAG + b"write"], [writer])
        os.close(writer)
        fronts.shutdown(socket.SHUT_WR)

        def write(_question: bytes, descriptors: list[int]) -> bytes:
            (descriptor,) = descriptors
            with os.fdopen(descriptor, "wb") as pipe:
                pipe.write(b"hello")
            return b""

        serve(workers, write, FOR_EVER)

        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"hello"

    def test_a_process_that_a_verifier_forked_and_let_return_answers_nobody(self) -> None:
        def fork(_question: bytes, _descriptors: list[int]) -> bytes:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return b"%d" % os.getpid()

        with worker(fork) as (pid, end):
            assert [ask(end, b"who") for _ in range(3)] == [STAYS + b"%d" % pid] * 3


class TestItsTerm:
    def test_the_last_answer_says_so(self, ends: tuple[socket.socket, socket.socket]) -> None:
        fronts, workers = ends
        for _ in range(3):
            fronts.send(TAG + b"x")

        serve(workers, echo, Term(requests=3, growth=0))
        workers.close()

        assert [one[TAG_BYTES:] for one in said(fronts)[1:]] == [
            STAYS + b"x",
            STAYS + b"x",
            LEAVES + b"x",
        ]

    def test_one_that_keeps_memory_leaves(self) -> None:
        kept = []

        def keep(question: bytes, _descriptors: list[int]) -> bytes:
            kept.append(mmap.mmap(-1, MEGABYTE))  # the heap may have room already
            kept[-1].write(b"x" * MEGABYTE)
            return question

        with worker(keep, Term(0, 4 * MEGABYTE)) as (_, end):
            words = [ask(end, b"x")[:1] for _ in range(2 * REQUESTS_BETWEEN_LOOKS)]

        assert words == [STAYS] * (2 * REQUESTS_BETWEEN_LOOKS - 1) + [LEAVES]

    @pytest.mark.parametrize("growth", [0, 400 * MEGABYTE], ids=["unbounded", "more allowed"])
    def test_one_that_keeps_less_than_it_may_stays(self, growth: int) -> None:
        kept = []

        def keep(question: bytes, _descriptors: list[int]) -> bytes:
            kept.append(b"x" * MEGABYTE)
            return question

        with worker(keep, Term(0, growth)) as (_, end):
            words = {ask(end, b"x")[:1] for _ in range(4 * REQUESTS_BETWEEN_LOOKS)}

        assert words == {STAYS}

    def test_what_it_needs_for_its_first_questions_is_no_growth(self) -> None:
        kept: list[bytes] = []

        def load(question: bytes, _descriptors: list[int]) -> bytes:
            if not kept:
                kept.append(b"x" * 16 * MEGABYTE)
            return question

        with worker(load, Term(0, 4 * MEGABYTE)) as (_, end):
            words = {ask(end, b"x")[:1] for _ in range(2 * REQUESTS_BETWEEN_LOOKS)}

        assert words == {STAYS}

    def test_one_that_keeps_descriptors_leaves(self) -> None:
        with leaking_worker(at_once=MOST_LEAKED // REQUESTS_BETWEEN_LOOKS + 1) as end:
            words = [ask(end, b"x")[:1] for _ in range(2 * REQUESTS_BETWEEN_LOOKS)]

        assert words == [STAYS] * (2 * REQUESTS_BETWEEN_LOOKS - 1) + [LEAVES]

    def test_one_that_keeps_a_few_descriptors_stays(self) -> None:
        with leaking_worker(at_once=1) as end:
            words = {ask(end, b"x")[:1] for _ in range(4 * REQUESTS_BETWEEN_LOOKS)}

        assert words == {STAYS}

    @pytest.mark.parametrize("looks", [1, 2])
    def test_one_that_has_no_descriptor_left_to_look_with_leaves(self, looks: int) -> None:
        questions = looks * REQUESTS_BETWEEN_LOOKS

        with leaking_worker(at_once=1000, after=questions - 2) as end:
            words = [ask(end, b"x")[:1] for _ in range(questions)]

        assert words == [STAYS] * (questions - 1) + [LEAVES]


@contextmanager
def leaking_worker(at_once: int, after: int = 0) -> Iterator[socket.socket]:
    """Run one that keeps some descriptors, of 400 in all, at each question after the first few."""

    def work(end: socket.socket) -> None:
        served = 0

        def leak(question: bytes, _descriptors: list[int]) -> bytes:
            nonlocal served
            served += 1
            with suppress(OSError):
                for _ in range(at_once if served > after else 0):
                    kept.enter_context(socket.socket())
            return question

        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
        with ExitStack() as kept:
            serve(end, leak, FOR_EVER)

    with child(work) as (_, end):
        assert end.recv(4096) == HELLO
        yield end


def verdict(check: Callable[[AuthRequest], AuthResult], question: bytes) -> AuthResult:
    return decode_answer(checking(check, "pam")(question, []), "joe", "pam")


def refuse(_request: AuthRequest) -> AuthResult:
    return Rejected(Reason.WRONG_PASSWORD, "pam", "PAM auth error", 2.0)


def fail(_request: AuthRequest) -> AuthResult:
    raise ZeroDivisionError


JOES = encode_question(request_for("joe", b"sesame"))


class TestChecking:
    def test_the_verifier_is_asked_and_its_verdict_told(self) -> None:
        asked = []

        def accept(request: AuthRequest) -> AuthResult:
            asked.append(request)
            return Accepted(request.user, "pam")

        assert verdict(accept, JOES) == Accepted("joe", "pam")
        assert asked == [request_for("joe", b"sesame")._replace(received=0.0)]

    def test_a_refusal_is_told_with_its_text_and_delay(self) -> None:
        assert verdict(refuse, JOES) == refuse(request_for("joe", b"sesame"))

    @pytest.mark.usefixtures("seen_logs")
    def test_a_fault_is_an_outage_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        assert verdict(fail, JOES) == Unavailable("internal error", "pam")
        assert caplog.messages == ["fault in backend pam"]
        assert "ZeroDivisionError" in caplog.text
        assert "sesame" not in caplog.text

    def test_a_worker_outlives_a_fault(self) -> None:
        def fail_for_eve(request: AuthRequest) -> AuthResult:
            return fail(request) if request.user == "eve" else Accepted(request.user, "pam")

        def work(end: socket.socket) -> None:
            logging.disable()
            serve(end, checking(fail_for_eve, "pam"), FOR_EVER)

        with child(work) as (_, end):
            assert end.recv(4096) == HELLO
            faulty = ask(end, encode_question(request_for("eve", b"pw")))
            next_one = ask(end, JOES)

        assert isinstance(decode_answer(faulty[1:], "eve", "pam"), Unavailable)
        assert isinstance(decode_answer(next_one[1:], "joe", "pam"), Accepted)

    @pytest.mark.parametrize("question", [b"?", JOES[:-1], JOES + b"x", b"\0" * LARGEST_FIELD])
    def test_a_malformed_question_is_an_outage(self, question: bytes) -> None:
        assert isinstance(verdict(refuse, question), Unavailable)

    def test_a_verifier_that_finds_something_malformed_is_no_exception(self) -> None:
        def malformed(_request: AuthRequest) -> AuthResult:
            raise MalformedMessage("a bad entry")

        assert isinstance(verdict(malformed, JOES), Unavailable)

    def test_an_answer_holds_no_password(self) -> None:
        for check in (refuse, fail):
            assert b"sesame" not in checking(check, "pam")(JOES, [])

    def test_a_descriptor_that_nobody_should_send_is_closed(self) -> None:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as pipe:
            checking(refuse, "pam")(JOES, [writer])

            assert pipe.read() == b""
