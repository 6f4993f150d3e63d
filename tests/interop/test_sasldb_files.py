"""Files and commands beside those of Cyrus SASL 2.1.28, Berkeley DB 5.3, LMDB and GDBM."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd.errors import StoreCorrupt
from pysaslauthd.stores import berkeley_hash, lmdb_file, sasldb
from pysaslauthd.stores.records import Records

ROOT = Path(__file__).parents[2]
REALM = b"example.org"
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-gdbm is for


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pysaslauthd-", dir="/tmp") as path:
        yield Path(path)


def run(*words: str | Path, given: bytes = b"") -> bytes:
    done = subprocess.run(words, input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def saslpasswd2(path: Path, user: bytes, password: bytes) -> None:
    run("saslpasswd2", "-f", path, "-u", os.fsdecode(REALM), os.fsdecode(user), given=password)


def sasldblistusers2(path: Path) -> list[bytes]:
    return run("sasldblistusers2", "-f", path).splitlines()


def listed(records: Records) -> list[bytes]:
    return [b"%b@%b: %b" % tuple(name.split(b"\0")) for name in records]


def users(count: int, prefix: bytes = b"user") -> Records:
    return {sasldb.key(b"%b%d" % (prefix, n), REALM): b"pw%d" % n for n in range(count)}


BIG: Records = {
    sasldb.key(b"long", REALM): b"x" * 8000,
    sasldb.key(b"n" * 3000, REALM): b"y" * 1025,
}


@pytest.mark.interop("saslpasswd2", "sasldblistusers2", "db5.3_verify")
@pytest.mark.parametrize(
    "records",
    [
        pytest.param({}, id="none"),
        pytest.param(users(1), id="one"),
        pytest.param(users(5) | BIG, id="long-items"),
        pytest.param(users(600), id="600"),
        pytest.param(users(100_000), id="100000"),
    ],
)
def test_the_c_programs_verify_list_and_change_our_files(directory: Path, records: Records) -> None:
    path = directory / "db"
    path.write_bytes(berkeley_hash.build(records))

    run("db5.3_verify", path)
    assert sorted(sasldblistusers2(path)) == sorted(listed(records))
    assert sasldblistusers2(path) == listed(sasldb.load(str(path)))
    saslpasswd2(path, b"new", b"secret")
    saslpasswd2(path, b"user0", b"changed")
    run("db5.3_verify", path)
    run("saslpasswd2", "-d", "-f", path, "-u", "example.org", "new")
    run("db5.3_verify", path)

    assert sasldb.load(str(path)) == records | {sasldb.key(b"user0", REALM): b"changed"}


@pytest.mark.interop("saslpasswd2", "sasldblistusers2")
def test_a_file_of_saslpasswd2_is_read_in_its_order(directory: Path) -> None:
    path = directory / "db"
    for number in range(120):
        saslpasswd2(path, b"user%d" % number, b"pw%d" % number)
    for number in range(0, 120, 3):
        run("saslpasswd2", "-d", "-f", path, "-u", "example.org", f"user{number}")
    saslpasswd2(path, b"long", b"x" * 2000)

    records = sasldb.load(str(path))

    expected = {name: value for n, (name, value) in enumerate(users(120).items()) if n % 3}
    assert records == expected | {sasldb.key(b"long", REALM): b"x" * 2000}
    assert listed(records) == sasldblistusers2(path)


@pytest.mark.interop("db5.3_dump", "db5.3_load")
@pytest.mark.parametrize("size", [512, 1024, 4096, 16384, 65536])
@pytest.mark.parametrize("order", ["1234", "4321"])
def test_every_page_size_and_byte_order_is_read(directory: Path, size: int, order: str) -> None:
    records = users(300) | BIG
    (directory / "ours").write_bytes(berkeley_hash.build(records))
    dump = run("db5.3_dump", directory / "ours")

    settings = ("-c", f"db_pagesize={size}", "-c", f"db_lorder={order}")
    run("db5.3_load", *settings, directory / "theirs", given=dump)

    assert sasldb.load(str(directory / "theirs")) == records


@pytest.mark.interop("db5.3_load", "db5.3_verify")
def test_a_file_with_buckets_never_used_is_read(directory: Path) -> None:
    (directory / "ours").write_bytes(berkeley_hash.build(users(10)))
    dump = run("db5.3_dump", directory / "ours")

    run("db5.3_load", "-c", "h_nelem=2000", "-c", "h_ffactor=10", directory / "db", given=dump)

    assert sasldb.load(str(directory / "db")) == users(10)


@pytest.mark.interop("db5.3_upgrade", "db5.3_verify")
def test_version_8_is_what_berkeley_db_takes_it_for(directory: Path) -> None:
    """It differs from version 9 in that pages need not be sorted: libdb's upgrade agrees."""
    path = directory / "db"
    data = bytearray(berkeley_hash.build(users(300)))
    data[16] = 8
    for page in range(4096, len(data), 4096):
        data[page + 25] = berkeley_hash.UNSORTED
    path.write_bytes(data)
    old = sasldb.load(str(path))

    run("db5.3_upgrade", path)

    run("db5.3_verify", path)
    assert old == sasldb.load(str(path)) == users(300)


