"""The supervisor's side of the workers: whom it starts, whom it kills, what it says of them."""

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest

from pysaslauthd import crew as crew_module
from pysaslauthd import privileges
from pysaslauthd.config.settings import Settings
from pysaslauthd.crew import GENERATIONS_KEPT, LEAVING, Crew
from pysaslauthd.worker import ADDRESSES, VERIFIER
from tests.helpers.instance import is_alive
from tests.helpers.processes import DEADLINE, wait_for
from tests.helpers.workers import count_descriptors

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.usefixtures("seen_logs"),
]

FIRST = 0  # generation
SETTINGS = Settings(mechanism="pam", processes=1, deadline=8.0)
NEWER = Settings(mechanism="pam", processes=3, deadline=5.0)
MOST = SETTINGS.processes + LEAVING

Run = Callable[[Settings, str, socket.socket], None]
Making = Callable[[Run], Crew]


def tell_processes(settings: Settings, _kind: str, end: socket.socket) -> None:
    """Say by which settings this worker is started."""
    end.send(b"%d" % settings.processes)


def tell_pid(_settings: Settings, kind: str, end: socket.socket) -> None:
    """Say who this worker is, and stay until the front's end is closed."""
    privileges.close_all_but([end.fileno()])
    end.send(f"{kind} {os.getpid()}".encode())
    end.recv(1)


@pytest.fixture
def crew_of() -> Iterator[Making]:
    """Return what makes a crew, whose workers end with the test."""
    with ExitStack() as ending:

        def make(run: Run) -> Crew:
            crew = Crew(SETTINGS, run)
            ending.callback(crew.end)
            return crew

        yield make


@pytest.fixture
def crew(crew_of: Making) -> Crew:
    return crew_of(tell_pid)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is a child of ours and no worker."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def start(crew: Crew, kind: str = VERIFIER) -> tuple[int, socket.socket]:
    """Start a worker; return its number and the front's end, with a deadline."""
    started = crew.start(kind, FIRST)
    assert started is not None
    started[1].settimeout(DEADLINE)
    return started


def start_one(crew: Crew) -> tuple[int, int]:
    """Start a worker; return its number and its process id."""
    number, end = start(crew)
    with end:
        return number, int(end.recv(100).split()[1])


def reap(crew: Crew, pid: int, how: str | None = None) -> None:
    """Tell *crew* that the worker *pid* has ended, as the supervisor does."""
    os.waitpid(pid, 0)
    crew.on_end(pid, how)


