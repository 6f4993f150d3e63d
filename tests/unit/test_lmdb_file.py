import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from pysaslauthd.stores import lmdb_file
from pysaslauthd.stores.records import Damaged, Records, key

Damage = Callable[[bytearray], None]

PAGE = 4096
FEW: Records = {key(b"ann", b"r"): b"one", key(b"bob", b"r"): b"x" * 5000}


def written(path: Path, records: Records) -> bytearray:
    """Return the file that liblmdb makes of *records*."""
    with lmdb.open(str(path), subdir=False) as database, database.begin(write=True) as change:
        for name, value in records.items():
            change.put(name, value)
    return bytearray(path.read_bytes())


def newest(data: bytearray) -> int:
    """Return where the meta page that counts starts."""
    return max(0, PAGE, key=lambda start: struct.unpack_from("<Q", data, start + 144)[0])


def root(data: bytearray) -> int:
    """Return where the root page of the records starts."""
    return int(struct.unpack_from("<Q", data, newest(data) + 128)[0]) * PAGE


@pytest.mark.parametrize(
    "records",
    [
        pytest.param({}, id="no-record"),
        pytest.param(FEW, id="long-value"),
        pytest.param({key(b"u%06d" % n, b"r"): b"%d" % n for n in range(900)}, id="many-pages"),
    ],
)
def test_what_liblmdb_wrote_is_read_in_its_order(tmp_path: Path, records: Records) -> None:
    data = bytes(written(tmp_path / "db", records))

    assert list(lmdb_file.parse(data).items()) == sorted(records.items())


def test_the_map_size_is_that_of_the_writer(tmp_path: Path) -> None:
    data = bytes(written(tmp_path / "db", {}))

    assert lmdb_file.map_size(data) == 10 << 20  # the Python package's default


def test_what_was_deleted_is_in_the_unused_parts(tmp_path: Path) -> None:
    path = tmp_path / "db"
    written(path, {key(b"ann", b"r"): b"former", **FEW})
    data = bytes(written(path, {key(b"bob", b"r"): b"short"}))

    rest = b"".join(data[start:end] for start, end in lmdb_file.unused(data))

    assert b"x" * 3000 in rest


def on_meta(offset: int, form: str, value: int) -> Damage:
    """Return what writes *value* at *offset* of both meta pages."""

    def damage(data: bytearray) -> None:
        for page in (0, 1):
            struct.pack_into(form, data, page * PAGE + offset, value)

    return damage


def on_root(offset: int, form: str, value: int) -> Damage:
    """Return what writes *value* at *offset* of the root page."""
    return lambda data: struct.pack_into(form, data, root(data) + offset, value)


def on_node(index: int, offset: int, form: str, value: int) -> Damage:
    """Return what writes *value* at *offset* of a node of the root page."""

    def damage(data: bytearray) -> None:
        (node,) = struct.unpack_from("<H", data, root(data) + 16 + 2 * index)
        struct.pack_into(form, data, root(data) + node + offset, value)

    return damage


def on_long_value(data: bytearray) -> None:
    """Change the type of the pages that hold the long value."""
    for page in range(2 * PAGE, len(data), PAGE):
        if struct.unpack_from("<H", data, page + 10)[0] == lmdb_file.OVERFLOW:
            struct.pack_into("<H", data, page + 10, lmdb_file.LEAF)


def cut(length: int) -> Damage:
    """Return what keeps only the first *length* bytes."""

    def damage(data: bytearray) -> None:
        del data[length:]

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut(100), "cut off within its first", id="first-page-cut"),
        pytest.param(cut(PAGE + 100), "cut off within its first", id="second-page-cut"),
        pytest.param(cut(3 * PAGE), "cut off: ", id="page-missing"),
        pytest.param(on_meta(16, "<I", 1), "first pages are damaged", id="magic"),
        pytest.param(on_meta(10, "<H", 1), "first pages are damaged", id="not-a-meta-page"),
        pytest.param(on_meta(40, "<I", 1000), "first pages are damaged", id="page-size"),
        pytest.param(on_meta(20, "<I", 2), "data version 2", id="version"),
        pytest.param(on_meta(92, "<H", 4), "features", id="duplicates"),
        pytest.param(on_meta(120, "<Q", 3), "fewer records", id="count"),
        pytest.param(on_meta(128, "<Q", 99), "outside of itself", id="root-beyond-the-end"),
        pytest.param(on_meta(128, "<Q", 1), "outside of itself", id="root-is-a-meta-page"),
        pytest.param(on_root(0, "<Q", 99), "not a page of records", id="number-of-another"),
        pytest.param(on_root(10, "<H", 99), "not a page of records", id="page-type"),
        pytest.param(on_root(10, "<H", 1), "not a page of records", id="leaf-called-branch"),
        pytest.param(on_root(12, "<H", 5000), "impossible bounds", id="bounds"),
        pytest.param(on_root(12, "<H", 17), "impossible bounds", id="odd-bound"),
        pytest.param(on_root(16, "<H", 1), "record outside", id="node-in-the-header"),
        pytest.param(on_node(0, 4, "<H", 2), "of a kind", id="nested-database"),
        pytest.param(on_node(0, 0, "<H", 9999), "of a kind", id="value-too-long"),
        pytest.param(on_node(1, 6, "<H", 9999), "of a kind", id="key-too-long"),
        pytest.param(on_long_value, "not a long value", id="long-value-page-type"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, damage: Damage, words: str) -> None:
    data = written(tmp_path / "db", FEW)

    damage(data)

    with pytest.raises(Damaged, match=words):
        lmdb_file.parse(bytes(data))


def test_a_ring_of_pages_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "db", {key(b"u%06d" % n, b"r"): b"" for n in range(900)})
    (node,) = struct.unpack_from("<H", data, root(data) + 18)
    struct.pack_into("<H", data, root(data) + node, root(data) // PAGE)

    with pytest.raises(Damaged, match="referred to twice"):
        lmdb_file.parse(bytes(data))
