import struct
from collections.abc import Callable

import pytest

from pysaslauthd.stores import berkeley_hash
from pysaslauthd.stores.records import Damaged, Records, key

PAGE = berkeley_hash.PAGE
LONG = PAGE // 4 + 1

Damage = Callable[[bytearray], None]


def users(count: int) -> Records:
    return {key(b"user%d" % n, b"example.org"): b"password %d" % n for n in range(count)}


@pytest.mark.parametrize(
    "records",
    [
        pytest.param({}, id="no-record"),
        pytest.param(users(1), id="one-user"),
        pytest.param(users(600), id="many-users"),
        pytest.param({key(b"ann", b"r"): b""}, id="empty-value"),
        pytest.param({b"": b"x"}, id="empty-key"),
        pytest.param({key(b"ann", b"r"): b"x" * 20_000}, id="long-value"),
        pytest.param({key(b"a" * LONG, b"r"): b"x" * LONG}, id="long-key-and-value"),
        pytest.param({key(b"%d" % n, b"r"): b"x" * 1000 for n in range(99)}, id="few-on-a-page"),
    ],
)
def test_what_is_built_is_read_again(records: Records) -> None:
    data = berkeley_hash.build(records)

    assert berkeley_hash.parse(data) == records
    assert berkeley_hash.promised(data) == len(records)


def test_a_bucket_continues_on_further_pages() -> None:
    names = [key(b"user%d" % n, b"r") for n in range(20_000)]
    crowd = [name for name, code in berkeley_hash.hashes(names) if code % 256 == 0]
    records = dict.fromkeys(crowd, b"x" * 200)

    data = berkeley_hash.build(records)

    assert berkeley_hash.parse(data) == records


def test_a_value_that_is_no_longer_there_leaves_no_trace() -> None:
    records = {key(b"ann", b"r"): b"old secret", key(b"bob", b"r"): b"x"}
    del records[key(b"ann", b"r")]

    data = berkeley_hash.build(records)

    assert b"old secret" not in data


def test_hashes_are_those_of_libdb() -> None:
    ((_, charkey),) = berkeley_hash.hashes([b"%$sniglet^&\0"])

    assert charkey == 1583910353  # as in a file that saslpasswd2 made


def test_unused_buckets_may_be_all_zero() -> None:
    data = bytearray(berkeley_hash.build({}))
    data[PAGE : 2 * PAGE] = bytes(PAGE)

    assert berkeley_hash.parse(bytes(data)) == {}


def test_other_bytes_promise_nothing() -> None:
    assert berkeley_hash.promised(b"something else") == 0


def at(offset: int, form: str, value: int) -> Damage:
    """Return what writes *value* at *offset* of the file."""
    return lambda data: struct.pack_into(form, data, offset, value)


def cut(length: int) -> Damage:
    """Return what keeps only the first *length* bytes."""

    def damage(data: bytearray) -> None:
        del data[length:]

    return damage


# Two users on page 1 or 2, one long value on pages 3 and 4: see `damaged`.
BUCKETS, LONG_PAGE, LAST = (1, 2), 3, 4


def on_buckets(offset: int, form: str, value: int) -> Damage:
    """Return what writes *value* at *offset* of both bucket pages."""

    def damage(data: bytearray) -> None:
        for page in BUCKETS:
            struct.pack_into(form, data, page * PAGE + offset, value)

    return damage


def on_values(kind: int) -> Damage:
    """Return what gives every value on the bucket pages another type."""

    def damage(data: bytearray) -> None:
        for page in BUCKETS:
            (entries,) = struct.unpack_from("<H", data, page * PAGE + 20)
            for offset in struct.unpack_from(f"<{entries}H", data, page * PAGE + 26)[1::2]:
                data[page * PAGE + offset] = kind

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut(0), "whole Berkeley DB", id="empty"),
        pytest.param(cut(100), "whole Berkeley DB", id="meta-page-cut"),
        pytest.param(cut(5000), "cut off", id="page-cut"),
        pytest.param(cut((LAST + 1) * PAGE - 1), "cut off", id="last-byte-missing"),
        pytest.param(at(12, "<I", 0x00053162), "btree or recno", id="btree"),
        pytest.param(at(12, ">I", 0x00053162), "btree or recno", id="btree-big-endian"),
        pytest.param(at(12, "<I", 0x00042253), "a queue", id="queue"),
        pytest.param(at(12, "<I", 0x00074582), "a heap", id="heap"),
        pytest.param(at(12, "<I", 0x00040988), "a log", id="log"),
        pytest.param(at(12, "<I", 1), "whole Berkeley DB", id="no-magic"),
        pytest.param(at(16, "<I", 7), "version 7", id="too-old"),
        pytest.param(at(16, "<I", 10), "version 10", id="too-new"),
        pytest.param(at(20, "<I", 1000), "page size", id="odd-page-size"),
        pytest.param(at(20, "<I", 1 << 17), "page size", id="large-page-size"),
        pytest.param(at(24, "B", 1), "encrypted", id="encrypted"),
        pytest.param(at(25, "B", 9), "features", id="not-a-hash-meta-page"),
        pytest.param(at(26, "B", 1), "features", id="checksums"),
        pytest.param(at(48, "<I", 1), "features", id="duplicates"),
        pytest.param(at(32, "<I", 99), "cut off", id="more-pages-than-bytes"),
        pytest.param(at(96, "<I", 99), "beyond its end", id="bucket-beyond-the-end"),
        pytest.param(at(100, "<I", 0), "referred to twice", id="two-buckets-on-a-page"),
        pytest.param(on_buckets(8, "<I", 7), "number of another", id="misplaced-page"),
        pytest.param(on_buckets(16, "<I", 1), "referred to twice", id="ring-of-pages"),
        pytest.param(on_buckets(16, "<I", 99), "beyond its end", id="chain-beyond-the-end"),
        pytest.param(on_buckets(16, "<I", LONG_PAGE), "page of records", id="chain-to-a-value"),
        pytest.param(on_buckets(25, "B", 5), "page of records", id="page-of-another-type"),
        pytest.param(on_buckets(20, "<H", 3), "page of records", id="key-without-value"),
        pytest.param(on_buckets(20, "<H", 60_000), "page of records", id="too-many-entries"),
        pytest.param(on_buckets(26, "<H", PAGE + 1), "outside of itself", id="item-after-page"),
        pytest.param(on_buckets(28, "<H", 9), "outside of itself", id="item-in-the-header"),
        pytest.param(on_values(2), "record of a kind", id="duplicate-items"),
        pytest.param(on_values(3), "record of a kind", id="off-page-item-too-short"),
        pytest.param(at(LONG_PAGE * PAGE + 25, "B", 13), "long value", id="value-page-type"),
        pytest.param(at(LONG_PAGE * PAGE + 22, "<H", 5000), "long value", id="value-page-length"),
        pytest.param(at(LONG_PAGE * PAGE + 16, "<I", 0), "incomplete", id="value-too-short"),
        pytest.param(at(LAST * PAGE + 16, "<I", LONG_PAGE), "twice", id="ring-of-value-pages"),
    ],
)
def test_a_damaged_file_is_refused_in_words(damage: Damage, words: str) -> None:
    records = {key(b"a", b"r"): b"x", key(b"b", b"r"): b"y", key(b"c", b"r"): b"z" * 5000}
    data = bytearray(berkeley_hash.build(records))

    damage(data)

    with pytest.raises(Damaged, match=words):
        berkeley_hash.parse(bytes(data))
