"""Who is inherited from children that have died, in child processes that inherit them."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import NoReturn

import pytest

from pysaslauthd import channel, strays
from pysaslauthd.config.settings import Settings
from pysaslauthd.strays import Strays, children, kill_tree
from pysaslauthd.supervisor import Supervisor
from tests.helpers.accounts import require_root
from tests.helpers.instance import is_alive
from tests.helpers.processes import DEADLINE, wait_for
from tests.helpers.workers import child

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

STRANGER = 54321  # nobody's user id
NOBODY_DIED: set[int] = set()


@pytest.fixture
def as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


def ends_after(work: Callable[[], int]) -> bool:
    """Return whether the process that *work* names ends, *work* being done by a child."""
    return ends_within(DEADLINE, work)


def lives_after(work: Callable[[], int]) -> bool:
    """Return whether it lives: who has been killed would not for so long."""
    return not ends_within(0.1, work)


def ends_within(seconds: float, work: Callable[[], int]) -> bool:
    def tell(end: socket.socket) -> None:
        pid = work()
        ended = os.pidfd_open(pid)
        has_ended = bool(select.select([ended], [], [], seconds)[0])
        kill_tree(pid)
        end.send(b"%d" % has_ended)

    with child(tell) as (_, end):
        end.settimeout(2 * DEADLINE)
        return end.recv(100) == b"1"


def let_go(uid: int | None = None, status: int = 0) -> tuple[int, int]:
    """Start a child that leaves a process of user *uid* behind and ends with *status*.

    Return both ids; the child is not reaped yet.
    """
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.write(writer, b"%d" % fork_sleeper(uid))
        os._exit(status)
    os.waitid(os.P_PID, middle, os.WEXITED | os.WNOWAIT)
    return middle, int(os.read(reader, 100))


def fork_sleeper(uid: int | None = None) -> int:
    """Start a child that waits to be killed, as user *uid* if so; return its id."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid != 0:
        os.read(reader, 1)
        return pid
    try:
        if uid is not None:
            os.setresuid(uid, uid, uid)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # should the test not end it
        os.write(writer, b"x")
        signal.pause()
    finally:
        os._exit(1)


def reap(pid: int) -> None:
    os.waitpid(pid, 0)


class TestWhenOneDies:
    def test_what_it_has_left_is_killed(self) -> None:
        def work() -> int:
            subject = Strays(None)
            subject.look(NOBODY_DIED)
            dead, left = let_go(status=1)
            subject.look({dead})  # as the supervisor does, before it knows
            reap(dead)
            subject.kill(NOBODY_DIED)
            return left

        assert ends_after(work)

    def test_so_is_what_that_has_started(self) -> None:
        def work() -> int:
            subject = Strays(None)
            shell = subprocess.Popen(
                ["sh", "-c", "(sleep 60 & echo $!; wait) & exit 1"], stdout=subprocess.PIPE
            )
            assert shell.stdout is not None
            left = int(shell.stdout.readline())
            shell.wait()
            subject.kill(NOBODY_DIED)
            return left

        assert ends_after(work)

    def test_who_was_let_go_of_before_lives_on(self) -> None:
        def work() -> int:
            subject = Strays(None)
            middle, job = let_go()
            reap(middle)
            subject.look(NOBODY_DIED)
            subject.kill(NOBODY_DIED)
            return job

        assert lives_after(work)

    def test_our_other_children_live_on(self) -> None:
        def work() -> int:
            subject = Strays(None)
            other = fork_sleeper()
            subject.kill({other})
            return other

        assert lives_after(work)


