import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd.errors import StoreCorrupt, StoreError, StoreMissing
from pysaslauthd.stores import berkeley_hash, lmdb_file, sasldb, snapshot
from tests.helpers.stores import ANN, BOB, as_nobody, nothing, only_root, setting


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


def test_a_missing_file_is_missing(path: str) -> None:
    with pytest.raises(StoreMissing, match=r"sasldb2: there is no such file; `pysaslpasswd -c"):
        sasldb.load(path)
    with pytest.raises(StoreMissing):
        sasldb.stamp(path)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/etc/passwd/db"])
def test_a_missing_directory_is_named(path: str) -> None:
    with pytest.raises(StoreError, match=r"director|Not a"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a regular file"):
        sasldb.load(str(tmp_path))


def test_a_fifo_is_refused_at_once(path: str) -> None:
    os.mkfifo(path)

    with pytest.raises(StoreError, match="not a regular file"):
        sasldb.load(path)
    with pytest.raises(StoreError, match="not a regular file"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")


@only_root
def test_a_file_that_may_not_be_read_is_not_edited(public: Path) -> None:
    (public / "db").write_bytes(berkeley_hash.build({ANN: b"one"}))
    (public / "db").chmod(0o600)

    with as_nobody(), pytest.raises(StoreError, match=r"user nobody .* may not read it"):
        sasldb.edit(str(public / "db"), setting(BOB, b"two"))


def test_a_file_of_absurd_size_is_not_read(path: str) -> None:
    with Path(path).open("wb") as file:
        file.truncate(snapshot.MOST_BYTES + 1)

    with pytest.raises(StoreError, match="larger than 1024 MiB"):
        sasldb.load(path)


def test_the_root_directory_is_no_file() -> None:
    with pytest.raises(StoreError, match="not the name of a file"):
        sasldb.edit("/", nothing)


@only_root
def test_who_may_not_read_and_who_may_is_said(public: Path) -> None:
    path = public / "db"
    path.touch(mode=0o640)

    with as_nobody(), pytest.raises(StoreError) as caught:
        sasldb.load(str(path))

    assert "user nobody (groups nogroup) may not read it" in str(caught.value)
    assert "it belongs to root:root with mode 0640" in str(caught.value)


@only_root
def test_a_user_without_a_name_is_told_by_number(public: Path) -> None:
    path = public / "db"
    path.touch(mode=0o640)
    os.chown(path, 54321, 54322)

    with as_nobody(), pytest.raises(StoreError, match="belongs to 54321:54322"):
        sasldb.load(str(path))


@only_root
def test_a_directory_that_keeps_us_out_is_said(public: Path) -> None:
    (public / "closed").mkdir(mode=0o700)

    with as_nobody(), pytest.raises(StoreError, match="a directory on the way to it"):
        sasldb.load(str(public / "closed" / "db"))


@only_root
def test_a_directory_that_may_not_be_written_is_said(public: Path) -> None:
    public.chmod(0o755)

    with as_nobody(), pytest.raises(StoreError, match=r"cannot make .*db\.lock.* user nobody"):
        sasldb.edit(str(public / "db"), setting(ANN, b"one"), new_format="berkeley")


@only_root
def test_a_file_whose_owner_cannot_be_kept_is_left_alone(public: Path) -> None:
    path = public / "db"
    path.write_bytes(berkeley_hash.build({ANN: b"one"}))

    with as_nobody(), pytest.raises(StoreError, match="cannot keep its owner"):
        sasldb.edit(str(path), setting(BOB, b"two"))

    assert sorted(public.iterdir()) == [path]
    assert sasldb.load(str(path)) == {ANN: b"one"}


def test_a_lock_file_that_is_a_link_is_not_followed(berkeley: str) -> None:
    Path(berkeley + ".lock").symlink_to("elsewhere")

    with pytest.raises(StoreError, match=r"cannot make .*sasldb2\.lock"):
        sasldb.edit(berkeley, setting(BOB, b"two"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"root:x:0:0\n" * 99, "not a sasldb database", id="text"),
        pytest.param(b"\x00\x06\x15\x61" + bytes(99), "Berkeley DB 1.85", id="db-1.85"),
        pytest.param(struct.pack("<12xI", 0x00061561), "not a whole", id="berkeley-start"),
        pytest.param(struct.pack("<16xI", lmdb_file.MAGIC), "cut off", id="lmdb-start"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(path: str, content: bytes, words: str) -> None:
    Path(path).write_bytes(content)

    with pytest.raises(StoreCorrupt, match=f"sasldb2: .*{words}"):
        sasldb.load(path)


def test_a_damaged_file_is_not_edited(path: str) -> None:
    Path(path).write_bytes(b"something else")

    with pytest.raises(StoreCorrupt, match="not a sasldb database"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")

    assert Path(path).read_bytes() == b"something else"


def test_a_python_without_gdbm_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dbm.gnu", None)
    Path(path).write_bytes(struct.pack("<I", 0x13579ACF) + bytes(999))

    with pytest.raises(StoreCorrupt, match=r"this Python has no dbm\.gnu: install it"):
        sasldb.load(path)


def test_a_gdbm_file_cannot_be_made_without_gdbm(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dbm.gnu", None)

    with pytest.raises(StoreError, match=r"this Python has no dbm\.gnu: install it"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="gdbm")

    assert not Path(path).exists()


def test_an_lmdb_file_cannot_be_made_without_lmdb(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)

    with pytest.raises(StoreError, match="install the Python package lmdb"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="lmdb")


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(StoreError, match="cannot read it: Too many levels of symbolic links"):
        sasldb.load(str(tmp_path / "loop"))


def test_a_file_that_fails_while_it_is_read_is_told() -> None:
    with pytest.raises(StoreError, match="cannot read it: Input/output error"):
        sasldb.load("/proc/self/mem")


@only_root
def test_a_linked_file_that_may_not_be_written_is_left_alone(public: Path) -> None:
    path = public / "db"
    path.write_bytes(berkeley_hash.build({ANN: b"one"}))
    path.chmod(0o444)
    os.chown(path, 65534, 65534)
    (public / "link").hardlink_to(path)

    with as_nobody(), pytest.raises(StoreError, match=r"user nobody .* may not write it"):
        sasldb.edit(str(path), setting(BOB, b"two"))

    assert sorted(public.iterdir()) == [path, public / "link"]
    assert sasldb.load(str(path)) == {ANN: b"one"}


def test_what_the_system_refuses_on_the_way_is_told(path: str) -> None:
    Path(path + ".recover").mkdir()

    with pytest.raises(StoreError, match="sasldb2: cannot write it: Is a directory"):
        sasldb.edit(path, setting(ANN, b"one"), new_format="berkeley")