@pytest.mark.interop("db5.3_load")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["-t", "btree"], "a btree or recno", id="btree"),
        pytest.param(["-t", "hash", "-c", "chksum=1"], "features", id="checksums"),
        pytest.param(["-t", "hash", "-c", "duplicates=1"], "features", id="duplicates"),
        pytest.param(["-t", "hash", "-P", "pass"], "encrypted", id="encrypted"),
    ],
)
def test_other_files_of_berkeley_db_are_refused_in_words(
    directory: Path, options: list[str], words: str
) -> None:
    run("db5.3_load", "-T", *options, directory / "db", given=b"key\nvalue\n")

    with pytest.raises(StoreCorrupt, match=words):
        sasldb.load(str(directory / "db"))


@pytest.mark.interop("mdb_dump")
def test_lmdb_finds_our_records_in_its_unnamed_database(directory: Path) -> None:
    path = directory / "db"
    sasldb.edit(str(path), lambda records: records.update(users(300)), new_format="lmdb")
    sasldb.edit(str(path), lambda records: records.__delitem__(sasldb.key(b"user0", REALM)))

    dump = run("mdb_dump", "-n", "-p", path)

    assert b"type=btree\n" in dump
    assert dump.count(b"\\00example.org\\00userPassword\n pw") == 299
    assert b"\n user7\\00example.org\\00userPassword\n pw7\n" in dump


@pytest.mark.interop("mdb_dump", "mdb_copy")
def test_a_copy_that_lmdb_made_is_read(directory: Path) -> None:
    path = directory / "db"
    sasldb.edit(str(path), lambda records: records.update(users(300)), new_format="lmdb")

    (directory / "copy").write_bytes(run("mdb_copy", "-n", "-c", path))

    assert lmdb_file.parse((directory / "copy").read_bytes()) == users(300)


ON_GDBM = """
import random, sys
from pysaslauthd.stores import engines, sasldb
from pysaslauthd.stores.records import Damaged, key

path = sys.argv[1]
many = {key(b"user%d" % n, b"r"): b"pw%d" % n for n in range(300)}
sasldb.edit(path, lambda records: records.update(many), new_format="gdbm")
assert sasldb.load(path) == many
sasldb.edit(path, lambda records: records.pop(key(b"user7", b"r")) and None)
assert len(sasldb.load(path)) == 299
data = open(path, "rb").read()
assert b"user7\\0" not in data
dice = random.Random(1)
for _ in range(300):
    damaged = bytearray(data)
    for _ in range(8):
        damaged[dice.randrange(dice.choice((200, len(data))))] = dice.randrange(256)
    del damaged[dice.choice((len(data), dice.randrange(len(data)))):]
    try:
        engines.recognise(bytes(damaged)).parse(bytes(damaged))
    except Damaged:
        pass
"""


@pytest.mark.interop(SYSTEM_PYTHON, "gdbmtool")
def test_gdbm_reads_what_we_write_and_damage_is_refused(directory: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [SYSTEM_PYTHON, "-c", ON_GDBM, directory / "db"], env=environment, check=True, timeout=50
    )

    assert b"299 items" in run("gdbmtool", "-r", directory / "db", "count")


WRITER = """
import sys
from pysaslauthd.stores import sasldb

path, prefix, count = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
for number in range(count):
    name = sasldb.key(b"%b%d" % (prefix, number), b"example.org")
    sasldb.edit(path, lambda records: records.update({name: b"x"}), new_format="berkeley")
    print(number, flush=True)
"""


def writer(
    path: Path, prefix: str, count: int, *, form: str = "berkeley"
) -> subprocess.Popen[bytes]:
    code = WRITER.replace('"berkeley"', repr(form))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), prefix, str(count)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )


def names(records: Records) -> set[bytes]:
    return {name.split(b"\0")[0] for name in records}


@pytest.mark.parametrize("form", ["berkeley", "lmdb"])
def test_two_writers_of_ours_lose_nothing(directory: Path, form: str) -> None:
    path = directory / "db"
    writers = [writer(path, prefix, 25, form=form) for prefix in "ab"]

    for process in writers:
        process.communicate(timeout=50)

    expected = {b"%b%d" % (prefix, n) for prefix in (b"a", b"b") for n in range(25)}
    assert names(sasldb.load(str(path))) == expected


