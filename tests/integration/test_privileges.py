"""Who the daemon's processes are, what they may do and hold, what one's death costs; root only."""

import grp
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from pysaslauthd import worker
from pysaslauthd.config.settings import Settings
from pysaslauthd.plugins.mechanism import WARM_WORKERS
from pysaslauthd.privileges import CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, FALLBACK_USER, USER
from pysaslauthd.workers.child import HELLO, STAYS
from tests.helpers.accounts import account, needs_account_tools, require_root
from tests.helpers.daemon import environment
from tests.helpers.instance import (
    COMMAND,
    Instance,
    ask,
    children_of,
    end,
    instance,
    is_alive,
    run,
)
from tests.helpers.pam import PERMIT, pam_service, stack_that_runs
from tests.helpers.processes import accepts, short_directory, wait_for
from tests.helpers.worker_daemon import (
    ADDRESSES,
    FRONT,
    OUTAGE,
    PAM,
    SHADOW,
    WorkerDaemon,
    command_of,
    wait_for_end,
    worker_daemon,
)
from tests.helpers.workers import child

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

NOBODY = 65534
# Python may be where nobody else can read it.
WITH_SOME_POWER = [
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]
NO_TERMINAL = 0
NOBODY_HERE = "nobody-here"  # who is refused, so that the client's address is looked for
NONE, SOME_FILES, OTHERS = 0, 1 << CAP_DAC_READ_SEARCH, 1 << CAP_SYS_PTRACE
STANDARD = 3  # descriptors
SOON = 4.0  # seconds: half of the deadline, at which who waits for the dead would be answered


@pytest.fixture(autouse=True, scope="module")
def _as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def permit(_as_root: None) -> Iterator[str]:
    with pam_service(PERMIT) as made:
        yield made.name


@pytest.fixture(scope="module")
def pam(permit: str) -> Iterator[WorkerDaemon]:
    with worker_daemon("pam") as made:
        assert made.ask(permit) == b"OK"
        yield made


@pytest.fixture(scope="module")
def shadow(_as_root: None) -> Iterator[WorkerDaemon]:
    """A daemon that has refused somebody, so that it has a worker of every kind."""
    with worker_daemon("shadow") as made:
        assert made.ask("imap", NOBODY_HERE) == b"NO Invalid username"
        yield made


@pytest.fixture
def place(_as_root: None) -> Iterator[Instance]:
    with instance() as made:
        yield made


class Status:
    """What /proc/PID/status says of a process."""

    def __init__(self, pid: int) -> None:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        self._fields = dict(line.split(":", 1) for line in lines)

    def numbers(self, field: str) -> list[int]:
        return [int(word) for word in self._fields[field].split()]

    def capabilities(self, *sets: str) -> list[int]:
        """Return the sets of these names as bits."""
        return [int(self._fields[f"Cap{name}"], 16) for name in sets]


def limited(daemon: WorkerDaemon, kind: str) -> Status:
    """Return the status of a worker when it has given up what it does not need."""
    pid = daemon.one(kind)
    wait_for(lambda: Status(pid).numbers("NoNewPrivs") == [1], f"limits of {pid}")
    return Status(pid)


def default_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return pwd.getpwnam(FALLBACK_USER)


def may_open_memory(uid: int, pid: int) -> bool:
    """Say whether user *uid* without any power may look into the process *pid*."""

    def look() -> bytes:
        os.setgroups([])
        os.setresuid(uid, uid, uid)
        try:
            Path(f"/proc/{pid}/mem").open("rb").close()
        except PermissionError:
            return b"no"
        return b"yes"

    with child(lambda end: end.send(look())) as (_, end):
        return end.recv(9) == b"yes"


