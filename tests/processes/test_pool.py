"""Who is asked what, with real worker processes: growth, hangs, crashes, an end."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise

import pytest

from pysaslauthd.workers import pool as module
from pysaslauthd.workers import questions
from pysaslauthd.workers.child import HELLO, STAYS, Term, serve
from pysaslauthd.workers.frames import LARGEST_QUESTION
from pysaslauthd.workers.pool import Pool, Size
from pysaslauthd.workers.questions import TAG_BYTES, WorkerLost
from tests.helpers.instance import is_alive
from tests.helpers.processes import DEADLINE, wait_for
from tests.helpers.workers import (
    COUNT,
    DIE,
    FOR_EVER,
    HANG,
    HELD,
    PID,
    Children,
    Gate,
    count_descriptors,
    eventually,
    obedient,
    serving,
    serving_after,
)

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ONE = Size(1, 1, 1)
PATIENCE = 15.0
KIND = "imap"
SPEAK = b"speak"

Making = Callable[..., Pool]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what hangs, and try again, so often that nobody waits for it here."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.002)


@pytest.fixture
async def pool_of() -> AsyncIterator[Making]:
    """Return what makes an open pool of workers; all end with the test."""
    with ExitStack() as ending:

        def make(source: Children, size: Size = ONE) -> Pool:
            pool = Pool("test", source, size)
            ending.callback(source.end)
            ending.callback(pool.close)
            pool.open()
            return pool

        yield make


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def put(
    pool: Pool, question: bytes, patience: float = PATIENCE, kind: str = KIND
) -> asyncio.Future[bytes]:
    """Ask a question and do not wait."""
    return seen(pool.ask(kind, question, patience))


def hold(
    pool: Pool, gate: Gate, patience: float = PATIENCE, kind: str = KIND
) -> asyncio.Future[bytes]:
    """Ask what is answered when *gate* opens, with the worker's process id."""
    return seen(pool.ask(kind, HELD, patience, gate.descriptors))


def seen(answer: asyncio.Future[bytes]) -> asyncio.Future[bytes]:
    """Return *answer*, of which asyncio will not complain, in a later test, if nobody waits."""
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


async def ask(pool: Pool, question: bytes, patience: float = PATIENCE) -> bytes:
    """Return the answer to a question."""
    (answer,) = await answers([put(pool, question, patience)])
    return answer


async def answers(asked: list[asyncio.Future[bytes]]) -> list[bytes]:
    """Return the answers to come; WorkerLost where there is none."""
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*asked)


def word(pid: int) -> bytes:
    return b"%d" % pid


def stop(pid: int) -> None:
    """Stop a child of ours; return when it reads no more."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)


def kill(pid: int) -> None:
    """Kill a child of ours; return when its descriptors are closed."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid), f"end of {pid}")


async def warm(pool: Pool, source: Children, count: int = 1) -> None:
    """Return when *count* workers have started, and have nothing to do."""
    await eventually(lambda: len(source.pids) >= count, f"{count} workers")
    gate = Gate()
    asked = [hold(pool, gate) for _ in range(count)]
    await eventually(lambda: gate.arrived() == count, "all of them")
    gate.open()
    await answers(asked)
    gate.close()


