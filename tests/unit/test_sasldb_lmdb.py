import os
import signal
from pathlib import Path

import lmdb
import pytest

from pysaslauthd.errors import StoreCorrupt, StoreError
from pysaslauthd.stores import engines, sasldb
from tests.helpers.processes import wait_for
from tests.helpers.stores import ANN, BOB, removing, setting


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sasldb2")


@pytest.fixture
def mapped(path: str) -> str:
    """Return the path of an LMDB file with two users, one of them with a long value."""
    sasldb.edit(path, setting(ANN, b"one"), new_format="lmdb")
    sasldb.edit(path, setting(BOB, b"x" * 5000))
    return path


def start_reader(path: str) -> int:
    """Start a process that reads the file until it is killed; return its id."""
    reader = os.fork()
    if reader == 0:
        with lmdb.open(path, subdir=False, readonly=True) as database, database.begin():
            Path(path + "-reading").touch()
            signal.pause()
    wait_for(Path(path + "-reading").exists, "a reader")
    return reader


def kill(reader: int) -> None:
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)


def test_lmdb_grows_when_it_is_full(mapped: str) -> None:
    many = {sasldb.key(b"u%d" % n, b"r"): b"x" * 500 for n in range(3000)}

    sasldb.edit(mapped, lambda records: records.update(many))

    assert sasldb.load(mapped) == {ANN: b"one", BOB: b"x" * 5000, **many}


def test_a_name_too_long_for_lmdb_is_refused(mapped: str) -> None:
    with pytest.raises(StoreError, match="too long for LMDB"):
        sasldb.edit(mapped, setting(sasldb.key(b"a" * 600, b"r"), b"x"))


@pytest.mark.usefixtures("seen_logs")
def test_deleted_passwords_are_left_to_those_who_still_read_them(
    mapped: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = start_reader(mapped)

    sasldb.edit(mapped, removing(ANN))

    kill(reader)
    assert sasldb.load(mapped) == {BOB: b"x" * 5000}
    assert "in use, so what was deleted stays" in caplog.text


def test_a_damaged_lmdb_file_is_not_edited(mapped: str) -> None:
    os.truncate(mapped, 9000)

    with pytest.raises(StoreCorrupt, match="it is cut off"):
        sasldb.edit(mapped, setting(ANN, b"two"))


def test_what_lmdb_complains_of_is_told(mapped: str) -> None:
    Path(mapped + "-lock").unlink()
    Path(mapped + "-lock").mkdir()

    with pytest.raises(StoreError, match=r"LMDB cannot write it: .*Is a directory"):
        sasldb.edit(mapped, setting(ANN, b"two"))


def test_what_a_killed_writer_did_not_blank_the_next_one_does(
    mapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sasldb.edit(mapped, setting(ANN, b"sesame"))
    monkeypatch.setattr(engines, "_scrub", lambda *_: None)
    sasldb.edit(mapped, removing(ANN))
    monkeypatch.undo()

    sasldb.edit(mapped, setting(sasldb.key(b"new", b"r"), b"other"))

    assert b"sesame" not in Path(mapped).read_bytes()


@pytest.mark.usefixtures("seen_logs")
def test_a_reader_that_was_killed_reads_no_more(
    mapped: str, caplog: pytest.LogCaptureFixture
) -> None:
    kill(start_reader(mapped))

    sasldb.edit(mapped, removing(ANN))

    assert "in use" not in caplog.text


def test_a_missing_lock_file_is_made_for_all_who_may_read(mapped: str) -> None:
    Path(mapped).chmod(0o640)
    Path(mapped + "-lock").unlink()

    sasldb.edit(mapped, removing(ANN))

    assert Path(mapped + "-lock").stat().st_mode & 0o777 == 0o660
