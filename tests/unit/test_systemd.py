import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pysaslauthd import systemd
from pysaslauthd.errors import StartupError
from pysaslauthd.server.listener import Listeners

Pass = Callable[..., None]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pass]:
    """Say in the environment that sockets were passed, from the first one's descriptor on."""
    opened: list[socket.socket] = []

    def pass_sockets(*sockets: socket.socket, names: str, pid: int | None = None) -> None:
        # A block of descriptors, as systemd makes it, anywhere but at 3: pytest has that.
        base = max(s.fileno() for s in sockets) + 50
        for offset, found in enumerate(sockets):
            os.dup2(found.fileno(), base + offset)
            opened.append(found)
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", base)
        monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(len(sockets)))
        monkeypatch.setenv("LISTEN_FDNAMES", names)

    yield pass_sockets
    for found in opened:
        found.close()


def listening(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    found.listen()
    return found


def test_without_systemd_nothing_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)

    assert systemd.inherited_listeners() == Listeners()


def test_a_name_may_repeat(passed: Pass, tmp_path: Path) -> None:
    passed(listening(tmp_path / "a"), listening(tmp_path / "b"), names="mux:mux")

    found = systemd.inherited_listeners().mux

    assert [s.getsockname() for s in found] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert not any(s.get_inheritable() or s.getblocking() for s in found)
    for each in found:
        each.close()


def test_a_name_says_what_is_spoken(passed: Pass, tmp_path: Path) -> None:
    passed(listening(tmp_path / "a"), listening(tmp_path / "b"), names="dovecot:mux")

    found = systemd.inherited_listeners()

    assert [s.getsockname() for s in found.dovecot] == [f"{tmp_path}/a"]
    assert [s.getsockname() for s in found.mux] == [f"{tmp_path}/b"]
    for each in found.all:
        each.close()


def test_sockets_for_another_process_are_not_ours(passed: Pass, tmp_path: Path) -> None:
    passed(listening(tmp_path / "a"), names="mux", pid=1)

    assert systemd.inherited_listeners() == Listeners()


def test_the_environment_is_cleaned(passed: Pass, tmp_path: Path) -> None:
    passed(listening(tmp_path / "a"), names="mux")

    for found in systemd.inherited_listeners().all:
        found.close()

    assert not [name for name in os.environ if name.startswith("LISTEN_")]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("submission", "this release serves mux and dovecot"),
        ("metrics", "this release serves mux and dovecot"),
        ("pysaslauthd.socket", "set FileDescriptorName="),
    ],
)
def test_a_socket_that_nobody_would_serve_is_an_error(
    passed: Pass, tmp_path: Path, name: str, problem: str
) -> None:
    passed(listening(tmp_path / "a"), names=name)

    with pytest.raises(StartupError, match=problem):
        systemd.inherited_listeners()


def test_a_socket_that_does_not_listen_is_an_error(passed: Pass) -> None:
    passed(socket.socket(socket.AF_UNIX), names="mux")

    with pytest.raises(StartupError, match="no listening unix stream socket"):
        systemd.inherited_listeners()


def test_a_descriptor_that_is_no_socket_is_an_error(
    passed: Pass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed(listening(tmp_path / "a"), names="mux")
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", file.fileno())

        with pytest.raises(StartupError, match="from systemd"):
            systemd.inherited_listeners()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield end


def test_ready_names_the_main_process(manager: socket.socket) -> None:
    systemd.Notifier().ready()

    assert manager.recv(100).decode() == f"READY=1\nMAINPID={os.getpid()}"


def test_reloading_tells_its_moment(manager: socket.socket) -> None:
    systemd.Notifier().reloading()

    assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_stopping_is_told(manager: socket.socket) -> None:
    systemd.Notifier().stopping()

    assert manager.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_fed_where_there_is_one(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")

    systemd.Notifier().alive()

    assert manager.recv(100) == b"WATCHDOG=1"


def test_without_a_watchdog_nothing_is_said(manager: socket.socket) -> None:
    notifier = systemd.Notifier()

    notifier.alive()
    notifier.stopping()

    assert manager.recv(100) == b"STOPPING=1"


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0notify-{os.getpid()}")
        end.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@notify-{os.getpid()}")

        systemd.Notifier().stopping()

        assert end.recv(100) == b"STOPPING=1"


def test_an_at_sign_inside_an_address_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "inst@1"))
        end.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "inst@1"))

        systemd.Notifier().stopping()

        assert end.recv(100) == b"STOPPING=1"


def test_a_manager_that_has_gone_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    systemd.Notifier().ready()
