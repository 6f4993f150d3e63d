"""The daemon with workers: hangs, crashes, recycling, reloads, delays, an end; root only."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from pysaslauthd.crew import GENERATIONS_KEPT
from pysaslauthd.plugins.mechanism import WARM_WORKERS
from pysaslauthd.stores import accounts
from tests.helpers.accounts import account, needs_account_tools, require_root, set_stored
from tests.helpers.instance import children_of, is_alive
from tests.helpers.own_log import OwnLog, own_log
from tests.helpers.pam import (
    PERMIT,
    UNIX,
    Service,
    Stack,
    pam_service,
    stack_that_kills_its_parent,
    stack_that_runs,
)
from tests.helpers.processes import DEADLINE as WAITED_FOR
from tests.helpers.processes import wait_for
from tests.helpers.worker_daemon import (
    ADDRESSES,
    OUTAGE,
    PAM,
    PASSWORD,
    SHADOW,
    WorkerDaemon,
    wait_for_end,
    worker_daemon,
)

Serving = Callable[[Stack | str], Service]

DEADLINE = 1.0  # seconds, of the daemon
LONG_DEADLINE = 6.0  # in which even a busy machine starts some workers
REFUSALS = 16
MANY_RELOADS = GENERATIONS_KEPT + 2


@pytest.fixture(autouse=True, scope="module")
def _as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def serving(_as_root: None) -> Iterator[Serving]:
    """Return what makes a PAM service of some rules."""
    with ExitStack() as made:
        yield lambda rules: made.enter_context(pam_service(rules))


@pytest.fixture(scope="module")
def permit(serving: Serving) -> str:
    return serving(PERMIT).name


@pytest.fixture(scope="module")
def slow_rules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stack, Path]:
    """Rules that take until a gate is opened, which is longer than the deadline; the gate."""
    gate = tmp_path_factory.mktemp("slow") / "gate"
    os.mkfifo(gate)
    return waits_at(gate), gate


@pytest.fixture(scope="module")
def patient(serving: Serving, slow_rules: tuple[Stack, Path]) -> str:
    """A service that may take longer than the others."""
    return serving(slow_rules[0]).name


@pytest.fixture(scope="module")
def daemon(permit: str, patient: str) -> Iterator[WorkerDaemon]:
    settings = f"""