@pytest.mark.usefixtures("as_root")
class TestWhatTheFrontForks:
    def test_it_is_killed_when_it_is_let_go_of(self) -> None:
        def work() -> int:
            subject = Strays(STRANGER)
            middle, left = let_go(STRANGER)
            subject.look({middle})
            return left

        assert ends_after(work)

    def test_it_is_killed_when_the_front_has_died(self) -> None:
        def work() -> int:
            subject = Strays(STRANGER)
            front, left = let_go(STRANGER, status=1)
            reap(front)
            subject.kill(NOBODY_DIED)
            return left

        assert ends_after(work)

    def test_another_users_process_is_not_taken_for_it(self) -> None:
        def work() -> int:
            subject = Strays(STRANGER)
            middle, left = let_go(STRANGER + 1)
            reap(middle)
            subject.look(NOBODY_DIED)
            return left

        assert lives_after(work)

    def test_where_the_front_has_no_user_of_its_own_it_may_be_anybodys(self) -> None:
        def work() -> int:
            subject = Strays(None)
            middle, left = let_go(STRANGER)
            reap(middle)
            subject.look(NOBODY_DIED)
            return left

        assert lives_after(work)

    def test_the_front_itself_is_spared(self) -> None:
        def work() -> int:
            subject = Strays(os.getuid())
            front = fork_sleeper()
            subject.look({front})
            return front

        assert lives_after(work)

    def test_it_does_not_outlive_a_front_that_leaves_when_told(self) -> None:
        def supervise(test: socket.socket) -> None:
            def run_front(_settings: Settings, _generation: int, end: socket.socket) -> None:
                os.setresuid(STRANGER, STRANGER, STRANGER)
                test.send(b"%d" % fork_sleeper())
                end.send(channel.READY)
                end.settimeout(DEADLINE)
                end.recv(100)

            supervise_until_ready(run_front, STRANGER)

        with child(supervise) as (_, end):
            left = int(end.recv(100))
            # Who ends the test's child before its time leaves nobody to do this.
            assert end.recv(100) == b""  # supervisor, front and what it forked have ended

        wait_for(lambda: not is_alive(left), "its end")


def supervise_until_ready(
    run_front: Callable[[Settings, int, socket.socket], None], front_uid: int
) -> None:
    """Supervise a front until it says that it serves."""
    settings = Settings(mechanism="pam")
    Supervisor(
        settings,
        lambda: settings,
        run_front,
        lambda _settings, _kind, _end: None,
        front_uid=front_uid,
        on_ready=lambda: os.kill(os.getpid(), signal.SIGTERM),
        on_stop=lambda: None,
    ).run()


def test_as_the_first_process_of_all_it_touches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> int:
        monkeypatch.setattr(strays, "INIT", os.getpid())
        subject = Strays(os.getuid())
        dead, left = let_go(status=1)
        reap(dead)
        subject.look(NOBODY_DIED)
        subject.kill(NOBODY_DIED)
        return left

    assert lives_after(work)


def test_who_has_gone_meanwhile_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(end: socket.socket) -> None:
        subject = Strays(STRANGER)
        gone = fork_sleeper()
        os.kill(gone, signal.SIGKILL)
        reap(gone)
        monkeypatch.setattr(strays, "children", lambda: {gone})
        subject.kill(NOBODY_DIED)
        subject.look(NOBODY_DIED)
        end.send(b"done")

    with child(work) as (_, end):
        assert end.recv(100) == b"done"


def test_a_process_without_children_has_none() -> None:
    with child(lambda end: end.send(repr(children()).encode())) as (_, end):
        assert end.recv(100) == b"set()"


def test_who_had_children_before_kills_none_of_theirs() -> None:
    def work() -> int:
        fork_sleeper()  # such as a job of the shell that became the daemon
        subject = Strays(None)
        middle, left = let_go(status=1)
        os.waitpid(middle, 0)
        subject.look(NOBODY_DIED)
        subject.kill(NOBODY_DIED)
        return left

    assert lives_after(work)


@pytest.mark.usefixtures("seen_logs")
def test_what_may_not_be_killed_is_told_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_pid: int, _number: int) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)

    kill_tree(os.getpid())

    assert f"process {os.getpid()} may not be killed" in caplog.text