class TestAsking:
    async def test_the_answer_is_a_workers(self, pool_of: Making) -> None:
        source = serving()

        answer = await ask(pool_of(source), PID)

        assert answer == word(source.pids[0])

    async def test_who_waits_is_answered_in_turn(self, pool_of: Making, gate: Gate) -> None:
        pool = pool_of(serving())

        held = hold(pool, gate)
        waiting = [put(pool, COUNT) for _ in range(5)]
        gate.open()

        assert (await answers([held, *waiting]))[1:] == [b"2", b"3", b"4", b"5", b"6"]

    async def test_a_question_that_is_too_long_costs_no_worker(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        with pytest.raises(WorkerLost, match="Message too long"):
            await ask(pool, b"x" * 100 * LARGEST_QUESTION)

        assert await ask(pool, PID) == word(source.pids[0])
        assert source.killed == []

    async def test_a_descriptor_that_is_closed_costs_no_worker(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        with pytest.raises(WorkerLost, match="Bad file descriptor"):
            await answers([pool.ask(KIND, HELD, PATIENCE, [-1])])

        assert await ask(pool, PID) == word(source.pids[0])

    async def test_a_question_that_nobody_waits_for_any_more_is_not_asked(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        held, gone = hold(pool, gate), put(pool, DIE)

        gone.cancel()
        gate.open()
        await answers([held])

        assert await ask(pool, COUNT) == b"3"
        assert len(source.pids) == 1

    async def test_questions_that_nobody_waits_for_leave_room_for_others(
        self, pool_of: Making
    ) -> None:
        pool = pool_of(serving())
        gone = [put(pool, DIE) for _ in range(3)]
        for one in gone:
            one.cancel()

        assert await ask(pool, COUNT) == b"1"

    async def test_the_queue_is_bounded(
        self, pool_of: Making, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(questions, "LONGEST_QUEUE", 3)
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        asked = [hold(pool, gate), *(put(pool, PID) for _ in range(3))]

        with pytest.raises(WorkerLost, match="too many questions are waiting already: see -n"):
            await ask(pool, PID)
        gate.open()

        assert await answers(asked) == [word(source.pids[0])] * 4

    async def test_an_answer_that_comes_after_its_asker_has_gone_disturbs_nobody(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        late = hold(pool, gate)
        next_one = put(pool, b"hello")

        late.cancel()
        gate.open()

        assert await answers([next_one]) == [b"hello"]
        assert await ask(pool, PID) == word(source.pids[0])


class TestHowMany:
    async def test_the_warm_ones_start_before_the_first_question(self, pool_of: Making) -> None:
        source = serving()

        pool_of(source, Size(3, 5, 5))

        await eventually(lambda: len(source.pids) == 3, "3 workers")

    async def test_where_none_is_warm_the_first_question_starts_one(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(0, 1, 1))
        asked_before = list(source.asked_at)

        await ask(pool, PID)

        assert (len(asked_before), len(source.asked_at)) == (0, 1)

    async def test_more_start_while_questions_wait(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source, Size(1, 4, 4))

        held = [hold(pool, gate) for _ in range(4)]
        await eventually(lambda: gate.arrived() == 4, "4 workers")
        gate.open()

        assert set(await answers(held)) == {word(pid) for pid in source.pids}

    async def test_a_load_starts_no_more_than_the_most(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "GROW_AFTER", 0.0001)
        source = serving()
        pool = pool_of(source, Size(1, 3, 3))

        await answers([put(pool, PID) for _ in range(500)])

        assert len(source.asked_at) == 3

    async def test_questions_that_do_not_wait_start_none(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(1, 4, 4))
        await warm(pool, source)

        for _ in range(50):
            await ask(pool, PID)

        assert len(source.asked_at) == 1

    async def test_those_that_nobody_needs_leave_but_for_the_warm_ones(
        self, pool_of: Making, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SHRINK_EVERY", 0.05)
        source = serving()
        pool = pool_of(source, Size(1, 3, 3))
        held = [hold(pool, gate) for _ in range(3)]
        await eventually(lambda: gate.arrived() == 3, "3 workers")

        gate.open()
        await answers(held)
        await eventually(lambda: sum(map(is_alive, source.pids)) == 1, "the end of two workers")

        assert is_alive(int(await ask(pool, PID)))
        assert source.killed == []

    async def test_those_that_are_needed_stay(
        self, pool_of: Making, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SHRINK_EVERY", 0.001)
        source = serving()
        pool = pool_of(source, Size(1, 3, 3))

        held = [hold(pool, gate) for _ in range(3)]
        await eventually(lambda: gate.arrived() == 3, "3 workers")
        await ask(pool_of(serving()), PID)  # the timers have had their time
        gate.open()

        assert len(set(await answers(held))) == 3


class TestHangs:
    async def test_one_that_hangs_is_told_killed_and_replaced(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)

        with pytest.raises(WorkerLost, match=r"^no answer in \d+\.\d s$"):
            await ask(pool, HANG, patience=0.1)

        assert source.killed == [1]
        assert await ask(pool, PID) == word(source.pids[1])

    async def test_others_are_answered_meanwhile(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(2, 2, 2))
        await warm(pool, source, 2)

        hung = put(pool, HANG)
        others = await answers([put(pool, b"hello") for _ in range(50)])

        assert others == [b"hello"] * 50
        assert not hung.done()
        hung.cancel()

    async def test_who_waits_behind_it_is_answered_by_the_next(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)

        hung, waiting = put(pool, HANG, 0.1), put(pool, PID)

        assert await answers([waiting]) == [word(source.pids[1])]
        assert isinstance(hung.exception(), WorkerLost)

    async def test_one_is_killed_though_its_asker_has_gone(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        hung = put(pool, HANG, 0.1)

        hung.cancel()
        await eventually(lambda: bool(source.killed), "the kill")

        assert await ask(pool, PID) == word(source.pids[1])

    async def test_all_may_hang_at_once(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(3, 3, 3))
        await warm(pool, source, 3)
        hung = [put(pool, HANG, 0.1) for _ in range(3)]
        waiting = [put(pool, b"hello") for _ in range(10)]

        assert await answers(waiting) == [b"hello"] * 10
        assert [type(one.exception()) for one in hung] == [WorkerLost] * 3

    async def test_each_question_has_its_own_patience(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source, Size(2, 2, 2))
        await warm(pool, source, 2)
        patient = hold(pool, gate)

        with pytest.raises(WorkerLost):
            await ask(pool, HANG, patience=0.05)
        gate.open()

        assert int((await answers([patient]))[0]) in source.pids[:2]


class TestCrashes:
    async def test_only_the_question_it_was_at_is_lost(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)

        lost = put(pool, DIE)
        others = await answers([put(pool, b"hello") for _ in range(20)])

        assert others == [b"hello"] * 20
        with pytest.raises(WorkerLost, match="its worker process died"):
            await lost

    async def test_every_question_may_be_a_workers_last(self, pool_of: Making) -> None:
        pool = pool_of(serving(), Size(2, 4, 4))

        lost = [put(pool, DIE) for _ in range(20)]
        async with asyncio.timeout(DEADLINE):
            ends = await asyncio.gather(*lost, return_exceptions=True)

        assert {type(one) for one in ends} == {WorkerLost}
        assert await ask(pool, b"hello") == b"hello"

    async def test_one_that_dies_unread_loses_nothing(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        stop(source.pids[0])

        asked = put(pool, PID)
        kill(source.pids[0])

        assert await answers([asked]) == [word(source.pids[1])]

    async def test_one_that_has_died_idle_loses_nothing(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        kill(source.pids[0])

        asked = put(pool, PID)

        assert await answers([asked]) == [word(source.pids[1])]

    async def test_all_may_die_idle(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(3, 3, 3))
        await warm(pool, source, 3)
        for pid in source.pids:
            kill(pid)

        asked = [put(pool, b"hello") for _ in range(10)]

        assert await answers(asked) == [b"hello"] * 10

    async def test_one_that_dies_idle_is_replaced_before_the_next_question(
        self, pool_of: Making
    ) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        kill(source.pids[0])

        await eventually(lambda: len(source.pids) == 2, "another worker")


def stay(end: socket.socket) -> None:
    """Read on until we are killed, or our channel is closed: another question ends nobody."""
    with suppress(ConnectionResetError):
        while end.recv(100):
            pass


def speak_before_it_is_ready(end: socket.socket) -> None:
    end.send(b"garbage")
    stay(end)


def say_twice_that_it_is_ready(end: socket.socket) -> None:
    end.send(HELLO)
    end.send(HELLO)
    stay(end)


def speak_unasked(end: socket.socket) -> None:
    end.send(HELLO)
    question = end.recv(100)
    end.send(question[:TAG_BYTES] + STAYS + b"first")
    end.send(question[:TAG_BYTES] + STAYS + b"first")
    stay(end)


def speak_before_the_answer(end: socket.socket) -> None:
    end.send(HELLO)
    question = end.recv(100)
    end.send(STAYS + b"garbage")
    end.send(question[:TAG_BYTES] + STAYS + b"yes")
    stay(end)


def answer_without_a_tag(end: socket.socket) -> None:
    end.send(HELLO)
    end.recv(100)
    end.send(STAYS + b"yes")
    stay(end)


def answer_that_it_is_ready(end: socket.socket) -> None:
    end.send(HELLO)
    end.recv(100)
    end.send(HELLO)
    stay(end)


def answer_twice(end: socket.socket) -> None:
    """Give the answer to the first question again, in answer to the second."""
    end.send(HELLO)
    first = end.recv(100)
    end.send(first[:TAG_BYTES] + STAYS + b"yes")
    second = end.recv(100)
    end.send(first[:TAG_BYTES] + STAYS + b"yes")
    end.send(second[:TAG_BYTES] + STAYS + b"no")
    stay(end)


def speak_when_told(end: socket.socket) -> None:
    answer = obedient()

    def speak(question: bytes, descriptors: list[int]) -> bytes:
        if question == SPEAK:
            end.send(b"garbage")
        return answer(question, descriptors)

    serve(end, speak, FOR_EVER)


class TestStrayPackets:
    @pytest.mark.parametrize(
        "stray", [speak_before_the_answer, answer_without_a_tag, answer_that_it_is_ready]
    )
    async def test_what_has_not_the_questions_tag_is_no_answer(
        self, pool_of: Making, stray: Callable[[socket.socket], None]
    ) -> None:
        source = serving_after(stray)
        pool = pool_of(source)

        with pytest.raises(WorkerLost, match="its worker process spoke out of turn"):
            await ask(pool, b"hello")

        assert source.killed == [1]

    async def test_the_answer_to_the_question_before_is_no_answer(self, pool_of: Making) -> None:
        source = serving_after(answer_twice)
        pool = pool_of(source)

        first = await ask(pool, b"right password")
        with pytest.raises(WorkerLost, match="its worker process spoke out of turn"):
            await ask(pool, b"wrong password")

        assert first == b"yes"
        assert source.killed == [1]

    @pytest.mark.parametrize(
        "stray", [speak_before_it_is_ready, say_twice_that_it_is_ready, speak_before_the_answer]
    )
    async def test_the_next_question_is_anothers(
        self, pool_of: Making, stray: Callable[[socket.socket], None]
    ) -> None:
        source = serving_after(stray)
        pool = pool_of(source)

        lost = put(pool, b"hello")
        await eventually(lambda: source.killed == [1], "its end")

        assert await ask(pool, PID) == word(source.pids[1])
        assert lost.done()

    async def test_other_workers_are_not_disturbed(self, pool_of: Making, gate: Gate) -> None:
        source = serving_after(speak_unasked)
        pool = pool_of(source, Size(2, 2, 2))
        await eventually(lambda: len(source.pids) == 2, "2 workers")
        # The other is held, lest it answer both before the first is ready.
        asked = [hold(pool, gate) for _ in range(2)]
        await eventually(lambda: source.killed == [1], "its end")
        gate.open()
        said = await asyncio.gather(*asked, return_exceptions=True)

        others = [one for one in said if one != b"first"]
        # The first may have been given both, and the second has been lost with it.
        assert len(others) == 1
        assert isinstance(others[0], WorkerLost) or others == [word(source.pids[1])]
        assert await ask(pool, PID) in map(word, source.pids[1:])
        assert source.killed == [1]

    @pytest.mark.usefixtures("seen_logs")
    async def test_one_that_speaks_unasked_is_killed_and_its_word_is_nobodys(
        self, pool_of: Making, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = serving_after(speak_unasked)
        pool = pool_of(source)

        first = await ask(pool, b"hello")
        await eventually(lambda: source.killed == [1], "its end")

        assert first == b"first"
        assert await ask(pool, b"second") == b"second"
        assert caplog.messages == ["worker 1 of test speaks out of turn: killing it"]

    async def test_the_next_of_its_kind_has_its_turn_at_once(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = Children(speak_when_told)
        pool = pool_of(source, Size(1, 2, 1))
        await have_two_workers(pool, gate)

        lost, waiting = put(pool, SPEAK), put(pool, PID)

        assert int((await answers([waiting]))[0]) in source.pids[:2]
        assert isinstance(lost.exception(), WorkerLost)


async def have_two_workers(pool: Pool, gate: Gate) -> None:
    """Return when there are two, of one that is kept warm, and both have nothing to do."""
    held = [hold(pool, gate, kind=kind) for kind in ("one", "two")]
    await eventually(lambda: gate.arrived() == 2, "2 workers")
    gate.open()
    await answers(held)


class TestKinds:
    async def test_one_that_hangs_leaves_workers_to_others(self, pool_of: Making) -> None:
        pool = pool_of(serving(), Size(3, 3, 2))
        hung = [put(pool, HANG, kind="hung") for _ in range(5)]

        others = await answers([put(pool, b"hello", kind="other") for _ in range(20)])

        assert others == [b"hello"] * 20
        assert not any(one.done() for one in hung)

    async def test_one_that_has_its_share_starts_no_more_workers(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = serving()
        pool = pool_of(source, Size(1, 4, 2))
        await have_two_workers(pool, gate)

        hung = [put(pool, HANG, kind="hung") for _ in range(5)]
        await pass_time(pool_of)

        assert len(source.asked_at) == 2
        assert not any(one.done() for one in hung)

    async def test_others_start_the_rest(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source, Size(1, 3, 2))
        await have_two_workers(pool, gate)
        hung = [put(pool, HANG, kind="hung") for _ in range(5)]

        (answer,) = await answers([put(pool, PID, kind="other")])

        assert answer == word(source.pids[2])
        assert not any(one.done() for one in hung)

    async def test_they_take_turns(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        held = hold(pool, gate)
        many = [put(pool, COUNT, kind="many") for _ in range(10)]
        few = put(pool, COUNT, kind="few")

        gate.open()

        assert (await answers([held, *many, few]))[-1] == b"4"

    async def test_the_end_of_one_that_hung_gives_the_next_its_turn_at_once(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = serving()
        pool = pool_of(source, Size(1, 2, 1))
        await have_two_workers(pool, gate)

        hung, waiting = put(pool, HANG, 0.1), put(pool, PID)

        assert int((await answers([waiting]))[0]) in source.pids[:2]
        assert isinstance(hung.exception(), WorkerLost)


async def pass_time(pool_of: Making) -> None:
    """Return when the timers have had their time: when another pool's worker has hung."""
    with pytest.raises(WorkerLost, match="no answer"):
        await ask(pool_of(serving()), HANG, patience=0.2)


class TestForlornWorkers:
    @pytest.fixture(autouse=True)
    def _hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FORLORN_PATIENCE", 0.05)

    @pytest.mark.parametrize("kind", [KIND, "another"])
    async def test_one_is_killed_while_others_wait(self, pool_of: Making, kind: str) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        put(pool, HANG).cancel()

        answer = put(pool, PID, kind=kind)

        assert await answers([answer]) == [word(source.pids[1])]
        assert source.killed == [1]

    async def test_one_stays_while_nobody_waits(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        put(pool, HANG).cancel()
        await pass_time(pool_of)

        assert source.killed == []

    async def test_one_stays_while_those_who_waited_have_gone(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        put(pool, HANG).cancel()
        put(pool, PID).cancel()
        await pass_time(pool_of)

        assert source.killed == []

    async def test_one_at_what_somebody_waits_for_stays(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        asked = [hold(pool, gate), put(pool, PID)]

        await pass_time(pool_of)
        gate.open()

        assert await answers(asked) == [word(source.pids[0])] * 2

    async def test_one_has_time_to_answer(
        self, pool_of: Making, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FORLORN_PATIENCE", PATIENCE)
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        hold(pool, gate).cancel()
        asked = put(pool, PID)

        await pass_time(pool_of)
        gate.open()

        assert await answers([asked]) == [word(source.pids[0])]


@pytest.mark.usefixtures("seen_logs")
class TestComplaints:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LONG_WAIT", 0.001)
        monkeypatch.setattr(module, "LOOK_EVERY", 0.01)

    @pytest.mark.parametrize("kind", ["test", "other"])
    async def test_that_questions_wait_for_long_is_said(
        self, pool_of: Making, gate: Gate, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        pool, clock = pool_of(serving()), asyncio.get_running_loop().time

        began = clock()
        asked = [hold(pool, gate), *(put(pool, PID, kind=kind) for _ in range(2))]
        await eventually(lambda: bool(caplog.messages), "the complaint")
        elapsed = clock() - began
        gate.open()
        await answers(asked)

        (line,) = caplog.messages
        said, _, waited = line.partition(", one for ")
        assert said == "1 workers of test are busy, and 2 questions wait"
        assert float(waited.split()[0]) <= elapsed + 0.1  # it is rounded

    async def test_it_is_not_said_again_within_a_minute(
        self, pool_of: Making, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool = pool_of(serving())
        asked = [hold(pool, gate), put(pool, PID, kind="other")]

        await eventually(lambda: bool(caplog.messages), "the complaint")
        caplog.clear()
        await pass_time(pool_of)
        gate.open()
        await answers(asked)

        assert not [line for line in caplog.messages if "busy" in line]

    async def test_it_is_said_again_after_a_minute(
        self,
        pool_of: Making,
        gate: Gate,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "SECONDS_BETWEEN_COMPLAINTS", 0.05)
        pool = pool_of(serving())

        asked = [hold(pool, gate), put(pool, PID, kind="other")]

        await eventually(lambda: len(caplog.messages) >= 2, "two complaints")
        gate.open()
        await answers(asked)

    async def test_one_question_starts_one_worker_however_long_that_takes(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "GROW_AFTER", 0.001)
        source = serving_after(stop_before_it_is_ready)
        pool = pool_of(source, Size(0, 4, 4))
        asked = put(pool, b"hello")

        await eventually(lambda: bool(source.pids), "a worker")
        await pass_time(pool_of)
        started = len(source.asked_at)
        os.kill(source.pids[0], signal.SIGCONT)

        assert await answers([asked]) == [b"hello"]
        assert started == 1

    async def test_workers_that_are_not_ready_yet_are_not_busy(
        self, pool_of: Making, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = serving_after(stop_before_it_is_ready)
        pool = pool_of(source)
        asked = put(pool, b"hello")

        await eventually(lambda: bool(source.pids), "a worker")
        await pass_time(pool_of)
        os.kill(source.pids[0], signal.SIGCONT)

        assert await answers([asked]) == [b"hello"]
        assert not [line for line in caplog.messages if "busy" in line]


def stop_before_it_is_ready(end: socket.socket) -> None:
    """Be a worker that gets ready when it is told to continue."""
    os.kill(os.getpid(), signal.SIGSTOP)
    serve(end, obedient(), FOR_EVER)


class TestTerms:
    async def test_no_answer_is_lost_when_workers_leave_under_load(self, pool_of: Making) -> None:
        source = serving(term=Term(5, 0))
        pool = pool_of(source, Size(2, 4, 4))
        asked = [b"%d" % number for number in range(300)]

        found = await answers([put(pool, question) for question in asked])

        assert found == asked
        assert len(source.pids) >= 300 / 5
        assert source.killed == []

    async def test_who_has_left_is_replaced_before_the_next_question(self, pool_of: Making) -> None:
        source = serving(term=Term(1, 0))
        pool = pool_of(source)

        await ask(pool, PID)

        await eventually(lambda: len(source.pids) == 2, "another worker")
        await eventually(lambda: not is_alive(source.pids[0]), "the end of the first")


class TestStartsThatFail:
    async def test_a_question_waits_for_the_start_that_does_not(self, pool_of: Making) -> None:
        source = serving(refusals=4)
        pool = pool_of(source)

        assert await ask(pool, b"hello") == b"hello"
        assert len(source.asked_at) == 5

    @pytest.mark.parametrize(
        "failing",
        [
            pytest.param(lambda: serving(refusals=1000), id="refused"),
            pytest.param(lambda: Children(leave), id="dead at once"),
            pytest.param(lambda: Children(speak_before_it_is_ready), id="speaks too early"),
        ],
    )
    async def test_the_pauses_between_them_grow(
        self,
        pool_of: Making,
        monkeypatch: pytest.MonkeyPatch,
        failing: Callable[[], Children],
    ) -> None:
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.04)
        source = failing()

        pool_of(source)
        await eventually(lambda: len(source.asked_at) >= 7, "7 starts")

        pauses = [later - sooner for sooner, later in pairwise(source.asked_at)]
        expected = [0.004, 0.008, 0.016, 0.032, 0.04, 0.04]
        assert all(pause >= least for pause, least in zip(pauses, expected, strict=False))

    async def test_all_the_warm_ones_come_though_nobody_asks(self, pool_of: Making) -> None:
        source = serving(refusals=3)

        pool_of(source, Size(3, 3, 3))

        await eventually(lambda: len(source.pids) == 3, "3 workers")

    async def test_when_they_are_over_no_more_come_than_are_kept_warm(
        self, pool_of: Making
    ) -> None:
        source = serving(refusals=3)

        pool_of(source, Size(1, 3, 3))
        await eventually(lambda: len(source.pids) == 1, "a worker")
        await pass_time(pool_of)

        assert len(source.pids) == 1

    async def test_the_death_of_one_that_was_ready_is_none(
        self, pool_of: Making, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FIRST_PAUSE", 3600.0)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 3600.0)
        source = serving()
        pool = pool_of(source, Size(1, 3, 3))
        await warm(pool, source)
        kill(source.pids[0])
        await eventually(lambda: len(source.pids) == 2, "another worker")

        held = [hold(pool, gate) for _ in range(3)]
        await eventually(lambda: gate.arrived() == 3, "3 more workers")
        gate.open()

        assert set(await answers(held)) == {word(pid) for pid in source.pids[1:]}

    async def test_after_one_answer_all_is_well_again(self, pool_of: Making, gate: Gate) -> None:
        source = serving(refusals=3)
        pool = pool_of(source, Size(1, 3, 3))
        await ask(pool, PID)

        held = [hold(pool, gate) for _ in range(3)]
        await eventually(lambda: gate.arrived() == 3, "3 workers")
        gate.open()

        assert len(set(await answers(held))) == 3

    async def test_questions_do_not_make_them_more_frequent(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "GROW_AFTER", 0.0001)
        monkeypatch.setattr(module, "FIRST_PAUSE", 10.0)
        source = serving(refusals=1000)
        pool = pool_of(source, Size(1, 8, 8))

        asked = [put(pool, PID) for _ in range(100)]
        await ask(pool_of(serving()), PID)  # the timers have had their time

        assert len(source.asked_at) == 1
        assert not any(one.done() for one in asked)


def leave(_end: socket.socket) -> None:
    """Be a worker that ends as soon as it has started."""


def keep_silent(end: socket.socket) -> None:
    """Be a worker that never gets ready."""
    end.recv(1)


class TestGettingReady:
    async def test_nobody_is_asked_before_it_is_ready(self, pool_of: Making) -> None:
        source = serving_after(stop_before_it_is_ready)
        pool = pool_of(source, Size(2, 2, 2))

        answer = await ask(pool, PID)

        assert answer == word(source.pids[1])
        os.kill(source.pids[0], signal.SIGCONT)

    async def test_one_that_never_is_gets_killed_and_replaced(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "START_PATIENCE", 0.3)
        source = serving_after(keep_silent)
        pool = pool_of(source)

        answer = await ask(pool, PID)

        assert source.killed[0] == 1
        assert int(answer) in source.pids[1:]

    async def test_one_that_never_is_makes_the_next_wait(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FIRST_PAUSE", 3600.0)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 3600.0)
        source = Children(keep_silent)
        with monkeypatch.context() as hasty:
            hasty.setattr(module, "START_PATIENCE", 0.01)
            pool_of(source)
            await eventually(lambda: source.killed == [1], "its end")

        await pass_time(pool_of)

        assert len(source.asked_at) == 1


class TestRetiring:
    async def test_those_that_have_nothing_to_do_leave_at_once(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source, Size(2, 2, 2))
        await warm(pool, source, 2)

        pool.retire()

        await eventually(lambda: not any(map(is_alive, source.pids)), "their end")
        assert source.killed == []
        assert len(source.asked_at) == 2

    async def test_one_that_does_not_leave_is_killed(
        self, pool_of: Making, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LEAVE_GRACE", 0.01)
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        os.kill(source.pids[0], signal.SIGSTOP)

        pool.retire()

        await eventually(lambda: source.killed == [1], "its end")

    async def test_what_was_asked_is_answered(self, pool_of: Making, gate: Gate) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        asked = [hold(pool, gate), *(put(pool, PID) for _ in range(5))]

        pool.retire()
        gate.open()

        assert await answers(asked) == [word(source.pids[0])] * 6

    async def test_one_that_is_busy_leaves_with_its_answer(
        self, pool_of: Making, gate: Gate
    ) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        held = hold(pool, gate)

        pool.retire()
        gate.open()
        await answers([held])

        await eventually(lambda: not is_alive(source.pids[0]), "its end")
        assert len(source.asked_at) == 1

    async def test_one_that_gets_ready_later_leaves(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)

        pool.retire()
        await eventually(lambda: len(source.pids) == 1, "a worker")

        await eventually(lambda: not is_alive(source.pids[0]), "its end")
        assert source.killed == []

    async def test_who_asks_later_is_answered(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)

        pool.retire()

        assert await ask(pool, PID) == word(source.pids[1])

    async def test_one_that_hangs_is_told_and_not_replaced(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        hung = put(pool, HANG, 0.1)

        pool.retire()
        await eventually(hung.done, "the kill")

        assert isinstance(hung.exception(), WorkerLost)
        assert len(source.asked_at) == 1


class TestClosing:
    async def test_workers_that_have_nothing_to_do_leave_by_themselves(
        self, pool_of: Making
    ) -> None:
        source = serving()
        pool = pool_of(source, Size(2, 2, 2))
        await warm(pool, source, 2)

        pool.close()

        await eventually(lambda: not any(map(is_alive, source.pids)), "their end")
        assert source.killed == []

    async def test_who_waits_is_told(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        asked = [put(pool, HANG), put(pool, PID)]

        pool.close()

        for one in asked:
            with pytest.raises(WorkerLost, match="the daemon is leaving"):
                await one

    async def test_one_that_is_busy_is_killed(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)
        await warm(pool, source)
        asked = put(pool, HANG)

        pool.close()

        assert source.killed == [1]
        assert isinstance(asked.exception(), WorkerLost)

    async def test_who_asks_later_is_told(self, pool_of: Making) -> None:
        pool = pool_of(serving())
        pool.close()

        with pytest.raises(WorkerLost, match="the daemon is leaving"):
            await ask(pool, PID)

    async def test_a_worker_that_comes_later_is_let_go(self, pool_of: Making) -> None:
        source = serving()
        pool = pool_of(source)

        pool.close()
        await eventually(lambda: len(source.pids) == 1, "a worker")

        await eventually(lambda: not is_alive(source.pids[0]), "its end")

    async def test_a_start_that_fails_later_is_not_repeated(self, pool_of: Making) -> None:
        source = serving(refusals=1000)
        pool = pool_of(source)

        pool.close()
        await ask(pool_of(serving()), PID)  # the timers have had their time

        assert len(source.asked_at) == 1

    async def test_it_leaves_no_descriptor_open(self, pool_of: Making) -> None:
        before = count_descriptors()
        source = serving()
        pool = pool_of(source, Size(2, 2, 2))
        await warm(pool, source, 2)
        kill(source.pids[0])

        pool.close()

        assert count_descriptors() == before
