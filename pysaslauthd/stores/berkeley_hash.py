"""Berkeley DB hash files, read and written as whole byte strings.

No locking, no I/O, no libdb. The layout is in protocols/sasldb.md section 2;
what libdb 5.3 makes of our files, and we of its, is in tests/interop.
"""

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pysaslauthd.stores.records import Damaged, Records

MAGIC = 0x00061561
MAGIC_AT = 12
OTHER_KINDS = {
    0x00053162: "a btree or recno",
    0x00042253: "a queue",
    0x00074582: "a heap",
    0x00040988: "a log",
}
# 8 and 9 are what Berkeley DB 4 and 5 write. libdb's upgrade shows that 7 counts its pages
# otherwise; 10 belongs to Berkeley DB 6, of which there was none to try.
READABLE_VERSIONS = (8, 9)
VERSION = 9
PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))

META_BYTES = 512
HASH_META = 8
PAGE_HEADER = 26
EMPTY, UNSORTED, OVERFLOW, SORTED = 0, 2, 7, 13
INLINE, OFF_PAGE = 1, 3
OFF_PAGE_BYTES = 12

PAGE = 4096
BIG = PAGE // 4  # libdb moves longer items off the page
FILL = 2600  # bytes a bucket should hold on average, so that few need a second page
NOT_LOGGED = (0, 1)  # the log position libdb gives pages of files without a log
CHARKEY = b"%$sniglet^&\0"
FNV_PRIME = 16777619


def byte_order(head: bytes) -> str | None:
    """Return the struct prefix of a Berkeley DB file's byte order; None if it is no such file."""
    for order in "<>":
        if len(head) < MAGIC_AT + 4:
            break
        (magic,) = struct.unpack_from(f"{order}I", head, MAGIC_AT)
        if magic == MAGIC or magic in OTHER_KINDS:
            return order
    return None


def parse(data: bytes) -> Records:
    """Return every record of the file *data*, in libdb's cursor order; Damaged if it cannot be."""
    return _Reader(data).records()


def promised(data: bytes) -> int:
    """Return how many records the file claims to hold.

    A hint only: a dump that was loaded again claims twice as many.
    """
    order = byte_order(data)
    return int(struct.unpack_from(f"{order}I", data, 88)[0]) if order else 0


