import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pysaslauthd import rundir
from pysaslauthd.errors import StartupError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives directories away")


@pytest.fixture(autouse=True)
def same_directory_afterwards() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


def test_a_missing_directory_is_made_and_entered(tmp_path: Path) -> None:
    rundir.prepare(str(tmp_path / "run"))

    assert Path.cwd() == tmp_path / "run"


def test_only_one_level_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError) as caught:
        rundir.prepare(str(tmp_path / "a" / "b"))

    assert caught.value.lines == (
        f"can not mkdir: {tmp_path}/a/b",
        "Check to make sure the parent directory exists and is",
        "writeable by the user this process runs as.",
    )


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777], ids=oct)
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)

    with pytest.raises(StartupError, match=f"chmod go-w {tmp_path}"):
        rundir.prepare(str(tmp_path))


@root_only
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 1, 1)

    with pytest.raises(StartupError, match=f"chown 0 {tmp_path}"):
        rundir.prepare(str(tmp_path))


def test_a_link_to_nothing_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "nothing")

    with pytest.raises(StartupError, match="could not chdir to"):
        rundir.prepare(str(tmp_path / "run"))


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")

    with pytest.raises(StartupError, match=r"could not chdir to: .*\nchdir: Not a directory"):
        rundir.prepare(str(tmp_path / "run"))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have another process hold the lock on *path*, as a C daemon would."""
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def test_a_second_instance_ends_with_code_2(tmp_path: Path) -> None:
    with held(tmp_path / "saslauthd.pid"), pytest.raises(StartupError) as caught:
        rundir.lock_pid_file(str(tmp_path))

    assert caught.value.status == 2
    assert caught.value.lines == (
        f"could not lock pid file {tmp_path}/saslauthd.pid: Resource temporarily unavailable",
        "Another instance of saslauthd is currently running",
    )


def test_a_second_instance_that_starts_meanwhile_ends_with_code_1(tmp_path: Path) -> None:
    with held(tmp_path / "saslauthd.pid.lock"), pytest.raises(StartupError) as caught:
        rundir.lock_startup(str(tmp_path))

    assert caught.value.status == 1
    assert caught.value.lines[0] == f"could not lock pid lock file: {tmp_path}/saslauthd.pid.lock"
    assert caught.value.lines[1] == "fcntl: Resource temporarily unavailable"


def test_a_stale_pid_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "saslauthd.pid").write_text("99999999\n")

    lock = rundir.lock_pid_file(str(tmp_path))
    lock.write("7\n")

    assert (tmp_path / "saslauthd.pid").read_text() == "7\n"
    lock.release()


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    rundir.lock_startup(str(tmp_path)).release()

    assert list(tmp_path.iterdir()) == []


def test_a_lock_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    rundir.lock_pid_file(str(tmp_path)).release()

    rundir.lock_pid_file(str(tmp_path)).release()


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saslauthd.pid").symlink_to("/etc/passwd")

    with pytest.raises(StartupError, match="could not open pid file"):
        rundir.lock_pid_file(str(tmp_path))


def test_an_unusable_lock_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "saslauthd.pid.lock").mkdir()

    with pytest.raises(StartupError, match="could not open pid lock file"):
        rundir.lock_startup(str(tmp_path))


def test_a_lock_file_that_its_owner_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_lock = fcntl.lockf

    def lock_as_the_owner_leaves(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "lockf", real_lock)
        (tmp_path / "saslauthd.pid").unlink()
        real_lock(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", lock_as_the_owner_leaves)
    lock = rundir.lock_pid_file(str(tmp_path))
    lock.write("7\n")

    assert (tmp_path / "saslauthd.pid").read_text() == "7\n"
    lock.release()
