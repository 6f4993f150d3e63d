import tempfile
from functools import cache
from pathlib import Path

import lmdb
from hypothesis import given, settings
from hypothesis import strategies as st

from pysaslauthd.errors import StoreCorrupt
from pysaslauthd.stores import berkeley_hash, engines, lmdb_file, sasldb
from pysaslauthd.stores.records import Damaged, Records

SAMPLE: Records = {sasldb.key(b"u%d" % n, b"r"): b"x" * (n * 40) for n in range(60)}
A_CHANGE = st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=8))
NEAR_THE_START = st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8))
CHANGES = st.lists(st.one_of(A_CHANGE, NEAR_THE_START), min_size=1, max_size=12)


@cache
def berkeley_sample() -> bytes:
    return berkeley_hash.build(SAMPLE)


@cache
def lmdb_sample() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "sasldb2")
        with lmdb.open(str(path), subdir=False) as database, database.begin(write=True) as change:
            for name, value in SAMPLE.items():
                change.put(name, value)
        return path.read_bytes()


def changed(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    result = bytearray(data)
    for place, content in changes:
        start = place % len(data)
        result[start : start + len(content)] = content
    return bytes(result[: len(data)])


def read(data: bytes) -> Records | None:
    try:
        return engines.recognise(data).parse(data)
    except Damaged:
        return None


@given(st.dictionaries(st.binary(max_size=1500), st.binary(max_size=6000), max_size=20))
@settings(max_examples=60)
def test_any_records_are_read_as_they_were_written(records: Records) -> None:
    assert berkeley_hash.parse(berkeley_hash.build(records)) == records


@given(CHANGES)
@settings(max_examples=200)
def test_a_changed_berkeley_file_is_read_or_called_damaged(
    changes: list[tuple[int, bytes]],
) -> None:
    read(changed(berkeley_sample(), changes))


@given(CHANGES)
@settings(max_examples=200)
def test_a_changed_lmdb_file_is_read_or_called_damaged(changes: list[tuple[int, bytes]]) -> None:
    data = changed(lmdb_sample(), changes)

    if read(data) is not None and lmdb_file.is_lmdb(data):
        lmdb_file.map_size(data)


@given(st.binary(max_size=2000))
@settings(max_examples=100)
def test_arbitrary_bytes_are_called_damaged(data: bytes) -> None:
    assert read(data) is None


@given(st.integers(0, 10_000_000))
@settings(max_examples=60)
def test_a_file_that_is_cut_off_is_never_half_read(place: int) -> None:
    berkeley, mapped = berkeley_sample(), lmdb_sample()

    assert read(berkeley[: place % len(berkeley)]) is None
    assert read(mapped[: place % len(mapped)]) is None


@given(st.binary(min_size=1, max_size=600))
@settings(max_examples=5)
def test_a_file_of_any_bytes_is_refused_by_name(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        try:
            sasldb.load(file.name)
        except StoreCorrupt as error:
            problem = str(error)

    assert problem.startswith(file.name)
