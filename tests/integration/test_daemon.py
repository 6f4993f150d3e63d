"""The daemon as a process: how it starts, serves, reloads, survives, and leaves."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.accounts import require_root
from tests.helpers.activation import activate, passed_sockets
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
from tests.helpers.processes import accepts, wait_for

NAMES = "sasldb getpwent kerberos5 pam rimap shadow ldap httpform"
MECHANISMS = f"authentication mechanisms: {NAMES}\n\n"
OUTAGE = b""


@pytest.fixture
def place() -> Iterator[Instance]:
    with instance() as made:
        yield made


@pytest.fixture
def detached(place: Instance) -> Iterator[int]:
    """A daemon that has detached itself; its process id."""
    done = run(place.argv())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    pid = int((place.run / "saslauthd.pid").read_text())
    yield pid
    if is_alive(pid):
        end(pid)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


class TestInTheForeground:
    def test_it_answers(self, place: Instance) -> None:
        with place.running():
            assert place.ask() == b"OK"
            assert place.ask("wrong") == b"NO"
            assert place.ask(user="nobody") == b"NO"

    def test_its_files_are_the_c_daemons(self, place: Instance) -> None:
        with place.running():
            assert names_in(place.run) == {"mux", "saslauthd.pid.lock"}
            assert mode_of(place.mux) == 0o660

    def test_it_leaves_no_file_and_exits_with_0(self, place: Instance) -> None:
        with place.running() as server:
            code = server.stop()

        assert code == 0
        assert names_in(place.run) == set()

    def test_the_interrupt_key_ends_it_too(self, place: Instance) -> None:
        with place.running() as server:
            os.killpg(server.pid, signal.SIGINT)

            assert server.has_ended(within=5)
            assert server.stop() == 0

    def test_it_logs_in_the_c_daemons_words(self, place: Instance) -> None:
        with place.running("-V", "-n", "7") as server:
            place.ask()
            place.ask("wrong")
            server.stop()

            lines = [line.partition("] :")[2] for line in server.output().splitlines()]
        assert "num_procs  : 7" in lines
        assert f"mech_option: {place.database}" in lines
        assert f"run_path   : {place.run}" in lines
        assert "auth_mech  : sasldb" in lines
        assert f"listening on socket: {place.mux}" in lines
        assert "auth success: [user=joe] [service=imap] [realm=r] [mech=sasldb]" in lines
        assert (
            "auth failure: [user=joe] [service=imap] [realm=r] [mech=sasldb] [reason=Unknown]"
            in lines
        )
        assert f"socket removed: {place.mux}" in lines

    def test_debugging_prints_no_password(self, place: Instance) -> None:
        with place.running("-d") as server:
            place.ask("sesame-right")
            place.ask("sesame-wrong")
            place.ask("")
            server.stop()

            assert "sesame" not in server.output()

    def test_core_files_are_forbidden(self, place: Instance) -> None:
        with place.running() as server:
            for pid in (server.pid, *children_of(server.pid)):
                limits = Path(f"/proc/{pid}/limits").read_text()
                assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


class TestDetached:
    def test_the_parent_returns_when_it_serves(self, place: Instance, detached: int) -> None:
        assert place.ask() == b"OK"

    def test_its_files_are_the_c_daemons(self, place: Instance, detached: int) -> None:
        assert names_in(place.run) == {"mux", "saslauthd.pid"}
        assert mode_of(place.run / "saslauthd.pid") == 0o600

    def test_it_holds_no_terminal_and_no_session(
        self, place: Instance, detached: int, lacking: Callable[[str], NoReturn]
    ) -> None:
        require_root(lacking)  # the processes let nobody else look
        for pid in (detached, *children_of(detached)):
            held = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}  # noqa: PTH115
            assert held == {os.devnull}
            assert os.getsid(pid) == pid

    def test_it_leaves_no_file(self, place: Instance, detached: int) -> None:
        end(detached)

        assert names_in(place.run) == set()

    def test_a_second_instance_ends_with_code_2(self, place: Instance, detached: int) -> None:
        second = run(place.argv())

        assert second.returncode == 2
        assert "Cannot start saslauthd" in second.stderr
        assert "Another instance of saslauthd is currently running" in second.stderr
        assert place.ask() == b"OK"

    def test_a_second_instance_in_the_foreground_ends_too(
        self, place: Instance, detached: int
    ) -> None:
        second = run(place.argv("-f"))

        assert second.returncode == 2
        assert "Another instance of saslauthd is currently running" in second.stderr

    def test_a_failed_start_tells_why_and_exits_with_1(self, place: Instance) -> None:
        place.mux.write_text("no socket")

        done = run(place.argv())

        assert done.returncode == 1
        assert f"could not bind to socket: {place.mux}" in done.stderr
        assert "Cannot start saslauthd" in done.stderr
        assert names_in(place.run) == {"mux"}


class TestSurvival:
    def test_after_kill_9_it_starts_again(self, place: Instance, detached: int) -> None:
        end(detached, signal.SIGKILL)

        again = run(place.argv())

        assert again.returncode == 0, again.stderr
        assert place.ask() == b"OK"
        end(int((place.run / "saslauthd.pid").read_text()))

    def test_a_front_does_not_outlive_its_supervisor(self, place: Instance, detached: int) -> None:
        (front,) = children_of(detached)

        end(detached, signal.SIGKILL)

        wait_for(lambda: not is_alive(front), "end of the front")

    def test_a_front_that_dies_is_replaced_and_no_connection_refused(self, place: Instance) -> None:
        with place.running() as server:
            (front,) = children_of(server.pid)
            end(front, signal.SIGKILL)

            assert [place.ask() for _ in range(20)] == [b"OK"] * 20
            assert children_of(server.pid) != [front]

    def test_a_front_that_keeps_dying_is_replaced_ever_again(self, place: Instance) -> None:
        with place.running() as server:
            for _ in range(2):
                assert place.ask() == b"OK"
                (front,) = children_of(server.pid)
                end(front, signal.SIGKILL)

            assert place.ask() == b"OK"

    def test_a_stopped_front_is_killed_when_the_daemon_leaves(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text("deadline = 0.1\n")
        with place.running("--config", str(config)) as server:
            (front,) = children_of(server.pid)
            os.kill(front, signal.SIGSTOP)

            assert server.stop() == 0
            assert not is_alive(front)

    def test_silent_clients_delay_nobody(self, place: Instance) -> None:
        with place.running():
            silent = [socket.socket(socket.AF_UNIX) for _ in range(500)]
            for client in silent:
                client.connect(str(place.mux))

            assert [place.ask() for _ in range(20)] == [b"OK"] * 20
            for client in silent:
                client.close()

    def test_more_clients_than_descriptors_are_no_fault(self, place: Instance) -> None:
        argv = ["prlimit", "--nofile=600:600", *place.argv("-f")]
        with place.starting(argv) as server:
            server.wait_until(lambda: accepts(place.mux))
            silent = [socket.socket(socket.AF_UNIX) for _ in range(800)]
            for client in silent:
                client.connect(str(place.mux))

            assert [place.ask() for _ in range(20)] == [b"OK"] * 20
            assert server.output().count("too many open connections (at most 344)") == 1
            for client in silent:
                client.close()

    def test_started_without_standard_streams_it_serves(self, place: Instance) -> None:
        command = " ".join(place.argv())
        done = run(["sh", "-c", f"exec {command} <&- >&- 2>&-"])

        assert done.returncode == 0
        assert place.ask() == b"OK"
        end(int((place.run / "saslauthd.pid").read_text()))

    def test_a_log_that_nobody_reads_holds_nobody(self, place: Instance) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while os.write(writer, b"x" * 4096):
                pass
        os.set_blocking(writer, True)
        with subprocess.Popen(place.argv("-f"), stderr=writer, env=environment()) as process:
            wait_for(lambda: accepts(place.mux), "a socket")

            assert [place.ask("wrong") for _ in range(20)] == [b"NO"] * 20
            process.terminate()
            assert process.wait(timeout=10) == 0
        os.close(reader)
        os.close(writer)

    @pytest.mark.parametrize("number", [signal.SIGSEGV, 40])
    def test_any_signal_may_end_a_front(self, place: Instance, number: int) -> None:
        with place.running() as server:
            (front,) = children_of(server.pid)
            os.kill(front, number)
            wait_for(lambda: not is_alive(front), "end of the front")

            assert place.ask() == b"OK"

    def test_a_blocked_signal_is_none_of_ours(self, place: Instance) -> None:
        blocked = "import os, signal, sys; signal.pthread_sigmask(0, {15, 17});"
        argv = [sys.executable, "-c", f"{blocked} os.execv(sys.argv[1], sys.argv[1:])"]
        with place.starting([*argv, *place.argv("-f")]) as server:
            server.wait_until(lambda: accepts(place.mux))
            place.ask()
            (front,) = children_of(server.pid)
            end(front, signal.SIGKILL)

            assert place.ask() == b"OK"
            assert server.stop() == 0

    def test_a_reload_that_is_wanted_while_it_starts_is_not_forgotten(
        self, place: Instance
    ) -> None:
        early = "import os, signal, sys; signal.pthread_sigmask(0, {1}); os.kill(os.getpid(), 1);"
        argv = [sys.executable, "-c", f"{early} os.execv(sys.argv[1], sys.argv[1:])"]
        with place.starting([*argv, *place.argv("-f")]) as server:
            server.wait_until(lambda: "reloaded" in server.output())

            assert place.ask() == b"OK"

    def test_a_storm_of_signals_ends_with_the_last(self, place: Instance) -> None:
        with place.running() as server:
            (front,) = children_of(server.pid)
            os.kill(front, signal.SIGSTOP)
            for _ in range(500):
                os.kill(server.pid, signal.SIGHUP)
            os.kill(server.pid, signal.SIGTERM)
            os.kill(front, signal.SIGCONT)

            assert server.has_ended(within=5)
            assert "killing it" not in server.output()

    def test_the_alarm_signal_is_ignored(self, place: Instance) -> None:
        with place.running() as server:
            os.kill(server.pid, signal.SIGALRM)

            assert place.ask() == b"OK"

    def test_a_start_whose_parent_is_interrupted_goes_on(self, place: Instance) -> None:
        parent = subprocess.Popen(place.argv(), env=environment(), stderr=subprocess.DEVNULL)
        # Only the child locks the pid file: before that, a dead parent leaves nobody to go on.
        wait_for((place.run / "saslauthd.pid").exists, "a child")
        parent.kill()
        parent.wait(timeout=10)

        wait_for(lambda: accepts(place.mux), "a socket")
        assert place.ask() == b"OK"
        end(int((place.run / "saslauthd.pid").read_text()))


class TestTheDatabase:
    def test_a_change_shows_with_the_next_request(self, place: Instance) -> None:
        with place.running():
            for number in range(20):
                place.put("joe", f"new{number}")
                assert place.ask(f"new{number}") == b"OK"

    def test_a_vanished_database_is_an_outage_and_comes_back(self, place: Instance) -> None:
        with place.running():
            place.database.rename(place.directory / "away")
            gone = place.ask()
            (place.directory / "away").rename(place.database)

            assert gone == OUTAGE
            assert place.ask() == b"OK"

    def test_a_missing_database_does_not_keep_it_from_starting(self, place: Instance) -> None:
        place.database.rename(place.directory / "away")

        with place.running() as server:
            assert place.ask() == OUTAGE
            assert f"{place.database}: " in server.output()
            (place.directory / "away").rename(place.database)
            assert place.ask() == b"OK"

    def test_a_corrupt_database_is_an_outage(self, place: Instance) -> None:
        place.database.write_bytes(b"garbage" * 1000)
        os.utime(place.database, (0, 0))

        with place.running():
            assert place.ask() == OUTAGE

    def test_an_outage_is_told_as_no_where_so_set(self, place: Instance) -> None:
        place.database.unlink()

        with place.running("--on-outage", "no"):
            assert place.ask() == b"NO internal mechanism failure"


class TestReloading:
    def test_hup_takes_new_settings_and_refuses_nobody(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text("password_bytes = 10\n")
        with place.running("--config", str(config)) as server:
            before = place.ask("longer than ten")
            config.write_text("password_bytes = 20\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(lambda: "reloaded" in server.output())

            assert before == b"NO "
            assert place.ask("longer than ten") == b"NO"
            assert place.ask() == b"OK"

    def test_verbose_can_be_switched_on(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text("")
        with place.running("--config", str(config)) as server:
            config.write_text("verbose = true\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(lambda: "reloaded" in server.output())
            place.ask()

            assert "auth success: " in server.output()

    def test_a_value_that_cannot_be_handed_on_is_refused_at_the_start(
        self, place: Instance
    ) -> None:
        done = run([*place.argv("-f"), "-O", os.fsdecode(b"/tmp/db\xff")])

        assert done.returncode == 1
        assert "a setting has a value that cannot be used" in done.stderr

    def test_a_bad_file_changes_nothing(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text("")
        with place.running("--config", str(config)) as server:
            config.write_text("typo = 1\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(lambda: "not reloaded" in server.output())

            assert f"{config}: Object contains unknown field `typo`" in server.output()
            assert place.ask() == b"OK"


TOO_LONG = "the settings are too long: at most 65536 bytes in all"


def long_configuration() -> str:
    """Return settings that do not fit into a packet."""
    services = ", ".join(f"service-{number} = 1.5" for number in range(4000))
    return f"service_deadlines = {{ {services} }}\n"


class TestTooManySettings:
    def test_they_are_refused_at_the_start(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text(long_configuration())

        done = run([*place.argv("-f"), "--config", str(config)])

        assert done.returncode == 1
        assert TOO_LONG in done.stderr

    def test_they_change_nothing_and_the_next_ones_count(self, place: Instance) -> None:
        config = place.directory / "c.toml"
        config.write_text("")
        with place.running("--config", str(config)) as server:
            config.write_text(long_configuration())
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(lambda: f"not reloaded: {TOO_LONG}" in server.output())
            meanwhile = place.ask()
            config.write_text("password_bytes = 1\n")
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(lambda: ":reloaded" in server.output())

            assert (meanwhile, place.ask()) == (b"OK", b"NO ")


class TestSockets:
    def test_more_sockets_have_the_same_door(self, place: Instance) -> None:
        more = place.directory / "chroot-mux"

        with place.running("--mux", str(more)) as server:
            server.wait_until(lambda: accepts(more))
            assert ask(more, "joe", "pw", "r") == b"OK"
            assert place.ask() == b"OK"
        assert not more.exists()

    def test_a_socket_in_a_closed_directory_is_open_to_its_group(self, place: Instance) -> None:
        place.run.chmod(0o710)

        with place.running():
            assert mode_of(place.mux) == 0o777

    def test_the_mode_can_be_set(self, place: Instance) -> None:
        with place.running("--socket-mode", "600"):
            assert mode_of(place.mux) == 0o600

    def test_a_name_too_long_is_a_clear_error(self, place: Instance) -> None:
        deep = place.directory / ("x" * 100)

        done = run(place.argv("-f", "-m", str(deep)))

        assert done.returncode == 1
        assert "bytes, and a unix socket's may have 107" in done.stderr

    def test_a_directory_that_others_can_write_is_refused(self, place: Instance) -> None:
        place.run.chmod(0o777)

        done = run(place.argv("-f"))

        assert done.returncode == 1
        assert f"run: chmod go-w {place.run}" in done.stderr


@pytest.fixture
def manager(place: Instance) -> Iterator[socket.socket]:
    """A service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(place.directory / "notify"))
        found.settimeout(10)
        yield found


