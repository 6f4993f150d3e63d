"""What a process gives up, seen in child processes that do; and who the front may be."""

import grp
import os
import pwd
import re
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd import privileges
from pysaslauthd.errors import StartupError
from pysaslauthd.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_SYS_PTRACE,
    FALLBACK_USER,
    SHADOW_GROUP,
    USER,
    Identity,
    find_identity,
)
from tests.helpers.accounts import require_root
from tests.helpers.instance import is_alive
from tests.helpers.processes import wait_for
from tests.helpers.workers import child

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

NOBODY = 65534
STRANGER = Identity("stranger", 54321, 54322, (54323, 54324))
OWNER = pwd.struct_passwd(("stranger", "x", 54321, 54322, "", "/nonexistent", "/bin/false"))
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture
def as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


def told_by_child(work: Callable[[], str]) -> str:
    """Return what *work* returns in a child process of its own."""
    with child(lambda end: end.send(work().encode())) as (_, end):
        return end.recv(65536).decode()


def status_after(give_up: Callable[[], None]) -> dict[str, str]:
    """Return what /proc says of a child that has given up something."""

    def work() -> str:
        give_up()
        return Path("/proc/thread-self/status").read_text()

    lines = told_by_child(work).splitlines()
    return {name: " ".join(value.split()) for name, _, value in (x.partition(":") for x in lines)}


def mask(*capabilities: int) -> str:
    return f"{sum(1 << number for number in capabilities):016x}"


class TestBecomingAnother:
    @pytest.fixture
    def status(self, as_root: None) -> dict[str, str]:
        return status_after(lambda: privileges.become(STRANGER))

    def test_all_its_ids_are_the_others(self, status: dict[str, str]) -> None:
        assert status["Uid"] == " ".join(["54321"] * 4)
        assert status["Gid"] == " ".join(["54322"] * 4)
        assert status["Groups"] == "54323 54324"

    def test_it_has_no_capability_and_none_to_gain(self, status: dict[str, str]) -> None:
        assert [status[name] for name in CAPABILITIES] == [mask()] * 5
        assert status["NoNewPrivs"] == "1"

    @pytest.mark.usefixtures("as_root")
    def test_there_is_no_way_back(self) -> None:
        def work() -> str:
            privileges.become(STRANGER)
            with pytest.raises(PermissionError):
                os.setuid(0)
            with pytest.raises(PermissionError):
                os.setgid(0)
            with pytest.raises(PermissionError):
                os.setgroups([0])
            return "none"

        assert told_by_child(work) == "none"

    @pytest.mark.usefixtures("as_root")
    def test_its_files_below_proc_are_roots(self) -> None:
        def work() -> str:
            privileges.become(STRANGER)
            return str(Path("/proc/self/mem").stat().st_uid)

        assert told_by_child(work) == "0"


