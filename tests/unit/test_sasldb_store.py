import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd.errors import StoreCorrupt, StoreError, StoreMissing
from pysaslauthd.stores import berkeley_hash, engines, sasldb, snapshot
from pysaslauthd.stores.records import Records
from tests.helpers.stores import ANN, BOB, as_nobody, nothing, only_root, setting

WRITTEN = ["berkeley", "lmdb"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sasldb2")


@pytest.fixture
def berkeley(path: str) -> str:
    """Return the path of a Berkeley DB file with ann in it."""
    Path(path).write_bytes(berkeley_hash.build({ANN: b"one"}))
    return path


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory everybody may write; pytest's own keep others out."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


def test_a_key_is_user_realm_and_property() -> None:
    assert sasldb.key(b"ann", b"r") == b"ann\0r\0userPassword"
    assert sasldb.key(b"ann", b"r", b"authPassword") == b"ann\0r\0authPassword"
    assert sasldb.split_key(b"ann\0r\0userPassword") == (b"ann", b"r", b"userPassword")
    assert sasldb.split_key(b"ann\0userPassword") is None


@pytest.mark.parametrize("form", WRITTEN)
def test_what_was_put_in_a_new_file_is_found_there(path: str, form: str) -> None:
    sasldb.edit(path, setting(ANN, b"one"), new_format=form)

    assert sasldb.load(path) == {ANN: b"one"}


@pytest.mark.parametrize("form", WRITTEN)
def test_an_edit_keeps_the_kind_of_file(path: str, form: str) -> None:
    sasldb.edit(path, setting(ANN, b"one"), new_format=form)

    sasldb.edit(path, setting(BOB, b"two"), new_format="gdbm")

    assert engines.recognise(Path(path).read_bytes()).name == form
    assert sasldb.load(path) == {ANN: b"one", BOB: b"two"}


@pytest.mark.parametrize("form", WRITTEN)
def test_deleted_and_changed_passwords_do_not_stay_in_the_file(path: str, form: str) -> None:
    many = {sasldb.key(b"u%d" % n, b"r"): b"former %d" % n for n in range(300)}
    sasldb.edit(path, lambda records: records.update(many), new_format=form)
    sasldb.edit(path, lambda records: records.update(dict.fromkeys(many, b"later" * 999)))

    sasldb.edit(path, lambda records: records.clear())

    assert sasldb.load(path) == {}
    assert b"former" not in Path(path).read_bytes()
    assert b"later" not in Path(path).read_bytes()


@only_root
@pytest.mark.parametrize("form", WRITTEN)
def test_a_new_file_is_for_root_and_group_sasl(path: str, form: str) -> None:
    sasldb.edit(path, setting(ANN, b"one"), new_format=form)

    status = Path(path).stat()
    assert (status.st_uid, snapshot.group_name(status.st_gid)) == (0, "sasl")
    assert status.st_mode & 0o7777 == 0o640


@only_root
def test_a_new_file_of_somebody_else_is_theirs_alone(public: Path) -> None:
    with as_nobody():
        sasldb.edit(str(public / "db"), setting(ANN, b"one"), new_format="berkeley")

    status = (public / "db").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (65534, 0o600)


@only_root
def test_owner_and_mode_are_kept(berkeley: str) -> None:
    os.chown(berkeley, 1234, 4321)
    Path(berkeley).chmod(0o604)

    sasldb.edit(berkeley, setting(BOB, b"two"))

    status = Path(berkeley).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o604)


def test_extended_attributes_are_kept(berkeley: str) -> None:
    os.setxattr(berkeley, "user.note", b"kept")

    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert os.getxattr(berkeley, "user.note") == b"kept"


def test_nothing_but_the_database_is_left_behind(path: str) -> None:
    sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")
    sasldb.edit(path, setting(BOB, b"two"))

    assert list(Path(path).parent.iterdir()) == [Path(path)]


def test_a_symbolic_link_stays_one(berkeley: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("sasldb2")

    sasldb.edit(str(link), setting(BOB, b"two"))

    assert link.is_symlink()
    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}


@pytest.mark.parametrize("form", sasldb.FORMATS)
def test_a_change_of_nothing_makes_no_file(path: str, form: str) -> None:
    sasldb.edit(path, nothing, new_format=form)

    assert not Path(path).exists()


def test_a_change_of_nothing_leaves_the_file_alone(berkeley: str) -> None:
    before = sasldb.stamp(berkeley)

    sasldb.edit(berkeley, nothing)

    assert sasldb.stamp(berkeley) == before


def test_without_a_format_no_file_is_made(path: str) -> None:
    with pytest.raises(StoreMissing, match="sasldb2: there is no database"):
        sasldb.edit(path, setting(ANN, b"one"))


def test_an_empty_file_becomes_a_database_and_keeps_its_mode(path: str) -> None:
    Path(path).touch(mode=0o600)

    sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")

    assert sasldb.load(path) == {ANN: b"one"}
    assert Path(path).stat().st_mode & 0o7777 == 0o600


