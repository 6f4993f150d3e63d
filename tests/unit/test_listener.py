import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd.errors import StartupError
from pysaslauthd.server import listener
from pysaslauthd.server.listener import LONGEST_PATH, listen, listen_tcp
from tests.helpers.accounts import require_root
from tests.helpers.processes import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory("ls-") as path:
        yield path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def problem_at(path: Path, mode: int | None = None, group: str | None = None) -> str:
    with pytest.raises(StartupError) as caught:
        listen(str(path), mode, group)
    return str(caught.value)


def test_a_socket_in_an_open_directory_is_for_owner_and_group(directory: Path) -> None:
    with listen(str(directory / "mux"), None, None):
        assert mode_of(directory / "mux") == 0o660


def test_a_socket_in_a_closed_directory_is_for_all_who_get_there(directory: Path) -> None:
    directory.chmod(0o710)

    with listen(str(directory / "mux"), None, None):
        assert mode_of(directory / "mux") == 0o777


def test_the_mode_is_a_setting(directory: Path) -> None:
    with listen(str(directory / "mux"), 0o600, None):
        assert mode_of(directory / "mux") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to groups")
def test_the_group_is_the_directorys(directory: Path) -> None:
    os.chown(directory, 0, 1)

    with listen(str(directory / "mux"), None, None):
        assert (directory / "mux").lstat().st_gid == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to groups")
def test_the_group_is_a_setting(directory: Path) -> None:
    with listen(str(directory / "mux"), None, "daemon"):
        assert (directory / "mux").lstat().st_gid == 1


def test_an_unknown_group_is_named(directory: Path) -> None:
    assert "no group 'nosuchgroup'" in problem_at(directory / "mux", group="nosuchgroup")


def test_a_stale_socket_is_replaced(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "mux"))

    with listen(str(directory / "mux"), None, None), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "mux"))


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the one before to leave."""
    monkeypatch.setattr(listener, "LEAVING_SECONDS", 0.0)


def test_a_socket_whose_server_leaves_is_taken_over(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as leaving:
        leaving.bind(str(directory / "mux"))
        leaving.listen()
        monkeypatch.setattr(time, "sleep", lambda _: leaving.close())

        with listen(str(directory / "mux"), None, None), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(directory / "mux"))


@pytest.mark.usefixtures("no_patience")
def test_a_socket_that_is_served_is_left_alone(directory: Path) -> None:
    with listen(str(directory / "mux"), None, None):
        assert "another process listens there" in problem_at(directory / "mux")


@pytest.mark.usefixtures("no_patience")
def test_a_socket_whose_server_is_busy_is_left_alone(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(directory / "mux"))
        busy.listen(0)
        first.connect(str(directory / "mux"))

        assert "another process listens there" in problem_at(directory / "mux")


def test_a_file_that_is_no_socket_is_left_alone(directory: Path) -> None:
    (directory / "mux").write_text("precious")

    assert "is no socket" in problem_at(directory / "mux")
    assert (directory / "mux").read_text() == "precious"


def test_the_longest_name_is_taken(directory: Path) -> None:
    path = directory / ("x" * (LONGEST_PATH - len(str(directory)) - 1))

    with listen(str(path), None, None):
        assert len(str(path)) == LONGEST_PATH


def test_a_name_too_long_is_counted(directory: Path) -> None:
    path = directory / ("x" * (LONGEST_PATH - len(str(directory))))

    assert "has 108 bytes" in problem_at(path)


def test_a_missing_directory_is_named(directory: Path) -> None:
    assert f"{directory}/no: No such file or directory" in problem_at(directory / "no" / "mux")


def test_a_directory_that_others_can_write_is_refused(directory: Path) -> None:
    directory.chmod(0o1777)

    assert f"chmod go-w {directory}" in problem_at(directory / "mux")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files to every group")
def test_a_socket_that_cannot_be_given_away_is_not_left_behind(directory: Path) -> None:
    problem = problem_at(directory / "mux", group="daemon")

    assert "Operation not permitted" in problem
    assert not (directory / "mux").exists()


def test_the_umask_is_restored(directory: Path) -> None:
    before = os.umask(0o027)
    try:
        with listen(str(directory / "mux"), None, None):
            assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_socket_has_the_owner_that_is_wished_for(
    directory: Path, lacking: Callable[[str], NoReturn]
) -> None:
    require_root(lacking)

    with listen(str(directory / "mux"), None, None, "daemon"):
        assert (directory / "mux").owner() == "daemon"


def test_an_owner_who_does_not_exist_is_a_clear_error(directory: Path) -> None:
    with pytest.raises(StartupError, match="there is no user 'nobody-here'"):
        listen(str(directory / "mux"), None, None, "nobody-here")


@pytest.mark.parametrize("place", ["inet:127.0.0.1:0", "inet:[::1]:0"])
def test_a_place_in_the_network_is_listened_at(place: str) -> None:
    with listen_tcp(place) as found, socket.socket(found.family) as client:
        client.connect(found.getsockname())

        assert not found.getblocking()


@pytest.mark.parametrize(
    "place", ["inet:", "inet:25", "inet:localhost:25", "inet:127.0.0.1:x", "inet:::1"]
)
def test_what_is_no_place_is_a_clear_error(place: str) -> None:
    with pytest.raises(StartupError, match="not inet:ADDRESS:PORT"):
        listen_tcp(place)


@pytest.mark.parametrize("place", ["inet:192.0.2.1:0", "inet:127.0.0.1:65536"])
def test_a_place_that_cannot_be_listened_at_is_a_clear_error(place: str) -> None:
    with pytest.raises(StartupError, match="could not listen at"):
        listen_tcp(place)