def descriptors(pid: int) -> dict[int, str]:
    """Return what a process holds besides its standard streams."""
    held = {int(link.name): str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return {number: target for number, target in held.items() if number >= STANDARD}


class TestTheFront:
    @pytest.fixture(params=["pam", "shadow"])
    def front(self, request: pytest.FixtureRequest) -> int:
        daemon: WorkerDaemon = request.getfixturevalue(request.param)
        return daemon.one(FRONT)

    def test_it_is_the_user_made_for_it_in_no_other_group(self, front: int) -> None:
        status, user = Status(front), default_user()

        assert status.numbers("Uid") == [user.pw_uid] * 4
        assert status.numbers("Gid") == [user.pw_gid] * 4
        assert status.numbers("Groups") == []

    def test_it_may_nothing_and_can_gain_nothing(self, front: int) -> None:
        status = Status(front)

        assert status.capabilities("Inh", "Prm", "Eff", "Bnd", "Amb") == [NONE] * 5
        assert status.numbers("NoNewPrivs") == [1]

    def test_others_of_its_user_cannot_look_into_it(self, front: int) -> None:
        assert not may_open_memory(default_user().pw_uid, front)
        assert Path(f"/proc/{front}/mem").stat().st_uid == 0

    def test_it_holds_no_file(self, front: int) -> None:
        kinds = {target.partition(":")[0] for target in descriptors(front).values()}

        assert kinds == {"socket", "anon_inode"}

    def test_with_sasldb_it_is_in_that_databases_group(self, place: Instance) -> None:
        expected = [group.gr_gid for group in grp.getgrall() if group.gr_name == "sasl"]
        place.database.chmod(0o644)

        with place.running() as server:
            (front,) = children_of(server.pid)
            status = Status(front)

        assert status.numbers("Groups") == expected
        assert status.numbers("Uid") == [default_user().pw_uid] * 4


class TestWithoutRoot:
    @pytest.fixture
    def place(self, place: Instance) -> Instance:
        place.database.chmod(0o644)
        os.chown(place.run, NOBODY, NOBODY)
        return place

    def test_the_front_drops_what_power_the_daemon_was_given(self, place: Instance) -> None:
        with place.starting([*WITH_SOME_POWER, *place.argv("-f")]) as server:
            server.wait_until(lambda: accepts(place.mux))
            reply = place.ask()
            given = Status(server.pid)
            front = Status(children_of(server.pid)[0])

            assert reply == b"OK"
            assert given.numbers("Uid") == front.numbers("Uid") == [NOBODY] * 4
            assert given.capabilities("Eff", "Amb") == [SOME_FILES] * 2
            assert front.capabilities("Inh", "Prm", "Eff", "Amb") == [NONE] * 4
            assert front.numbers("NoNewPrivs") == [1]

    def test_a_warning_says_whom_pam_cannot_know(self, place: Instance) -> None:
        argv = [*COMMAND, "-a", "pam", "-m", str(place.run), "-f"]

        with place.starting([*WITH_SOME_POWER, *argv]) as server:
            server.wait_until(lambda: accepts(place.mux))

            assert f"pam_unix knows the password of user {NOBODY} only" in server.output()


class TestStarters:
    """What those who start a daemon have, a process of it has no more."""

    @pytest.fixture
    def detaching(self, place: Instance) -> Iterator[Instance]:
        """A place for a daemon that detaches itself, which ends with the test."""
        yield place
        end(int((place.run / "saslauthd.pid").read_text()))

    @pytest.mark.parametrize("mechanism", ["pam", "shadow"])
    def test_the_starter_of_a_detached_one_sees_the_end_of_its_output(
        self, detaching: Instance, mechanism: str
    ) -> None:
        done = run([*COMMAND, "-a", mechanism, "-m", str(detaching.run)])  # reads to the end

        assert (done.returncode, done.stdout) == (0, ""), done.stderr

    @pytest.mark.parametrize("mechanism", ["pam", "shadow"])
    def test_a_detached_one_has_no_stream_of_its_starter(
        self, detaching: Instance, mechanism: str
    ) -> None:
        run([*COMMAND, "-a", mechanism, "-m", str(detaching.run)])
        pid = int((detaching.run / "saslauthd.pid").read_text())
        wait_for(lambda: len(children_of(pid)) >= 2, "a front and a worker")
        wait_for(lambda: all(map(has_name, children_of(pid))), "what each of them is")

        streams = [standard(one) for one in (pid, *children_of(pid))]

        assert all(stream == {os.devnull} for stream in streams)

    def test_front_and_workers_have_no_terminal(self, on_terminal: subprocess.Popen[bytes]) -> None:
        children = children_of(on_terminal.pid)

        assert terminal_of(on_terminal.pid) != NO_TERMINAL
        assert len(children) >= 2
        assert {terminal_of(pid) for pid in children} == {NO_TERMINAL}

    def test_each_has_a_session_of_its_own(self, on_terminal: subprocess.Popen[bytes]) -> None:
        children = children_of(on_terminal.pid)

        assert [os.getsid(pid) for pid in children] == children

    @pytest.fixture
    def on_terminal(self, place: Instance) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon in the foreground of a terminal, which has answered once."""
        argv = [*COMMAND, "-a", "shadow", "-m", str(place.run), "-f"]
        screen, terminal = os.openpty()
        try:
            with subprocess.Popen(
                ["setsid", "--ctty", *argv],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                env=environment(),
            ) as process:
                wait_for(lambda: accepts(place.mux), "a socket")
                assert ask(place.mux, NOBODY_HERE, "pw", "") == b"NO Invalid username"
                wait_for(lambda: is_complete(children_of(process.pid)), "front and workers")
                yield process
                process.terminate()
        finally:
            os.close(terminal)
            os.close(screen)


def standard(pid: int) -> set[str]:
    """Return what the standard streams of a process are."""
    return {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(STANDARD)}


def terminal_of(pid: int) -> int:
    """Return the number of a process's controlling terminal (proc(5), tty_nr)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


def is_complete(children: list[int]) -> bool:
    """Say whether there are a front, its warm workers, and one that finds addresses."""
    return len(children) >= 1 + WARM_WORKERS + 1 and all(map(has_name, children))


def has_name(pid: int) -> bool:
    """Say whether a process of the daemon has got as far as to give itself a name."""
    return command_of(pid).startswith("saslauthd-")


class TestWorkers:
    def test_shadows_may_read_every_file_and_nothing_else(self, shadow: WorkerDaemon) -> None:
        status = limited(shadow, SHADOW)

        assert status.numbers("Uid") == [0] * 4
        assert status.capabilities("Prm", "Eff", "Bnd") == [SOME_FILES] * 3
        assert status.capabilities("Inh", "Amb") == [NONE] * 2

    def test_getpwents_may_the_same(self) -> None:
        with worker_daemon("getpwent") as daemon:
            status = limited(daemon, "getpw")

        assert status.capabilities("Prm", "Eff", "Bnd") == [SOME_FILES] * 3

    def test_the_one_that_finds_addresses_may_look_into_others(self, shadow: WorkerDaemon) -> None:
        status = limited(shadow, ADDRESSES)

        assert status.capabilities("Prm", "Eff", "Bnd") == [SOME_FILES | OTHERS] * 3
        assert status.capabilities("Inh", "Amb") == [NONE] * 2

    def test_pams_are_as_powerful_as_who_starts_them(self, pam: WorkerDaemon) -> None:
        status, supervisor = Status(pam.one(PAM)), Status(pam.server.pid)

        assert status.numbers("Uid") == [0] * 4
        assert status.capabilities("Prm", "Eff", "Bnd") == supervisor.capabilities(
            "Prm", "Eff", "Bnd"
        )
        assert status.numbers("NoNewPrivs") == [0]  # modules run helpers that are setuid

    @pytest.mark.parametrize("kind", [SHADOW, ADDRESSES])
    def test_the_front_cannot_look_into_them(self, shadow: WorkerDaemon, kind: str) -> None:
        assert not may_open_memory(default_user().pw_uid, shadow.one(kind))

    def test_nor_into_pams_nor_into_the_supervisor(self, pam: WorkerDaemon) -> None:
        assert not may_open_memory(default_user().pw_uid, pam.one(PAM))
        assert not may_open_memory(default_user().pw_uid, pam.server.pid)

    @pytest.mark.parametrize("kind", [SHADOW, ADDRESSES])
    def test_each_holds_its_channel_and_nothing_else(self, shadow: WorkerDaemon, kind: str) -> None:
        (held,) = descriptors(shadow.one(kind)).values()

        assert held.startswith("socket:")
        assert held not in descriptors(shadow.server.pid).values()
        assert held not in descriptors(shadow.one(FRONT)).values()

    def test_no_two_share_a_channel(self, pam: WorkerDaemon) -> None:
        wait_for(lambda: len(pam.processes(PAM)) >= 2, "two workers")

        held = [target for pid in pam.processes(PAM) for target in descriptors(pid).values()]

        assert len(held) == len(set(held)) == len(pam.processes(PAM))


def test_the_supervisor_holds_no_channel_of_a_worker(pam: WorkerDaemon) -> None:
    def sockets() -> list[str]:
        return [target for target in descriptors(pam.server.pid).values() if "socket:" in target]

    # The listening one, and the channel to the front; those of a worker that it has just started
    # are there for a moment.
    wait_for(lambda: len(sockets()) == 2, "two sockets")


class TestWhoIsNamed:
    def refusal(self, place: Instance, *flags: str) -> str:
        done = run(place.argv("-f", *flags))
        assert done.returncode == 1
        return done.stderr

    @needs_account_tools
    def test_the_front_is_who_is_named(self, place: Instance) -> None:
        with account() as name:
            place.database.chmod(0o644)

            with place.running("--user", name) as server:
                (front,) = children_of(server.pid)
                uids = Status(front).numbers("Uid")

            assert uids == [pwd.getpwnam(name).pw_uid] * 4

    def test_an_unknown_user_is_refused(self, place: Instance) -> None:
        assert ":there is no user 'nobody-here': see --user\n" in self.refusal(
            place, "--user", NOBODY_HERE
        )

    def test_root_is_refused(self, place: Instance) -> None:
        assert "the process that talks to clients does not run as root" in self.refusal(
            place, "--user", "root"
        )

    @needs_account_tools
    def test_who_may_read_hashes_is_refused(self, place: Instance) -> None:
        with account() as name:
            wait_for(lambda: joined(name, "shadow"), f"{name} in the group shadow")

            refusal = self.refusal(place, "--user", name)

        assert f"user {name} has the group shadow, and could read every hash" in refusal

    @pytest.mark.skipif(default_user().pw_name == USER, reason="there is such a user")
    def test_where_there_is_none_for_it_a_warning_says_so(self, place: Instance) -> None:
        place.database.chmod(0o644)

        with place.running() as server:
            assert f"there is no user {USER}: using {FALLBACK_USER}" in server.output()


def joined(name: str, group: str) -> bool:
    """Make *group* the first one of the user *name*; False while the maps are locked."""
    done = subprocess.run(["usermod", "--gid", group, name], capture_output=True, check=False)
    return done.returncode == 0


class Sleeper(NamedTuple):
    """A PAM service that starts a process, which sleeps and has written its id to *told*."""

    service: str
    told: Path

    def pid(self) -> int:
        """Return the id when there is one."""
        wait_for(lambda: self.told.exists() and bool(self.told.read_text()), "a sleeper")
        return int(self.told.read_text())


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    told = tmp_path / "told"
    with pam_service(stack_that_runs(f"echo $$ > {told}; exec sleep 60")) as made:
        yield Sleeper(made.name, told)


class Asked(NamedTuple):
    """A connection that a door has accepted, and the address of the client for which it asks."""

    connection: socket.socket
    address: str


class TestWhoFindsAddresses:
    """The worker by itself: what it is told of a connection that a front hands to it."""

    @pytest.fixture
    def asked(self) -> Iterator[Asked]:
        """This process asks, while it serves a TCP client."""
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
            server.accept()[0],
            short_directory("sd-") as directory,
            socket.socket(socket.AF_UNIX) as listener,
            socket.socket(socket.AF_UNIX) as asking,
        ):
            listener.bind(str(directory / "mux"))
            listener.listen()
            asking.connect(listener.getsockname())
            with listener.accept()[0] as connection:
                yield Asked(connection, "{};{}".format(*client.getsockname()))

    def answer(self, doors: set[str], *descriptors: int) -> bytes:
        """Return what the worker says when it is asked with *descriptors*."""
        settings, supervisor = Settings(mechanism="shadow"), os.getpid()
        tag = b"8 bytes."

        def work(end: socket.socket) -> None:
            worker.work(settings, worker.ADDRESSES, end, supervisor, doors)

        with child(work) as (_, end):
            assert end.recv(100) == HELLO
            socket.send_fds(end, [tag + b"?"], descriptors)
            return end.recv(100).removeprefix(tag + STAYS)

    def test_of_one_that_was_accepted_at_a_door_it_finds_the_address(self, asked: Asked) -> None:
        door = asked.connection.getsockname()

        assert self.answer({door}, asked.connection.fileno()).decode() == asked.address

    def test_of_any_other_it_finds_none(self, asked: Asked) -> None:
        assert self.answer({"/run/elsewhere"}, asked.connection.fileno()) == b""

    def test_of_what_is_no_socket_it_finds_none(self) -> None:
        with Path(os.devnull).open() as null:
            assert self.answer({""}, null.fileno()) == b""

    def test_of_nothing_it_finds_none(self) -> None:
        assert self.answer({""}) == b""