@pytest.mark.usefixtures("seen_logs")
def test_several_hard_links_are_kept_and_that_is_said(
    berkeley: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.hardlink_to(berkeley)

    sasldb.edit(berkeley, setting(BOB, b"x" * 9000))

    assert sasldb.load(str(other)) == {ANN: b"one", BOB: b"x" * 9000}
    assert sorted(tmp_path.iterdir()) == [other, Path(berkeley)]
    assert "hard links" in caplog.text


@pytest.fixture
def half_rewritten(berkeley: str) -> str:
    """Return a file as a kill in the middle of a rewrite in place leaves it."""
    Path(berkeley + ".recover").write_bytes(berkeley_hash.build({ANN: b"one", BOB: b"two"}))
    Path(berkeley).write_bytes(bytes(512) + Path(berkeley).read_bytes()[512:])
    return berkeley


def test_an_interrupted_rewrite_is_told_with_its_recovery_copy(half_rewritten: str) -> None:
    with pytest.raises(StoreCorrupt, match=r"interrupted; .*sasldb2\.recover has its content"):
        sasldb.load(half_rewritten)


@pytest.mark.usefixtures("seen_logs")
def test_the_next_edit_completes_an_interrupted_rewrite(
    half_rewritten: str, caplog: pytest.LogCaptureFixture
) -> None:
    sasldb.edit(half_rewritten, nothing)

    assert sasldb.load(half_rewritten) == {ANN: b"one", BOB: b"two"}
    assert not Path(half_rewritten + ".recover").exists()
    assert "was completed from" in caplog.text


@pytest.mark.usefixtures("seen_logs")
def test_a_recovery_copy_of_a_whole_file_is_dropped(
    berkeley: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(berkeley + ".recover").write_bytes(b"never used")

    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}
    assert not Path(berkeley + ".recover").exists()
    assert "is not needed" in caplog.text


def test_a_recovery_copy_of_a_file_that_is_gone_is_dropped(path: str) -> None:
    Path(path + ".recover").write_bytes(b"never used")

    sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")

    assert sasldb.load(path) == {ANN: b"one"}


def test_what_a_killed_writer_left_does_not_matter(berkeley: str) -> None:
    Path(berkeley + ".new").write_bytes(b"half")
    Path(berkeley + ".lock").write_text("4242\n")

    sasldb.edit(berkeley, setting(BOB, b"two"))

    assert sasldb.load(berkeley) == {ANN: b"one", BOB: b"two"}
    assert not Path(berkeley + ".new").exists()


def test_a_failure_in_the_change_leaves_everything_as_it_was(berkeley: str) -> None:
    def change(records: Records) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sasldb.edit(berkeley, change)

    assert sasldb.load(berkeley) == {ANN: b"one"}
    assert not Path(berkeley + ".lock").exists()


def test_records_come_with_the_stamp_of_their_file(berkeley: str) -> None:
    assert sasldb.load_stamped(berkeley) == ({ANN: b"one"}, sasldb.stamp(berkeley))


def test_a_rewritten_file_has_another_stamp(berkeley: str) -> None:
    before = sasldb.stamp(berkeley)

    sasldb.edit(berkeley, setting(ANN, b"two"))

    assert sasldb.stamp(berkeley) != before


@pytest.mark.parametrize(
    ("changed", "age", "settled"),
    [
        pytest.param(10**18 + 1, 0, False, id="this-moment"),
        pytest.param(10**18 + 1, 19_000_000, False, id="same-tick"),
        pytest.param(10**18 + 1, 20_000_000, True, id="tick-over"),
        pytest.param(10**18, 1_900_000_000, False, id="whole-seconds"),
        pytest.param(10**18, 2_000_000_000, True, id="whole-seconds-over"),
        pytest.param(10**18 + 1, -3_600_000_000_000, True, id="clock-was-set-back"),
    ],
)
def test_a_stamp_is_settled_when_the_clock_has_ticked(
    changed: int, age: int, *, settled: bool
) -> None:
    stamp = sasldb.Stamp(1, 2, changed, changed, 4096)

    assert stamp.settled(changed + age) is settled


def test_a_content_does_not_print() -> None:
    shot = snapshot.Snapshot(b"secret", sasldb.Stamp(1, 2, 3, 4, 5))

    assert "secret" not in repr(shot)


def test_fewer_records_than_promised_are_taken_once_the_file_has_settled(path: str) -> None:
    data = bytearray(berkeley_hash.build({ANN: b"one"}))
    struct.pack_into("<I", data, 88, 2)
    Path(path).write_bytes(data)

    records, stamp = sasldb.load_stamped(path)

    assert records == {ANN: b"one"}
    assert stamp.settled(time.time_ns())


def test_a_file_that_is_never_the_same_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasldb, "READ_PAUSE", 0)

    with pytest.raises(StoreError, match="is being written all the time"):
        sasldb.load("/proc/self/status")


def test_a_file_that_never_settles_is_not_edited(
    berkeley: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasldb, "SETTLE_PATIENCE", 0)

    with pytest.raises(StoreError, match="is being written all the time"):
        sasldb.edit(berkeley, setting(BOB, b"two"))