@pytest.mark.interop("saslpasswd2")
def test_a_writer_of_ours_and_saslpasswd2_lose_nothing(directory: Path) -> None:
    path = directory / "db"
    saslpasswd2(path, b"first", b"x")
    ours = writer(path, "a", 40)

    for number in range(80):
        saslpasswd2(path, b"b%d" % number, b"x")
    ours.communicate(timeout=50)

    expected = {b"first", *(b"a%d" % n for n in range(40)), *(b"b%d" % n for n in range(80))}
    assert names(sasldb.load(str(path))) == expected


@pytest.mark.interop("db5.3_verify")
@pytest.mark.parametrize("form", ["berkeley", "lmdb"])
def test_a_writer_that_is_killed_leaves_what_it_had_done(directory: Path, form: str) -> None:
    path = directory / "db"
    dice = random.Random(7)  # noqa: S311 (when to kill, not what to hide)
    done = 0
    for attempt in range(12):
        victim = writer(path, f"{attempt}-", 1000, form=form)
        assert victim.stdout is not None
        for _ in range(dice.randrange(1, 6)):
            victim.stdout.readline()
            done += 1
        victim.kill()
        done += len(victim.communicate()[0].splitlines())

        found = len(sasldb.load(str(path)))

        # One more than was reported may have been stored when the kill came.
        assert done <= found <= done + 1
        done = found
    assert form == "lmdb" or run("db5.3_verify", path) is not None


DYING = """
import os, sys
from pysaslauthd.stores import sasldb

path, last = sys.argv[1], int(sys.argv[2])
calls = 0


def dying(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls > last:
            os._exit(9)
        result = function(*arguments, **options)
        if calls == last and sys.argv[3] == "after":
            os._exit(9)
        return result
    return call


for name in ("fsync", "replace", "rename", "link", "unlink", "pwrite", "ftruncate", "open"):
    setattr(os, name, dying(getattr(os, name)))
many = {sasldb.key(b"new%d" % n, b"example.org"): b"y" * 100 for n in range(200)}
sasldb.edit(path, lambda records: records.update(many), new_format="berkeley")
"""


@pytest.mark.parametrize("links", [1, 2], ids=["replaced", "in-place"])
def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new_file(
    directory: Path, links: int
) -> None:
    """In place the old or the new content is there at the latest with the next edit."""
    old = users(50)
    new = old | {sasldb.key(b"new%d" % n, REALM): b"y" * 100 for n in range(200)}
    seen = []
    for step in range(1, 60):
        path = directory / f"db{step}"
        path.write_bytes(berkeley_hash.build(old))
        for link in range(1, links):
            path.with_suffix(f".{link}").hardlink_to(path)

        victim = subprocess.run(
            [sys.executable, "-c", DYING, path, str(step), ("after", "before")[step % 2]],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        sasldb.edit(str(path), lambda records: records.update({b"next": b""}))
        found = sasldb.load(str(path))

        found.pop(b"next")
        assert found in (old, new), f"died at step {step}"
        seen.append(found == new)
        if victim.returncode == 0:
            break
    assert seen[0] is False
    assert seen[-1] is True
    assert len(seen) > 8


@pytest.mark.usefixtures("as_root")
@pytest.mark.interop("unshare", "mount")
def test_a_file_that_is_mounted_by_itself_is_rewritten_in_place(directory: Path) -> None:
    path, outside = directory / "db", directory / "outside"
    outside.write_bytes(berkeley_hash.build(users(3)))
    path.touch()
    code = f"""
from pysaslauthd.stores import sasldb
sasldb.edit({str(path)!r}, lambda records: records.update({{b"a\\0b\\0c": b"x" * 9000}}))
"""

    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", outside, path, sys.executable, code],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip

    assert b"it is mounted by itself" in done.stderr
    assert sasldb.load(str(outside)) == users(3) | {b"a\0b\0c": b"x" * 9000}
    assert sorted(directory.iterdir()) == [path, outside]


@pytest.mark.usefixtures("as_root")
@pytest.mark.interop("unshare", "mount")
def test_a_rewrite_in_place_that_does_not_fit_leaves_the_file_as_it_was(directory: Path) -> None:
    path = directory / "db"
    path.touch()
    code = f"""
from pysaslauthd.stores import sasldb
many = {{sasldb.key(b"u%d" % n, b"r"): b"x" for n in range(2000)}}
sasldb.edit({str(path)!r}, lambda records: records.update(many))
"""
    script = """
        mkdir small && mount -t tmpfs -o size=64k tmpfs small && cp whole small/db &&
        mount --bind small/db db && "$1" -c "$2"; cp small/db after; ls > left
    """
    (directory / "whole").write_bytes(berkeley_hash.build(users(3)))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, code],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )

    assert b"No space left on device" in done.stderr
    assert sasldb.load(str(directory / "after")) == users(3)
    assert "recover" not in (directory / "left").read_text()
