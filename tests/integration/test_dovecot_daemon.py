"""The daemon with both doors: the mux protocol, and Dovecot's."""

import base64
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.activation import passed_sockets
from tests.helpers.instance import COMMAND, SECONDS, Instance, children_of, end, instance, run
from tests.helpers.processes import accepts, free_port, short_directory, wait_for
from tests.helpers.stores import only_root

RIGHT, WRONG = (base64.b64encode(b"\0joe\0" + word).decode() for word in (b"pw", b"no"))


@pytest.fixture
def place() -> Iterator[Instance]:
    with instance() as found:
        yield found


class MailServer:
    """A connection like Postfix's: greeted, and one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")
        self.mechanisms = []
        while (line := self._line()) not in {"DONE", ""}:
            if line.startswith("MECH\t"):
                self.mechanisms.append(line.split("\t")[1])
        connection.sendall(b"VERSION\t1\t0\nCPID\t1\n")

    def ask(self, response: str = RIGHT, mechanism: str = "PLAIN") -> str:
        """Return the answer, "" where the server hangs up instead."""
        about = "service=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.7\tsecured"
        try:
            self.socket.sendall(f"AUTH\t1\t{mechanism}\t{about}\tresp={response}\n".encode())
            return self._line()
        except (BrokenPipeError, ConnectionResetError):
            return ""

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def _line(self) -> str:
        return self._lines.readline().decode().removesuffix("\n")


@contextmanager
def connected(door: Path | int) -> Iterator[MailServer]:
    """Connect to the socket at a path, or to a port of this machine."""
    is_tcp = isinstance(door, int)
    with socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", door) if is_tcp else str(door))
        server = MailServer(connection)
        yield server
        server.close()


def ask(door: Path | int, response: str = RIGHT) -> str:
    with connected(door) as server:
        return server.ask(response)


def configure(place: Instance, *lines: str) -> str:
    """Write the configuration file; return what names it."""
    file = place.directory / "toml"
    file.write_text("\n".join(('local_domain = "r"', "failure_delay = 0.0", *lines)))
    return f"--config={file}"


def test_both_doors_have_the_same_answers(place: Instance) -> None:
    auth = place.directory / "auth"

    with place.running(configure(place), "--dovecot", str(auth)):
        assert place.ask() == b"OK"
        assert ask(auth) == "OK\t1\tuser=joe"
        assert ask(auth, WRONG) == "FAIL\t1\tuser=joe"

    assert not auth.exists()


def test_there_may_be_several_doors_and_one_in_the_network(place: Instance) -> None:
    port = free_port()
    with short_directory("ch-") as chroot:
        doors = [str(place.directory / "auth"), str(chroot / "auth"), f"inet:127.0.0.1:{port}"]

        with place.running(configure(place), *(f"--dovecot={door}" for door in doors)):
            answers = [ask(door) for door in (place.directory / "auth", chroot / "auth", port)]

    assert answers == ["OK\t1\tuser=joe"] * 3


def test_the_log_says_who_asked(place: Instance) -> None:
    auth = place.directory / "auth"

    with place.running(configure(place), f"--dovecot={auth}") as server:
        ask(auth, WRONG)

    line = "[user=joe] [service=smtp] [realm=] [remote=192.0.2.7] [local=127.0.0.1] [sasl=PLAIN]"
    assert f"auth failure: {line}" in server.output()
    assert WRONG not in server.output()


def test_an_outage_hangs_up_and_is_over_without_a_restart(place: Instance) -> None:
    auth = place.directory / "auth"
    elsewhere = place.database.with_name("elsewhere")

    with place.running(configure(place), f"--dovecot={auth}"):
        with connected(auth) as server:
            place.database.rename(elsewhere)
            during = server.ask(), server.ask()
        elsewhere.rename(place.database)

        assert during == ("", "")
        assert ask(auth) == "OK\t1\tuser=joe"


def test_a_front_that_dies_costs_a_connection_and_no_socket(place: Instance) -> None:
    auth = place.directory / "auth"

    with place.running(configure(place), f"--dovecot={auth}") as server:
        inode = auth.stat().st_ino
        with connected(auth) as client:
            end(children_of(server.pid)[0], signal.SIGKILL)
            meanwhile = client.ask()
        after = ask(auth)

        assert (meanwhile, after) == ("", "OK\t1\tuser=joe")
        assert auth.stat().st_ino == inode


def test_new_settings_count_at_both_doors(place: Instance) -> None:
    auth = place.directory / "auth"

    with (
        place.running(configure(place), f"--dovecot={auth}") as server,
        connected(auth) as early,
    ):
        configure(place, 'dovecot_mechanisms = ["PLAIN"]', "login_bytes = 2")
        server_reload(server.pid)
        wait_for(lambda: "reloaded" in server.output(), "the reload")

        assert "SCRAM-SHA-256" in early.mechanisms
        assert early.ask() == ""
        with connected(auth) as late:
            assert late.mechanisms == ["PLAIN"]
            assert late.ask() == "OK\t1\tuser=joe"
        assert place.ask() == b"NO "


def server_reload(pid: int) -> None:
    subprocess.run(["kill", "-HUP", str(pid)], check=True)


def test_a_mail_server_that_stays_is_served_by_the_new_settings(place: Instance) -> None:
    auth = place.directory / "auth"

    with (
        place.running(configure(place), f"--dovecot={auth}") as server,
        connected(auth) as client,
    ):
        before = client.ask()
        configure(place, "dovecot_secured_only = true")
        server_reload(server.pid)
        wait_for(lambda: "reloaded" in server.output(), "the reload")

        assert before == client.ask() == "OK\t1\tuser=joe"


def test_settings_without_a_mechanism_are_refused(place: Instance) -> None:
    config = configure(place, "dovecot_mechanisms = []")

    done = run(place.argv("-f", config, f"--dovecot={place.directory / 'auth'}"))

    assert done.returncode == 1
    assert "Postfix does not start without any" in done.stderr


def test_mechanisms_that_the_backend_cannot_complete_are_named(place: Instance) -> None:
    auth = place.directory / "auth"
    config = configure(place, 'dovecot_mechanisms = ["SCRAM-SHA-256", "PLAIN"]')
    argv = [*COMMAND, "-a", "rimap", "-O", "127.0.0.1", "-m", str(place.run), "-f"]

    with place.starting([*argv, config, f"--dovecot={auth}"]) as server:
        server.wait_until(lambda: accepts(auth))
        with connected(auth) as client:
            assert client.mechanisms == ["PLAIN"]

        assert "the backend rimap cannot complete SCRAM-SHA-256: not offered" in server.output()


def test_the_mode_of_a_socket_is_what_is_set(place: Instance) -> None:
    auth = place.directory / "auth"

    with place.running(f"--dovecot={auth}", "--socket-mode=600"):
        assert auth.stat().st_mode & 0o777 == 0o600


def is_told_of_root(place: Instance, *flags: str) -> bool:
    """Say whether the start warns of a socket that root alone can reach."""
    auth = place.directory / "auth"
    with place.running(f"--dovecot={auth}", *flags) as server:
        server.stop()
        return f"{auth} is for root alone: name the mail server's group" in server.output()


@only_root
def test_a_socket_that_no_mail_server_can_reach_is_told_of(place: Instance) -> None:
    assert is_told_of_root(place)


@only_root
@pytest.mark.parametrize(
    "flag", ["--socket-mode=666", "--socket-group=mail", "--socket-owner=mail"]
)
def test_a_socket_that_a_mail_server_can_reach_is_not(place: Instance, flag: str) -> None:
    assert not is_told_of_root(place, flag)


def test_a_socket_from_systemd_has_its_door_by_its_name(place: Instance) -> None:
    with passed_sockets(place, "mux:dovecot", 2, configure(place)) as (_, auth):
        assert ask(auth) == "OK\t1\tuser=joe"
    assert auth.is_socket()


def test_the_daemon_leaves_while_mail_servers_are_connected(place: Instance) -> None:
    auth = place.directory / "auth"

    with place.running(configure(place), f"--dovecot={auth}") as server, connected(auth) as client:
        assert server.stop() == 0
        assert client.ask() == ""
        assert not accepts(auth)