deadline = {DEADLINE}
service_deadlines = {{ "{permit}" = 20.0, "{patient}" = 20.0 }}
"""
    with worker_daemon("pam", settings) as made:
        yield made


@pytest.fixture
def sleepers(tmp_path: Path) -> Path:
    """Where a stack that hangs writes the ids of the process it has started and of its worker."""
    return tmp_path / "sleepers"


@pytest.fixture
def hanging(sleepers: Path) -> Iterator[str]:
    rules = stack_that_runs(f"echo $$ $PPID >> {sleepers}; exec sleep 60")
    with pam_service(rules) as made:
        yield made.name


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe that holds who reads from it until it is opened."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


@pytest.fixture
def held(gate: Path) -> Iterator[str]:
    with pam_service(waits_at(gate)) as made:
        yield made.name


def waits_at(gate: Path) -> Stack:
    return stack_that_runs(f": < {gate}")


@contextmanager
def opened(gate: Path) -> Iterator[None]:
    """Let everybody through who waits at the gate, or comes while the block runs."""
    writer = os.open(gate, os.O_RDWR)  # which waits for nobody
    try:
        yield
    finally:
        os.close(writer)


class Started(NamedTuple):
    """A process that a stack that hangs has started, and the worker whose it is."""

    sleeper: int
    worker: int


def started_by(stack: Path) -> list[Started]:
    """Return the processes that a stack that hangs has started, when there is one."""
    wait_for(lambda: stack.exists() and bool(stack.read_text()), "a stack that hangs")
    return [Started(*map(int, line.split())) for line in stack.read_text().splitlines()]


class TestHangs:
    def test_a_stack_that_hangs_is_an_outage_at_the_deadline(
        self, daemon: WorkerDaemon, hanging: str
    ) -> None:
        started = time.monotonic()

        reply = daemon.ask(hanging)

        assert reply == OUTAGE
        assert DEADLINE <= time.monotonic() - started < DEADLINE + 3
        assert f"[service={hanging}] [realm=] [mech=pam] [reason=no answer within 1 s]" in "".join(
            daemon.lines()
        )

    def test_its_worker_and_what_that_has_started_are_gone(
        self, daemon: WorkerDaemon, hanging: str, sleepers: Path
    ) -> None:
        hung = daemon.asking(hanging)
        (started,) = started_by(sleepers)
        hung.result()

        wait_for_end(started.sleeper, started.worker)

    def test_others_are_answered_meanwhile(self, hanging: str, sleepers: Path, permit: str) -> None:
        with worker_daemon("pam", f"deadline = {LONG_DEADLINE}\n") as daemon:
            hung = [daemon.asking(hanging) for _ in range(4)]
            wait_for(lambda: len(started_by(sleepers)) == 4, "4 workers that hang")

            replies = [daemon.ask(permit) for _ in range(20)]
            meanwhile = not any(one.done() for one in hung)

            assert replies == [b"OK"] * 20
            assert meanwhile
            assert [one.result() for one in hung] == [OUTAGE] * 4

    def test_a_service_may_have_a_deadline_of_its_own(
        self, daemon: WorkerDaemon, patient: str, serving: Serving, slow_rules: tuple[Stack, Path]
    ) -> None:
        rules, gate = slow_rules
        same_rules = serving(rules).name

        patiently, else_ = daemon.asking(patient), daemon.asking(same_rules)

        assert else_.result() == OUTAGE
        assert not patiently.done()
        with opened(gate):
            assert patiently.result() == b"OK"


class TestCrashes:
    def test_a_stack_that_kills_its_worker_costs_its_own_request_only(
        self, daemon: WorkerDaemon, serving: Serving, permit: str
    ) -> None:
        killing = serving(stack_that_kills_its_parent()).name
        others = [daemon.asking(permit) for _ in range(20)]

        reply = daemon.ask(killing)

        assert reply == OUTAGE
        assert daemon.ask(permit) == b"OK"
        assert [other.result() for other in others] == [b"OK"] * 20

    def test_a_worker_that_is_killed_idle_costs_nobody_anything(
        self, daemon: WorkerDaemon, permit: str
    ) -> None:
        daemon.ask(permit)
        before = daemon.processes(PAM)

        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for_end(*before)

        assert [daemon.ask(permit) for _ in range(5)] == [b"OK"] * 5


class TestRecycling:
    def test_no_answer_is_lost_when_workers_leave_under_load(self, permit: str) -> None:
        with worker_daemon("pam", "worker_requests = 5\n") as daemon:
            asked = [daemon.asking(permit) for _ in range(200)]
            replies = [one.result() for one in asked]

            started = sum(line.startswith("forked child") for line in daemon.lines())
        assert replies == [b"OK"] * 200
        assert started >= 200 / 5


class TestReloading:
    def test_nothing_is_lost_and_the_old_workers_leave(self, permit: str) -> None:
        with worker_daemon("pam", "") as daemon:
            daemon.ask(permit)
            before = daemon.processes(PAM)
            asked = []
            for _ in range(3):
                asked += [daemon.asking(permit) for _ in range(100)]
                daemon.reload()

            assert {one.result() for one in asked} == {b"OK"}
            wait_for_end(*before)
            assert daemon.ask(permit) == b"OK"

    def test_a_slow_question_holds_no_reload_and_no_other_question(
        self, permit: str, gate: Path, held: str
    ) -> None:
        with worker_daemon("pam") as daemon:
            slow = daemon.asking(held)
            wait_for_busy_worker(daemon)
            replies = []
            for _ in range(MANY_RELOADS):
                daemon.reload()
                replies.append(daemon.ask(permit))

            assert not slow.done()
            assert replies == [b"OK"] * MANY_RELOADS
            with opened(gate):
                assert slow.result() == b"OK"

    def test_beside_a_slow_question_there_are_no_more_workers_than_are_warm(
        self, gate: Path, held: str
    ) -> None:
        with worker_daemon("pam") as daemon:
            slow = daemon.asking(held)
            wait_for_busy_worker(daemon)
            (busy,) = filter(has_children, daemon.processes(PAM))
            for _ in range(MANY_RELOADS):
                daemon.reload()

            wait_for(lambda: len(daemon.processes(PAM)) == 1 + WARM_WORKERS, "as few as that")
            assert busy in daemon.processes(PAM)
            with opened(gate):
                assert slow.result() == b"OK"

    def test_a_storm_of_reloads_leaves_no_more_workers_than_are_warm(self, permit: str) -> None:
        with worker_daemon("pam") as daemon:
            for _ in range(200):
                os.kill(daemon.server.pid, signal.SIGHUP)
            daemon.reload()

            assert daemon.ask(permit) == b"OK"
            wait_for(lambda: len(daemon.processes(PAM)) <= WARM_WORKERS, "no more than are warm")

    def test_addresses_are_found_after_many_though_who_finds_them_was_killed(self) -> None:
        with client_of_this_process() as address, worker_daemon("shadow") as daemon:
            daemon.ask("imap", "nobody-before")
            for _ in range(MANY_RELOADS):
                daemon.reload()
            finder = daemon.one(ADDRESSES)
            os.kill(finder, signal.SIGKILL)
            wait_for_end(finder)

            refusal = f"[user=nobody-after] [service=imap] [realm=] [remote={address}]"

            def is_told() -> bool:
                daemon.ask("imap", "nobody-after")
                return refusal in "".join(daemon.lines())

            # More than once: an address that is not found in half a second is not waited for.
            wait_for(is_told, refusal)

    def test_one_that_is_busy_leaves_when_it_has_answered(self, gate: Path, held: str) -> None:
        with worker_daemon("pam") as daemon:
            asked = daemon.asking(held)
            wait_for_busy_worker(daemon)
            before = daemon.processes(PAM)

            daemon.reload()
            with opened(gate):
                assert asked.result() == b"OK"

            wait_for_end(*before)


@contextmanager
def client_of_this_process() -> Iterator[str]:
    """Accept one TCP connection while the block runs; return its client's `address;port`."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0],
    ):
        yield "{};{}".format(*client.getsockname())


