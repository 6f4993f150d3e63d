import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pysaslauthd.errors import StoreError
from pysaslauthd.stores import berkeley_hash, replace, sasldb
from pysaslauthd.stores.records import Records
from tests.helpers.stores import ANN, BOB, only_root, setting


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sasldb2")


@pytest.fixture
def berkeley(path: str) -> str:
    """Return the path of a Berkeley DB file with ann in it."""
    Path(path).write_bytes(berkeley_hash.build({ANN: b"one"}))
    return path


EVE = sasldb.key(b"eve", b"example.org")


def in_place(path: str, records: Records) -> None:
    """Write as libdb does: into the file that is there."""
    Path(path).write_bytes(berkeley_hash.build(records))


@pytest.mark.parametrize(
    ("content", "holder"),
    [pytest.param("4242\n", "process 4242", id="named"), pytest.param("", "another", id="unnamed")],
)
def test_a_lock_that_is_held_too_long_is_named(
    berkeley: str, content: str, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "LOCK_PATIENCE", 0.02)
    with Path(berkeley + ".lock").open("w") as lock:
        lock.write(content)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(StoreError, match=rf"{holder}.* holds the lock file .*sasldb2\.lock"):
            sasldb.edit(berkeley, setting(BOB, b"two"))


def test_what_another_program_writes_before_the_rename_is_kept(berkeley: str) -> None:
    def change(records: Records) -> None:
        if records == {ANN: b"one"}:
            in_place(berkeley, {ANN: b"changed by others"})
        records[BOB] = b"two"

    sasldb.edit(berkeley, change)

    assert sasldb.load(berkeley) == {ANN: b"changed by others", BOB: b"two"}


@only_root
def test_what_another_program_writes_after_the_rename_is_kept(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def change(records: Records) -> None:
        records[BOB] = b"two"
        opened.append(os.open(berkeley, os.O_RDWR))

    def others_write(seconds: float) -> None:
        for descriptor in opened:
            os.pwrite(descriptor, berkeley_hash.build({EVE: b"late"}), 0)
            os.close(descriptor)
        opened.clear()

    # It polls until nobody has the replaced file open: they write at the first look.
    monkeypatch.setattr(time, "sleep", others_write)
    sasldb.edit(berkeley, change)

    assert sasldb.load(berkeley) == {BOB: b"two", EVE: b"late"}


def test_what_is_written_to_a_lost_file_and_cannot_be_read_is_told(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "WRITER_PATIENCE", 0.0)
    opened = []

    def change(records: Records) -> None:
        records[BOB] = b"two"
        opened.append(os.open(berkeley, os.O_RDWR))

    rename = Path.replace

    def rename_and_write(self: Path, target: str) -> Path:
        result = rename(self, target)
        os.pwrite(opened[0], b"half a page" * 99, 0)
        return result

    monkeypatch.setattr(Path, "replace", rename_and_write)
    with pytest.raises(StoreError, match="another program wrote the file at the same moment"):
        sasldb.edit(berkeley, change)

    os.close(opened[0])
    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}


def test_a_file_that_others_never_stop_writing_is_given_up(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasldb, "EDIT_TRIES", 2)
    values = iter([b"1", b"2"])

    def change(records: Records) -> None:
        in_place(berkeley, {ANN: next(values)})
        records[BOB] = b"two"

    with pytest.raises(StoreError, match="others keep writing it"):
        sasldb.edit(berkeley, change)

    assert sasldb.load(berkeley) == {ANN: b"2"}


def test_what_another_program_writes_during_the_write_is_kept(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    others = [{ANN: b"changed by others"}]

    def fsync_while_others_write(descriptor: int) -> None:
        fsync(descriptor)
        while others:
            in_place(berkeley, others.pop())

    monkeypatch.setattr(os, "fsync", fsync_while_others_write)
    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"changed by others", BOB: b"two"}


def test_a_full_disk_leaves_the_old_file_alone(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*sasldb2\.new: No space left on device"):
        sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one"}
    assert not Path(berkeley + ".new").exists()


def test_a_file_made_meanwhile_is_not_replaced(path: str) -> None:
    def change(records: Records) -> None:
        if not records:
            in_place(path, {ANN: b"of others"})
        records[BOB] = b"two"

    sasldb.edit(path, change, new_format="berkeley")

    assert sasldb.load(path) == {ANN: b"of others", BOB: b"two"}


def test_a_file_removed_meanwhile_is_made_again(berkeley: str) -> None:
    def change(records: Records) -> None:
        Path(berkeley).unlink(missing_ok=True)
        records[BOB] = b"two"

    sasldb.edit(berkeley, change, new_format="berkeley")

    assert sasldb.load(berkeley) == {BOB: b"two"}


def failing_rename(target: str, error: OSError) -> Callable[[Path, str], Path]:
    """Return a rename that fails onto *target* and works otherwise."""
    rename = Path.replace

    def call(self: Path, destination: str) -> Path:
        if destination == target:
            raise error
        return rename(self, destination)

    return call


@pytest.mark.usefixtures("seen_logs")
def test_a_file_that_is_a_mount_point_is_rewritten_in_place(
    berkeley: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "replace", failing_rename(berkeley, OSError(errno.EBUSY, "busy")))

    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}
    assert list(Path(berkeley).parent.iterdir()) == [Path(berkeley)]
    assert "it is mounted by itself" in caplog.text


def test_a_rename_that_fails_leaves_the_old_file_alone(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", failing_rename(berkeley, OSError(errno.EIO, "I/O error")))

    with pytest.raises(StoreError, match="cannot replace it: I/O error"):
        sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one"}
    assert list(Path(berkeley).parent.iterdir()) == [Path(berkeley)]


def test_a_file_system_without_links_gets_the_file_by_a_rename(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")

    assert sasldb.load(path) == {ANN: b"one"}


def test_a_lock_file_that_its_holder_removed_is_made_again(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removals = [Path(berkeley + ".lock"), Path(berkeley + ".lock")]

    def flock_after_removal(descriptor: int, operation: int) -> None:
        for path in removals[:1]:
            removals.remove(path)
            path.unlink()
            if removals:
                path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_removal)
    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}
    assert not removals