def heard(manager: socket.socket, word: str) -> str:
    """Return the first message that begins with *word*."""
    while not (message := manager.recv(1000).decode()).startswith(word):
        pass
    return message


class TestUnderSystemd:
    def test_each_state_is_told(self, place: Instance, manager: socket.socket) -> None:
        with place.running(env={"NOTIFY_SOCKET": str(place.directory / "notify")}) as server:
            ready = heard(manager, "READY")
            os.kill(server.pid, signal.SIGHUP)
            heard(manager, "RELOADING=1\nMONOTONIC_USEC=")
            heard(manager, "READY")
            server.stop()

            assert ready == f"READY=1\nMAINPID={server.pid}"
            assert heard(manager, "STOPPING")

    def test_a_reload_that_a_front_does_not_survive_ends(
        self, place: Instance, manager: socket.socket
    ) -> None:
        with place.running(env={"NOTIFY_SOCKET": str(place.directory / "notify")}) as server:
            heard(manager, "READY")
            (front,) = children_of(server.pid)
            os.kill(front, signal.SIGSTOP)
            os.kill(server.pid, signal.SIGHUP)
            heard(manager, "RELOADING")
            os.kill(front, signal.SIGKILL)

            assert heard(manager, "READY")

    def test_the_watchdog_is_fed(self, place: Instance, manager: socket.socket) -> None:
        variables = {
            "NOTIFY_SOCKET": str(place.directory / "notify"),
            "WATCHDOG_USEC": "30000000",
        }
        with place.running(env=variables):
            assert heard(manager, "WATCHDOG=1")

    def test_passed_sockets_are_served_and_left_in_place(self, place: Instance) -> None:
        with passed_sockets(place, "mux:mux", 2) as paths:
            assert [ask(path, "joe", "pw", "r") for path in paths] == [b"OK", b"OK"]
            assert not place.mux.exists()
        assert all(path.is_socket() for path in paths)

    def test_a_socket_for_a_later_release_is_refused(self, place: Instance) -> None:
        listener = place.directory / "submission"
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(str(listener))
            found.listen()
            done = activate(place, "submission", [found.fileno()])

        assert done.wait(timeout=10) == 1
        assert b"this release serves mux and dovecot" in (place.directory / "output").read_bytes()