class TestStrays:
    def test_with_a_worker_that_is_killed_goes_what_its_stack_runs(
        self, pam: WorkerDaemon, sleeper: Sleeper
    ) -> None:
        asked = pam.asking(sleeper.service)
        pid = sleeper.pid()

        os.kill(parent_of(pid), signal.SIGKILL)

        wait_for_end(pid)
        assert asked.result() == OUTAGE
        assert f"process {pid} is left over from one that died: killing it" in pam.lines()

    @pytest.fixture
    def job(self, tmp_path: Path) -> Iterator[Sleeper]:
        """A service whose script leaves a job in the background, and the id of its worker."""
        told = tmp_path / "job"
        script = f"echo $PPID > {tmp_path / 'worker'}; setsid sleep 60 & echo $! > {told}"
        with pam_service(stack_that_runs(script)) as made:
            left = Sleeper(made.name, told)
            yield left
            with suppress(ProcessLookupError):
                os.kill(left.pid(), signal.SIGKILL)

    def test_a_job_that_a_script_leaves_outlives_its_worker(
        self, job: Sleeper, permit: str
    ) -> None:
        with worker_daemon("pam", "worker_requests = 1\n") as daemon:
            replies = [daemon.ask(job.service), daemon.ask(permit), daemon.ask(permit)]
            wait_for_end(int(job.told.with_name("worker").read_text()))

            assert replies == [b"OK"] * 3
            assert is_alive(job.pid())
            assert parent_of(job.pid()) == daemon.server.pid

    def test_it_outlives_the_crash_of_another(self, job: Sleeper, permit: str) -> None:
        with worker_daemon("pam") as daemon:
            daemon.ask(job.service)
            wait_for(lambda: len(daemon.processes(PAM)) == 2, "both workers")
            before = daemon.processes(PAM)
            daemon.reload()
            wait_for_end(*before)
            crashed = daemon.one(PAM)
            os.kill(crashed, signal.SIGKILL)
            wait_for_end(crashed)
            daemon.server.wait_until(lambda: any("died: Killed" in one for one in daemon.lines()))

            assert daemon.ask(permit) == b"OK"
            assert is_alive(job.pid())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class TestKilled:
    @pytest.mark.parametrize(
        ("mechanism", "kind"), [("pam", PAM), ("shadow", SHADOW), ("shadow", ADDRESSES)]
    )
    def test_a_worker_is_missed_by_nobody(
        self, request: pytest.FixtureRequest, permit: str, mechanism: str, kind: str
    ) -> None:
        daemon: WorkerDaemon = request.getfixturevalue(mechanism)
        killed = daemon.one(kind)
        started = time.monotonic()

        os.kill(killed, signal.SIGKILL)
        wait_for_end(killed)
        reply = daemon.ask(permit, NOBODY_HERE)

        assert reply == (b"OK" if mechanism == "pam" else b"NO Invalid username")
        assert time.monotonic() - started < SOON

    @pytest.mark.parametrize("mechanism", ["pam", "shadow"])
    def test_a_front_is_replaced_with_its_workers(
        self, request: pytest.FixtureRequest, permit: str, mechanism: str
    ) -> None:
        daemon: WorkerDaemon = request.getfixturevalue(mechanism)
        before = children_of(daemon.server.pid)
        started = time.monotonic()

        os.kill(daemon.one(FRONT), signal.SIGKILL)
        wait_for_end(*before)
        reply = daemon.ask(permit, NOBODY_HERE)

        assert reply == (b"OK" if mechanism == "pam" else b"NO Invalid username")
        assert time.monotonic() - started < SOON

    def test_with_a_front_goes_what_its_workers_have_started(
        self, pam: WorkerDaemon, sleeper: Sleeper
    ) -> None:
        asked = pam.asking(sleeper.service)
        pid = sleeper.pid()

        os.kill(pam.one(FRONT), signal.SIGKILL)

        wait_for_end(pid)
        assert asked.exception() is not None or asked.result() == OUTAGE

    def test_with_a_supervisor_goes_a_front_that_hangs(self, permit: str) -> None:
        with worker_daemon("pam") as daemon:
            daemon.ask(permit)  # when it has answered, it is all that a front is
            front = daemon.one(FRONT)
            os.kill(front, signal.SIGSTOP)

            os.kill(daemon.server.pid, signal.SIGKILL)

            wait_for_end(front)

    def test_with_a_supervisor_goes_a_worker_that_hangs(self, sleeper: Sleeper) -> None:
        with worker_daemon("pam") as daemon:
            asked = daemon.asking(sleeper.service)
            pid = sleeper.pid()
            before = children_of(daemon.server.pid)

            os.kill(daemon.server.pid, signal.SIGKILL)

            wait_for_end(*before)
            assert asked.exception() is not None or asked.result() == OUTAGE
            os.kill(pid, signal.SIGKILL)  # what a worker has started, nobody is left to kill

    @pytest.mark.parametrize("mechanism", ["pam", "shadow"])
    def test_a_supervisor_takes_all_with_it_and_another_can_start(
        self, permit: str, mechanism: str
    ) -> None:
        with worker_daemon(mechanism) as daemon:
            daemon.ask(permit, NOBODY_HERE)
            before = children_of(daemon.server.pid)

            os.kill(daemon.server.pid, signal.SIGKILL)
            wait_for_end(*before)
            daemon.server.stop()
            daemon.start()

            assert daemon.ask(permit, NOBODY_HERE) in {b"OK", b"NO Invalid username"}