class _Reader:
    """One pass over a file; no page is read twice, so damaged chains end."""

    def __init__(self, data: bytes) -> None:
        order = byte_order(data)
        if order is None or len(data) < META_BYTES:
            raise Damaged("it is not a whole Berkeley DB file")
        self._data = data
        self._order = order
        self._header = struct.Struct(f"{order}I4xIHHBB")
        magic, version, self._size, algorithm, kind, flags = struct.unpack_from(
            f"{order}IIIBBB", data, MAGIC_AT
        )
        _check_kind(magic, version)
        if algorithm:
            raise Damaged("it is encrypted; write it again without a Berkeley DB password")
        (options,) = struct.unpack_from(f"{order}I", data, 48)
        if kind != HASH_META or flags or options:
            raise Damaged("it uses Berkeley DB features no sasldb has (checksums, duplicates)")
        if self._size not in PAGE_SIZES:
            raise Damaged("its page size is impossible, so the first page is damaged")
        (self._last,) = struct.unpack_from(f"{order}I", data, 32)
        if (self._last + 1) * self._size > len(data):
            raise Damaged(f"it is cut off: {self._last + 1} pages of {self._size} bytes are due")
        self._unread = bytearray(b"\1") * (self._last + 1)
        self._unread[0] = 0

    def records(self) -> Records:
        (buckets,) = struct.unpack_from(f"{self._order}I", self._data, 72)
        spares = struct.unpack_from(f"{self._order}32I", self._data, 96)
        found: Records = {}
        for bucket in range(min(buckets, self._last) + 1):
            page = bucket + spares[min(bucket.bit_length(), 31)]
            while page:
                page = self._bucket_page(page, found)
        return found

    def _page(self, number: int) -> tuple[int, int, int, int, int]:
        """Return start, next page, entries, free offset and type of a page not yet read."""
        if number > self._last:
            # Not named: in a damaged file the number may be a piece of a password.
            raise Damaged("it refers to a page beyond its end")
        if not self._unread[number]:
            raise Damaged(f"page {number} is referred to twice")
        self._unread[number] = 0
        start = number * self._size
        own, following, entries, free, _, kind = self._header.unpack_from(self._data, start + 8)
        # libdb leaves pages of unused buckets all zero.
        if kind != EMPTY and own != number:
            raise Damaged(f"page {number} carries the number of another")
        return start, following, entries, free, kind

    def _bucket_page(self, number: int, found: Records) -> int:
        """Add the page's records to *found*; return the page that continues the bucket, or 0."""
        start, following, entries, _, kind = self._page(number)
        if kind == EMPTY and not entries:
            return 0
        floor = PAGE_HEADER + 2 * entries
        if kind not in (SORTED, UNSORTED) or entries % 2 or floor > self._size:
            raise Damaged(f"page {number} is not a page of records")
        data = self._data
        pairs = iter(struct.unpack_from(f"{self._order}{entries}H", data, start + PAGE_HEADER))
        end = self._size
        for key_at, value_at in zip(pairs, pairs, strict=True):
            if not floor <= value_at < key_at < end:
                raise Damaged(f"page {number} has a record outside of itself")
            at, middle = start + value_at, start + key_at
            if data[at] == data[middle] == INLINE:
                found[data[middle + 1 : start + end]] = data[at + 1 : middle]
            else:
                name = self._item(middle, start + end)
                found[name] = self._item(at, middle)
            end = value_at
        return int(following)

    def _item(self, start: int, end: int) -> bytes:
        if self._data[start] == INLINE:
            return self._data[start + 1 : end]
        if self._data[start] != OFF_PAGE or end - start < OFF_PAGE_BYTES:
            raise Damaged("it holds a record of a kind no sasldb has")
        page, total = struct.unpack_from(f"{self._order}II", self._data, start + 4)
        whole = b"".join(self._chain(page))
        if len(whole) != total:
            raise Damaged(f"the long value that starts on page {page} is incomplete")
        return whole

    def _chain(self, number: int) -> Iterator[bytes]:
        while number:
            start, following, _, length, kind = self._page(number)
            if kind != OVERFLOW or length > self._size - PAGE_HEADER:
                raise Damaged(f"page {number} is not part of a long value")
            yield self._data[start + PAGE_HEADER : start + PAGE_HEADER + length]
            number = following


def _check_kind(magic: int, version: int) -> None:
    if magic != MAGIC:
        raise Damaged(f"it is {OTHER_KINDS[magic]} file of Berkeley DB; a sasldb is a hash file")
    if version not in READABLE_VERSIONS:
        raise Damaged(
            f"it is a Berkeley DB hash file of version {version}; versions 8 and 9 can be read: "
            "dump it with the db_dump of its Berkeley DB and load it with db5.3_load"
        )


def build(records: Records) -> bytes:
    """Return a version 9 file, little-endian, that holds *records* and nothing else."""
    return _Writer(records).file()