class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("flags", "code", "texts"),
        [
            (
                ["-h"],
                0,
                [
                    "usage: ",
                    "option information:",
                    MECHANISMS,
                ],
            ),
            (["--help"], 0, ["usage: "]),
            (["-v"], 0, [MECHANISMS]),
            ([], 0, [":no authentication mechanism specified", "usage: "]),
            (["-x"], 0, ["invalid option -- 'x'", "usage: "]),
            (["-a"], 0, ["option requires an argument -- 'a'", "usage: "]),
            (["-a", "sasldb", "-a", "sasldb"], 0, ["usage: "]),
            (["-n", "-1", "-v"], 1, [":invalid number of worker processes defined\n"]),
            (["-v", "-n", "-1"], 0, [MECHANISMS]),
            (["-a", "sasldb", "-s", "-5"], 1, [":cache size must be positive and non zero\n"]),
            (["-a", "sasldb", "-t", "0"], 1, [":cache timeout must be positive\n"]),
            (["-a", "sasldb", "-m", "x"], 1, [":-m requires an absolute pathname\n"]),
            (["-a", "sasldb", "-m", "/nonexistent/x"], 1, [":can not mkdir: /nonexistent/x\n"]),
            (["-a", "sasldb", "-O", "db"], 1, ["an absolute path, not 'db'"]),
            (["-a", "foo"], 1, [":unknown authentication mechanism: foo\n"]),
            (["-a", "sasldb", "--config", "/none"], 1, ["could not read the configuration: /none"]),
        ],
        ids=str,
    )
    def test_a_command_line_has_its_words_and_exit_code(
        self, flags: list[str], code: int, texts: list[str]
    ) -> None:
        done = run([*COMMAND, *flags])

        assert done.returncode == code
        assert done.stdout == ""
        assert [text for text in texts if text not in done.stderr] == []

    def test_a_mechanisms_case_does_not_matter(self, place: Instance) -> None:
        argv = [word if word != "sasldb" else "SASLDB" for word in place.argv("-f")]

        with place.starting(argv) as server:
            server.wait_until(lambda: accepts(place.mux))
            assert place.ask() == b"OK"


def as_pid_1(argv: list[str]) -> list[str]:
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *argv]


@pytest.fixture
def can_unshare() -> None:
    if run(as_pid_1(["true"])).returncode != 0:
        pytest.skip("needs a process namespace of its own (root)")


@pytest.mark.usefixtures("can_unshare")
class TestAsPid1:
    def test_it_serves_and_leaves_when_told(self, place: Instance) -> None:
        with place.starting(as_pid_1(place.argv("-f"))) as server:
            server.wait_until(lambda: accepts(place.mux))
            assert place.ask() == b"OK"

            (first,) = children_of(server.pid)
            end(first)
            wait_for(lambda: names_in(place.run) == set(), "an empty run directory")