class TestStarting:
    @pytest.mark.parametrize("kind", [VERIFIER, ADDRESSES])
    def test_a_worker_is_a_child_with_a_channel(self, crew: Crew, kind: str) -> None:
        _, end = start(crew, kind)

        with end:
            said, pid = end.recv(100).decode().split()

        assert said == kind
        reap(crew, int(pid))

    def test_its_process_is_known(self, crew: Crew) -> None:
        _, pid = start_one(crew)

        before = crew.pids
        reap(crew, pid)

        assert (before, crew.pids) == ({pid}, set())

    def test_the_fronts_end_does_not_block(self, crew: Crew) -> None:
        started = crew.start(VERIFIER, FIRST)

        assert started is not None
        with started[1] as end:
            assert end.gettimeout() == 0

    def test_a_worker_sees_that_the_front_has_gone(self, crew: Crew) -> None:
        _, end = start(crew)
        pid = int(end.recv(100).split()[1])

        end.close()

        reap(crew, pid)

    def test_no_number_is_given_twice(self, crew: Crew) -> None:
        numbers = []
        for _ in range(3):
            number, pid = start_one(crew)
            reap(crew, pid)
            numbers.append(number)

        assert numbers == [1, 2, 3]

    @pytest.mark.parametrize("kind", ["", "front", "VERIFIER", "x" * 16])
    def test_an_unknown_kind_is_refused(self, crew: Crew, kind: str) -> None:
        assert crew.start(kind, FIRST) is None

    def test_their_number_is_bounded(self, crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
        ends = [start(crew)[1] for _ in range(MOST)]

        one_more = crew.start(VERIFIER, FIRST)

        assert one_more is None
        assert f"no worker of kind verifier started: {MOST} are running" in caplog.messages
        for end in ends:
            end.close()

    def test_one_kind_takes_no_room_from_the_other(self, crew: Crew) -> None:
        ends = [start(crew)[1] for _ in range(MOST)]

        ends.append(start(crew, ADDRESSES)[1])

        for end in ends:
            end.close()

    def test_where_one_has_ended_there_is_room_again(self, crew: Crew) -> None:
        for _ in range(MOST + 1):
            _, pid = start_one(crew)
            reap(crew, pid)

    def test_where_no_process_can_be_made_there_is_none(
        self, crew: Crew, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> NoReturn:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        before = count_descriptors()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fork", fail)
            started = crew.start(VERIFIER, FIRST)

        assert started is None
        assert caplog.messages == ["cannot start a worker: Resource temporarily unavailable"]
        assert count_descriptors() == before

    def test_where_no_socket_can_be_made_there_is_none(
        self, crew: Crew, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_arguments: object) -> NoReturn:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(socket, "socketpair", fail)
            started = crew.start(VERIFIER, FIRST)

        assert started is None
        assert caplog.messages == ["cannot start a worker: Too many open files"]

    def test_no_descriptor_is_left_behind(self, crew: Crew) -> None:
        before = count_descriptors()

        for _ in range(5):
            number, pid = start_one(crew)
            crew.kill(number)
            reap(crew, pid)

        assert count_descriptors() == before


class TestGenerations:
    @pytest.fixture
    def crew(self, crew_of: Making) -> Crew:
        crew = crew_of(tell_processes)
        crew.follow(NEWER, 1)
        return crew

    @pytest.mark.parametrize(("generation", "processes"), [(0, b"1"), (1, b"3")])
    def test_a_verifier_follows_the_settings_of_its_own(
        self, crew: Crew, generation: int, processes: bytes
    ) -> None:
        started = crew.start(VERIFIER, generation)

        assert started is not None
        with started[1] as end:
            end.settimeout(DEADLINE)
            assert end.recv(100) == processes

    def test_who_finds_addresses_follows_the_newest(self, crew: Crew) -> None:
        _, end = start(crew, ADDRESSES)

        with end:
            assert end.recv(100) == b"3"

    def test_one_that_is_not_known_yet_has_no_workers(self, crew: Crew) -> None:
        assert crew.start(VERIFIER, 2) is None

    def test_the_last_ones_are_known_and_no_others(self, crew: Crew) -> None:
        newest = GENERATIONS_KEPT + 1
        for generation in range(2, newest + 1):
            crew.follow(NEWER, generation)

        forgotten = crew.start(VERIFIER, newest - GENERATIONS_KEPT)
        oldest = crew.start(VERIFIER, newest - GENERATIONS_KEPT + 1)

        assert forgotten is None
        assert oldest is not None
        oldest[1].close()

    def test_one_that_has_all_it_may_takes_no_room_from_the_next(self, crew: Crew) -> None:
        ends = [start(crew)[1] for _ in range(MOST)]

        hired = crew.start(VERIFIER, 1)

        assert hired is not None
        for end in (*ends, hired[1]):
            end.close()

    def test_all_together_are_bounded(self, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pysaslauthd.crew.GENERATIONS_KEPT", 1)
        ends = [start(crew)[1] for _ in range(MOST)]
        first_one_more = crew.start(VERIFIER, 1)
        ends += [first_one_more[1]] if first_one_more else []
        while (hired := crew.start(VERIFIER, 1)) is not None:
            ends.append(hired[1])

        assert len(ends) <= NEWER.processes + LEAVING
        for end in ends:
            end.close()

    def test_the_longest_deadline_is_that_of_any_of_them(self, crew: Crew) -> None:
        while_known = crew.longest_deadline
        for generation in range(2, GENERATIONS_KEPT + 1):
            crew.follow(NEWER, generation)

        assert (while_known, crew.longest_deadline) == (8.0, 5.0)


class TestKilling:
    def test_the_worker_with_that_number_is_killed(self, crew: Crew) -> None:
        number, end = start(crew)
        with end:
            pid = int(end.recv(100).split()[1])

            crew.kill(number)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        crew.on_end(pid, None)

    def test_the_others_live(self, crew: Crew) -> None:
        _, first_end = start(crew)
        second, second_end = start(crew)
        with first_end, second_end:
            first_pid, second_pid = (
                int(end.recv(100).split()[1]) for end in (first_end, second_end)
            )

            crew.kill(second)
            reap(crew, second_pid)

            assert is_alive(first_pid)

    def test_what_is_not_its_own_is_not_killed(
        self, crew: Crew, bystander: subprocess.Popen[bytes]
    ) -> None:
        crew.kill(bystander.pid)
        crew.kill(0)
        crew.kill(-1)
        crew.kill(1)

        assert bystander.poll() is None

    def test_a_number_whose_worker_has_ended_kills_nobody(
        self, crew: Crew, bystander: subprocess.Popen[bytes]
    ) -> None:
        number, pid = start_one(crew)
        reap(crew, pid)

        crew.kill(number)

        assert bystander.poll() is None

    def test_to_be_told_twice_is_no_fault(self, crew: Crew) -> None:
        number, pid = start_one(crew)

        crew.kill(number)
        crew.kill(number)

        reap(crew, pid)

    def test_to_be_told_after_its_end_is_no_fault(self, crew: Crew) -> None:
        number, pid = start_one(crew)
        os.waitpid(pid, 0)

        crew.kill(number)

        crew.on_end(pid, None)

    def test_what_it_has_started_is_killed_too(self, crew_of: Making) -> None:
        crew = crew_of(start_sleepers)
        number, end = start(crew)
        with end:
            sleepers = [int(word) for word in end.recv(100).split()]
            alive = list(map(is_alive, sleepers))

            crew.kill(number)

        assert alive == [True, True]
        wait_for(lambda: not any(map(is_alive, sleepers)), "end of what it has started")

    def test_a_stopped_worker_is_killed_too(self, crew: Crew) -> None:
        number, end = start(crew)
        with end:
            pid = int(end.recv(100).split()[1])
            os.kill(pid, signal.SIGSTOP)

            crew.kill(number)

            reap(crew, pid)

    def test_all_can_be_killed_at_once(self, crew: Crew) -> None:
        ends = [start(crew)[1] for _ in range(3)]
        pids = [int(end.recv(100).split()[1]) for end in ends]

        crew.kill_all()

        for end, pid in zip(ends, pids, strict=True):
            reap(crew, pid)
            end.close()


def start_sleepers(_settings: Settings, _kind: str, end: socket.socket) -> None:
    """Start a process in a session of its own that starts another; tell both ids; hang."""
    command = "sleep 60 & echo $$ $!; wait"
    shell = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True)
    assert shell.stdout is not None
    end.send(shell.stdout.readline())
    signal.pause()


class TestItsEnd:
    def test_it_waits_until_all_are_gone(self, crew: Crew) -> None:
        ends = [start(crew)[1] for _ in range(3)]
        pids = [int(end.recv(100).split()[1]) for end in ends]

        crew.end()

        assert not any(map(is_alive, pids))
        for end in ends:
            end.close()

    def test_it_does_not_wait_for_one_that_the_kernel_holds(
        self, crew: Crew, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, end = start(crew)
        pid = int(end.recv(100).split()[1])
        with end, monkeypatch.context() as patched:
            patched.setattr(crew_module, "END_PATIENCE", 0.0)

            crew.end()

        assert crew.pids == {pid}


class TestWhatItSays:
    def test_how_a_worker_failed(self, crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
        number, pid = start_one(crew)

        reap(crew, pid, "Segmentation fault")

        assert caplog.messages[-1] == f"worker {number} of pam died: Segmentation fault"

    def test_one_that_finds_addresses_is_called_so(
        self, crew: Crew, caplog: pytest.LogCaptureFixture
    ) -> None:
        number, end = start(crew, ADDRESSES)
        with end:
            pid = int(end.recv(100).split()[1])

        reap(crew, pid, "Killed")

        assert caplog.messages == [f"worker {number} of addresses died: Killed"]

    def test_nothing_of_one_that_left(self, crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
        _, pid = start_one(crew)

        reap(crew, pid)

        assert caplog.messages == []

    def test_nothing_of_one_that_it_killed(
        self, crew: Crew, caplog: pytest.LogCaptureFixture
    ) -> None:
        number, pid = start_one(crew)

        crew.kill(number)
        reap(crew, pid, "Killed")

        assert caplog.messages == []

    def test_nothing_of_another_process(self, crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
        crew.on_end(1, "Killed")

        assert caplog.messages == []

    def test_the_ids_where_it_is_to_be_verbose(
        self, crew: Crew, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "pysaslauthd")

        _, pid = start_one(crew)
        crew.end()

        assert caplog.messages == [f"forked child: {pid}", f"child exited: {pid}"]

    def test_of_those_it_does_not_start_no_more_than_a_line_a_minute(
        self, crew: Crew, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            crew.start("front", FIRST)
        in_a_minute = len(caplog.messages)
        monkeypatch.setattr(crew_module, "SECONDS_BETWEEN_COMPLAINTS", 0.0)

        crew.start("front", FIRST)

        assert (in_a_minute, len(caplog.messages)) == (1, 2)

    def test_a_worker_that_fails_says_why_itself_and_ends_with_1(self, crew_of: Making) -> None:
        def fail(_settings: Settings, _kind: str, end: socket.socket) -> NoReturn:
            heard = _Heard(end)
            logging.getLogger("pysaslauthd.crew").addHandler(heard)
            raise ZeroDivisionError

        crew = crew_of(fail)
        _, end = start(crew)

        with end:
            assert b"the worker failed" in end.recv(1000)
            assert end.recv(1000) == b""


class _Heard(logging.Handler):
    """Sends each line to the other side of a channel."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__()
        self._end = end

    def emit(self, record: logging.LogRecord) -> None:
        self._end.send(record.getMessage().encode())