class _Writer:
    """Lays out buckets first, then the pages that continue them or hold long items."""

    def __init__(self, records: Records) -> None:
        self._records = records
        volume = sum(min(len(k), BIG) + min(len(v), BIG) + 6 for k, v in records.items())
        self._buckets = 2
        while volume > self._buckets * FILL:
            self._buckets *= 2
        self._further: list[bytes] = []

    def file(self) -> bytes:
        heads = [
            self._bucket(number, sorted(keys)) for number, keys in enumerate(self._shares(), 1)
        ]
        return b"".join([self._meta(), *heads, *self._further])

    def _shares(self) -> list[list[bytes]]:
        shares: list[list[bytes]] = [[] for _ in range(self._buckets)]
        keys = list(self._records)
        mask = self._buckets - 1
        for name, code in hashes(keys):
            shares[code & mask].append(name)
        return shares

    def _meta(self) -> bytes:
        top = self._buckets - 1
        generation = top.bit_length()
        head = struct.pack(
            "<6I4B2I", *NOT_LOGGED, 0, MAGIC, VERSION, PAGE, 0, HASH_META, 0, 0, 0,
            self._buckets + len(self._further),
        )  # fmt: skip
        counts = struct.pack("<4I", 0, 0, 0, 0) + os.urandom(20)
        ((_, charkey),) = hashes([CHARKEY])
        table = struct.pack("<6I", top, top, top >> 1, 0, len(self._records), charkey)
        spares = struct.pack("<32I", *[1] * (generation + 1), *[0] * (31 - generation))
        return (head + counts + table + spares).ljust(PAGE, b"\0")

    def _bucket(self, number: int, keys: Sequence[bytes]) -> bytes:
        """Return the bucket's first page; the others are added to the further pages."""
        pages = list(_paged(self._items(keys)))
        first = self._buckets + len(self._further) + 1
        numbers = [number, *range(first, first + len(pages) - 1), 0]
        rendered = [
            _render(numbers[i], numbers[i - 1] if i else 0, numbers[i + 1], items)
            for i, items in enumerate(pages)
        ]
        self._further += rendered[1:]
        return rendered[0]

    def _items(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        # A list, because long items must have their pages before the bucket is numbered.
        return iter([(self._item(name), self._item(self._records[name])) for name in keys])

    def _item(self, content: bytes) -> bytes:
        if len(content) <= BIG:
            return b"\1" + content
        room = PAGE - PAGE_HEADER
        parts = [content[at : at + room] for at in range(0, len(content), room)]
        first = self._buckets + len(self._further) + 1
        for number, part in enumerate(parts, first):
            before = number - 1 if number > first else 0
            after = number + 1 if number < first + len(parts) - 1 else 0
            head = _header(number, before, after, 1, len(part), OVERFLOW)
            self._further.append((head + part).ljust(PAGE, b"\0"))
        return struct.pack("<B3xII", OFF_PAGE, first, len(content))


def _paged(items: Iterable[tuple[bytes, bytes]]) -> Iterator[list[bytes]]:
    """Yield one page's items at a time; at least one page, which may be empty."""
    page: list[bytes] = []
    left = PAGE - PAGE_HEADER
    for name, value in items:
        need = len(name) + len(value) + 4
        if need > left:
            yield page
            page, left = [], PAGE - PAGE_HEADER
        page += (name, value)
        left -= need
    yield page


def _render(number: int, before: int, after: int, items: Sequence[bytes]) -> bytes:
    at = PAGE
    offsets = [at := at - len(item) for item in items]
    head = _header(number, before, after, len(items), at, SORTED)
    index = struct.pack(f"<{len(items)}H", *offsets)
    return (head + index).ljust(at, b"\0") + b"".join(reversed(items))


def _header(number: int, before: int, after: int, entries: int, free: int, kind: int) -> bytes:
    return struct.pack("<5I2H2B", *NOT_LOGGED, number, before, after, entries, free, 0, kind)


def hashes(keys: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield each key with its 32-bit FNV-1 hash (seed 0), in no particular order.

    Keys of one length are hashed together, each in a 64-bit lane of one large
    integer: a product of 32 and 25 bits cannot reach its neighbour. This makes
    writing 100,000 users three times as fast as a loop over bytes.
    """
    by_length: defaultdict[int, list[bytes]] = defaultdict(list)
    for name in keys:
        by_length[len(name)].append(name)
    for length, group in by_length.items():
        joined = b"".join(group)
        mask = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * len(group), "little")
        lanes = bytearray(8 * len(group))
        codes = 0
        for column in range(length):
            lanes[::8] = joined[column::length]
            codes = (codes * FNV_PRIME & mask) ^ int.from_bytes(lanes, "little")
        unpacked = struct.unpack(f"<{len(group)}Q", codes.to_bytes(8 * len(group), "little"))
        yield from zip(group, unpacked, strict=True)
