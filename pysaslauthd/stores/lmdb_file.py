"""LMDB files, read as whole byte strings without liblmdb; writing is in `engines`.

liblmdb maps the file and trusts it: a cut-off or damaged one kills the process
with SIGBUS or SIGSEGV, and opening one to read needs write permission for its
lock file. A daemon that holds the passwords of a mail server can afford
neither. Layout: 64-bit little-endian pages of data version 1 (LMDB 0.9).
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pysaslauthd.stores.records import Damaged, Records

MAGIC = 0xBEEFC0DE
MAGIC_AT = 16
DATA_VERSION = 1
PAGE_SIZES = tuple(1 << bits for bits in range(8, 17))

PAGE_HEADER = 16
META_END = 152
NODE_HEADER = 8
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
OVERSIZE = 1  # node flag: the value is on overflow pages
NO_ROOT = 2**64 - 1
FIRST_DATA_PAGE = 2


class Span(NamedTuple):
    """A stretch of the file, in bytes."""

    start: int
    end: int


class _Tree(NamedTuple):
    entries: int
    root: int


class _Meta(NamedTuple):
    page_size: int
    map_size: int
    free: _Tree
    main: _Tree
    last: int
    transaction: int


def is_lmdb(head: bytes) -> bool:
    """Say whether *head* is how an LMDB file starts."""
    return head[MAGIC_AT : MAGIC_AT + 4] == MAGIC.to_bytes(4, "little")


def parse(data: bytes) -> Records:
    """Return every record of the newest transaction in *data*; Damaged if it cannot be."""
    reader = _Reader(data)
    records = dict(reader.nodes(reader.meta.main.root))
    if len(records) != reader.meta.main.entries:
        raise Damaged("it holds fewer records than it says")
    return records


def map_size(data: bytes) -> int:
    """Return how large, in bytes, the file says it may grow."""
    return _newest(data).map_size


def unused(data: bytes) -> list[Span]:
    """Return the stretches that belong to no record: what was deleted may still stand there."""
    reader = _Reader(data)
    for _ in reader.nodes(reader.meta.main.root):
        pass
    for _ in reader.nodes(reader.meta.free.root):
        pass
    size = reader.meta.page_size
    pages = [
        Span(number * size, (number + 1) * size)
        for number in range(FIRST_DATA_PAGE, reader.meta.last + 1)
        if not reader.seen[number]
    ]
    return pages + reader.gaps


def _newest(data: bytes) -> _Meta:
    first = _meta(data, 0)
    second = _meta(data, first.page_size)
    return max(first, second, key=lambda meta: meta.transaction)


def _meta(data: bytes, start: int) -> _Meta:
    if len(data) < start + META_END:
        raise Damaged("it is cut off within its first pages")
    flags, magic, version, map_size, size, options = struct.unpack_from(
        "<10xH4xII8xQI48xH", data, start
    )
    if magic != MAGIC or not flags & META or size not in PAGE_SIZES:
        raise Damaged("its first pages are damaged, or of a machine of another word size")
    if version != DATA_VERSION:
        raise Damaged(f"it is an LMDB file of data version {version}; version 1 can be read")
    if options:
        raise Damaged("it uses LMDB features no sasldb has (duplicates, integer keys)")
    free = _Tree(*struct.unpack_from("<QQ", data, start + 72))
    main = _Tree(*struct.unpack_from("<QQ", data, start + 120))
    last, transaction = struct.unpack_from("<QQ", data, start + 136)
    return _Meta(size, map_size, free, main, last, transaction)


class _Reader:
    """Walks the trees of one snapshot; no page is read twice, so damaged trees end."""

    def __init__(self, data: bytes) -> None:
        self.meta = _newest(data)
        size = self.meta.page_size
        if (self.meta.last + 1) * size > len(data):
            raise Damaged(f"it is cut off: {self.meta.last + 1} pages of {size} bytes are due")
        self._data = data
        self.seen = bytearray(self.meta.last + 1)
        self.gaps: list[Span] = []

    def nodes(self, root: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of every leaf below *root*, in key order."""
        pages = [root] if root != NO_ROOT else []
        while pages:
            number = pages.pop()
            kind, starts, end = self._page(number)
            if kind == BRANCH:
                pages += reversed([self._child(at) for at in starts])
            else:
                for at in starts:
                    yield self._leaf(at, end)

    def _claim(self, number: int, count: int = 1) -> int:
        """Mark pages as used and return where the first starts."""
        if not FIRST_DATA_PAGE <= number <= self.meta.last - count + 1:
            # Not named: in a damaged file the number may be a piece of a password.
            raise Damaged("it refers to a page outside of itself")
        if any(self.seen[number : number + count]):
            raise Damaged(f"page {number} is referred to twice")
        self.seen[number : number + count] = b"\1" * count
        return number * self.meta.page_size

    def _page(self, number: int) -> tuple[int, list[int], int]:
        """Return the kind of a tree page, where its nodes start, and where it ends."""
        start = self._claim(number)
        own, kind, lower, upper = struct.unpack_from("<Q2xHHH", self._data, start)
        size = self.meta.page_size
        if own != number or kind not in (BRANCH, LEAF):
            raise Damaged(f"page {number} is not a page of records")
        if not PAGE_HEADER <= lower <= upper <= size or lower % 2:
            raise Damaged(f"page {number} has impossible bounds")
        offsets = struct.unpack_from(f"<{(lower - PAGE_HEADER) // 2}H", self._data, start + 16)
        if any(not upper <= offset <= size - NODE_HEADER for offset in offsets):
            raise Damaged(f"page {number} has a record outside of itself")
        self.gaps.append(Span(start + lower, start + upper))
        return kind, [start + offset for offset in offsets], start + size

    def _child(self, at: int) -> int:
        low, middle, high = struct.unpack_from("<3H", self._data, at)
        return int(low | middle << 16 | high << 32)

    def _leaf(self, at: int, end: int) -> tuple[bytes, bytes]:
        low, high, flags, length = struct.unpack_from("<4H", self._data, at)
        size = low | high << 16
        name = at + NODE_HEADER
        value = name + length
        if flags & ~OVERSIZE or value + (8 if flags else size) > end:
            raise Damaged("it holds a record of a kind no sasldb has")
        if flags:
            return self._data[name:value], self._long(value, size)
        return self._data[name:value], self._data[value : value + size]

    def _long(self, at: int, size: int) -> bytes:
        (number,) = struct.unpack_from("<Q", self._data, at)
        count = -(-(PAGE_HEADER + size) // self.meta.page_size)
        start = self._claim(number, count)
        own, kind, pages = struct.unpack_from("<Q2xHI", self._data, start)
        if own != number or kind != OVERFLOW or pages != count:
            raise Damaged(f"page {number} is not a long value")
        end = start + count * self.meta.page_size
        self.gaps.append(Span(start + PAGE_HEADER + size, end))
        return self._data[start + PAGE_HEADER : start + PAGE_HEADER + size]