def wait_for_busy_worker(daemon: WorkerDaemon) -> None:
    """Return when a worker has started what a stack runs."""
    wait_for(lambda: any(map(has_children, daemon.processes(PAM))), "a busy worker")


def has_children(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return bool(children_of(pid))
    return False


class TestLeaving:
    def test_a_worker_that_hangs_does_not_hold_the_daemon(
        self, hanging: str, sleepers: Path
    ) -> None:
        with worker_daemon("pam", f"deadline = {DEADLINE}\n") as daemon:
            hung = daemon.asking(hanging)
            (hanging_one,) = started_by(sleepers)
            everybody = children_of(daemon.server.pid)
            started = time.monotonic()

            code = daemon.server.stop()

            assert code == 0
            assert not any(map(is_alive, everybody))
            assert time.monotonic() - started < DEADLINE + 3
            assert hung.result() == OUTAGE
            wait_for_end(hanging_one.sleeper)

    def test_who_has_asked_is_answered(self, gate: Path, held: str) -> None:
        with worker_daemon("pam", "") as daemon:
            asked = daemon.asking(held)
            wait_for_busy_worker(daemon)
            begin_to_leave(daemon)

            with opened(gate):
                assert asked.result() == b"OK"

            assert daemon.server.has_ended(within=WAITED_FOR)
            assert daemon.server.stop() == 0

    def test_more_than_there_are_workers_for_are_answered_by_new_ones(
        self, gate: Path, held: str
    ) -> None:
        with worker_daemon("pam", "worker_requests = 1\n") as daemon:
            asked = [daemon.asking(held) for _ in range(20)]
            wait_for_busy_worker(daemon)
            begin_to_leave(daemon)

            with opened(gate):
                assert [one.result() for one in asked] == [b"OK"] * 20
                assert daemon.server.has_ended(within=5)

            assert daemon.server.stop() == 0


def begin_to_leave(daemon: WorkerDaemon) -> None:
    """Tell the daemon to stop; return when it lets nobody else in."""
    os.kill(daemon.server.pid, signal.SIGTERM)
    wait_for(lambda: not daemon.mux.exists(), "a daemon that is leaving")


class TestSyslog:
    @pytest.fixture
    def log(self, lacking: Callable[[str], NoReturn]) -> Iterator[OwnLog]:
        with own_log(lacking) as made:
            yield made

    def test_the_lines_of_pams_modules_bear_the_daemons_name_and_the_workers_number(
        self, log: OwnLog, serving: Serving
    ) -> None:
        warning = serving("auth required pam_warn.so\n" + PERMIT.text).name
        with worker_daemon("pam", within=log.within) as daemon:
            asked = daemon.asking(warning)
            said = next(line for line in log.lines() if "pam_warn(" in line)

            assert asked.result() == b"OK"
            assert re.search(rf" saslauthd\[(\d+)\]: pam_warn\({warning}:auth\): ", said)
            assert f"saslauthd[{daemon.server.pid}]" not in said


def hash_of(password: str) -> str:
    """Return a hash as this machine makes them."""
    with account(password) as other:
        found = accounts.find_shadow(other)
        assert found is not None
        return found.stored.reveal().decode()


@needs_account_tools
class TestWithAccounts:
    def test_refusals_are_held_by_nobody_but_their_askers(self, serving: Serving) -> None:
        unix = serving(UNIX).name
        with account(PASSWORD) as joe, worker_daemon("pam", "", "-n", "2") as daemon:
            daemon.ask(unix, joe, PASSWORD)
            started = time.monotonic()
            wrong = [daemon.asking(unix, joe, "wrong") for _ in range(REFUSALS)]
            right = daemon.ask(unix, joe, PASSWORD)
            right_took = time.monotonic() - started
            refusals = {one.result() for one in wrong}
            took = time.monotonic() - started

        assert (right, refusals) == (b"OK", {b"NO PAM auth error"})
        # pam_unix wants 2 seconds, and libpam varies that by half. The two workers, if it were
        # they who held them, would be at half of the refusals each, for a second or more.
        assert right_took < REFUSALS / 2
        assert 0.9 < took < REFUSALS / 2

    def test_the_second_answer_comes_from_the_cache(self) -> None:
        with account(PASSWORD) as joe, worker_daemon("shadow", "", "-c") as daemon:
            replies = [daemon.ask("imap", joe, PASSWORD) for _ in range(2)]
            daemon.server.stop()

            said = [line for line in daemon.lines() if f"user={joe}" in line]
        assert replies == [b"OK"] * 2
        assert said == [
            f"auth success: [user={joe}] [service=imap] [realm=] [mech=shadow]",
            f"auth success (cached): [user={joe}] [service=imap] [realm=]",
        ]

    def test_a_changed_password_that_is_used_ends_the_old_one_in_the_cache(self) -> None:
        with account("old") as joe, worker_daemon("shadow", "", "-c") as daemon:
            first = daemon.ask("imap", joe, "old")
            set_stored(joe, hash_of("new"))
            new = daemon.ask("imap", joe, "new")
            old = daemon.ask("imap", joe, "old")

        assert (first, new, old) == (b"OK", b"OK", b"NO Incorrect password")

    def test_a_worker_that_is_killed_is_replaced(self) -> None:
        with account(PASSWORD) as joe, worker_daemon("shadow", "") as daemon:
            before = daemon.one(SHADOW)
            os.kill(before, signal.SIGKILL)
            wait_for_end(before)

            assert daemon.ask("imap", joe, PASSWORD) == b"OK"