class TestKeepingSome:
    @pytest.mark.usefixtures("as_root")
    @pytest.mark.parametrize(
        "kept", [(), (CAP_DAC_READ_SEARCH,), (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE), (39, 1)]
    )
    def test_exactly_these_are_left(self, kept: tuple[int, ...]) -> None:
        status = status_after(lambda: privileges.keep_capabilities(kept))

        assert [status[name] for name in CAPABILITIES] == [
            *(mask(), mask(*kept), mask(*kept)),
            *(mask(*kept), mask()),
        ]
        assert status["NoNewPrivs"] == "1"

    @pytest.mark.usefixtures("as_root")
    def test_what_is_not_there_cannot_be_kept(self) -> None:
        def give_up() -> None:
            privileges.keep_capabilities(())
            privileges.keep_capabilities((CAP_DAC_READ_SEARCH,))

        assert status_after(give_up)["CapEff"] == mask()

    @pytest.mark.usefixtures("as_root")
    def test_who_has_none_has_nothing_to_give_up(self) -> None:
        def give_up() -> None:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            privileges.keep_capabilities((CAP_DAC_READ_SEARCH,))

        status = status_after(give_up)

        assert (status["CapEff"], status["CapPrm"]) == (mask(), mask())
        assert status["NoNewPrivs"] == "1"

    @pytest.mark.usefixtures("as_root")
    def test_one_that_may_read_all_files_may_write_none(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("hash")
        os.chown(secret, NOBODY, NOBODY)
        secret.chmod(0)

        def work() -> str:
            privileges.keep_capabilities((CAP_DAC_READ_SEARCH,))
            with pytest.raises(PermissionError):
                secret.write_text("another")
            return secret.read_text()

        assert told_by_child(work) == "hash"


def test_dumps_are_forbidden() -> None:
    def work() -> str:
        privileges.forbid_dumps()
        dumpable = privileges._libc.prctl(3, 0, 0, 0, 0)  # noqa: SLF001 (PR_GET_DUMPABLE)
        return f"{dumpable} {resource.getrlimit(resource.RLIMIT_CORE)}"

    assert told_by_child(work) == "0 (0, 0)"


def test_a_fault_of_the_system_is_an_exception() -> None:
    with pytest.raises(OSError, match="prctl -1: Invalid argument"):
        privileges._prctl(-1, 0)  # noqa: SLF001 (nothing public makes it fail)


class TestDyingWithTheParent:
    def test_who_has_a_parent_dies_with_it(self) -> None:
        def be_parent(end: socket.socket) -> None:
            parent = os.getpid()
            if os.fork() == 0:
                privileges.die_with(parent)
                end.send(b"%d" % os.getpid())
                signal.pause()
            signal.pause()

        with child(be_parent) as (pid, end):
            grandchild = int(end.recv(100))
            os.kill(pid, signal.SIGKILL)

            wait_for(lambda: not is_alive(grandchild), "its end")

    def test_who_has_lost_it_already_ends(self) -> None:
        with child(lambda _end: privileges.die_with(1)) as (pid, end):
            assert end.recv(100) == b""
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_who_adopts_orphans_becomes_their_parent() -> None:
    def adopt(end: socket.socket) -> None:
        privileges.adopt_orphans()
        adopter = os.getpid()
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.read(reader, 1)
                end.send(b"%d" % (os.getppid() == adopter))
            os._exit(0)
        os.waitpid(middle, 0)
        os.write(writer, b"x")
        os.wait()

    with child(adopt) as (_, end):
        assert end.recv(100) == b"1"


def test_a_name_is_shown_and_cut() -> None:
    def work() -> str:
        privileges.set_name("saslauthd-verifier")
        return Path("/proc/self/comm").read_text()

    assert told_by_child(work) == "saslauthd-verif\n"


@pytest.mark.parametrize("kept", [[], [5], [5, 9], [9, 5, 5], [3], [0, 1, 5], [900]])
def test_all_descriptors_but_the_standard_ones_and_some_are_closed(kept: list[int]) -> None:
    def be(end: socket.socket) -> None:
        result = os.dup2(end.fileno(), 1000, inheritable=False)
        for number in range(3, 12):
            os.dup2(0, number)
        os.dup2(0, 900)
        privileges.close_all_but([*kept, result])
        listed = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
        held = sorted(number for number in listed if is_open(number))
        socket.socket(fileno=result).send(repr(held).encode())

    with child(be) as (_, end):
        held = end.recv(1000).decode()

    assert held == repr(sorted({0, 1, 2, 1000, *kept}))


def is_open(number: int) -> bool:
    """Say whether a descriptor that was listed is not the listing's own."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class TestWhoTheFrontIs:
    """With the maps of a machine that has these users and groups."""

    @pytest.fixture(autouse=True)
    def _maps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        users = {
            "stranger": OWNER,
            "toor": pwd.struct_passwd(("toor", "x", 0, 0, "", "/", "/bin/sh")),
            "reader": pwd.struct_passwd(("reader", "x", 7, 42, "", "/", "/bin/sh")),
            FALLBACK_USER: pwd.struct_passwd((FALLBACK_USER, "x", 99, 99, "", "/", "/bin/sh")),
        }
        groups = [
            grp.struct_group((SHADOW_GROUP, "x", 42, ["stranger"])),
            grp.struct_group(("sasl", "x", 45, [])),
            grp.struct_group(("staff", "x", 50, ["stranger"])),
        ]
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
        monkeypatch.setattr(grp, "getgrnam", {g.gr_name: g for g in groups}.__getitem__)
        self.users, self.groups, self.monkeypatch = users, groups, monkeypatch

    def test_a_user_that_is_named_has_no_group_but_its_own(self) -> None:
        assert find_identity("stranger", []) == Identity("stranger", 54321, 54322, ())

    def test_the_backends_groups_are_added(self) -> None:
        assert find_identity("stranger", ["sasl"]) == Identity("stranger", 54321, 54322, (45,))

    def test_a_group_that_does_not_exist_is_left_out(self) -> None:
        assert find_identity("stranger", ["wheel"]) == Identity("stranger", 54321, 54322, ())

    def test_else_it_is_the_user_made_for_it(self) -> None:
        self.users[USER] = OWNER

        assert find_identity(None, []) == Identity("stranger", 54321, 54322, ())

    def test_without_one_it_is_nobody(self) -> None:
        assert find_identity(None, []) == Identity(FALLBACK_USER, 99, 99, ())

    def test_a_machine_without_any_of_them_is_refused(self) -> None:
        del self.users[FALLBACK_USER]

        with pytest.raises(StartupError, match="there is no user 'nobody': see --user"):
            find_identity(None, [])

    def test_an_unknown_user_is_refused(self) -> None:
        with pytest.raises(StartupError, match="there is no user 'eve': see --user"):
            find_identity("eve", [])

    def test_root_is_refused_by_any_name(self) -> None:
        with pytest.raises(StartupError, match="does not run as root"):
            find_identity("toor", [])

    def test_who_could_read_the_hashes_is_refused(self) -> None:
        with pytest.raises(StartupError, match="could read every hash") as refused:
            find_identity("reader", [])

        assert refused.value.lines[1] == (
            "give reader another primary group, or name another user with --user"
        )

    def test_where_there_is_no_such_group_nobody_is(self) -> None:
        self.monkeypatch.setattr(grp, "getgrnam", {}.__getitem__)

        assert find_identity("reader", []) == Identity("reader", 7, 42, ())

    def test_without_root_it_stays_who_it_is(self) -> None:
        self.monkeypatch.setattr(os, "geteuid", lambda: 54321)

        assert find_identity(None, ["sasl"]) is None
        assert find_identity("stranger", ["sasl"]) is None

    def test_without_root_nobody_becomes_another(self) -> None:
        self.monkeypatch.setattr(os, "geteuid", lambda: 1000)

        with pytest.raises(StartupError, match=re.escape("only root can become another user")):
            find_identity("stranger", [])
