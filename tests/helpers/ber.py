"""A second reading of BER, to compare with: definite lengths, tags of one byte (X.690)."""

from collections.abc import Iterator
from typing import Any

Tree = tuple[int, Any]
"""A tag and its content: bytes, or of what is constructed a list of trees."""

CONSTRUCTED = 0x20


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return tag and content of each element; IndexError where the last one is cut off."""
    while data:
        size, start = data[1], 2
        if size & 0x80:
            start = 2 + (size & 0x7F)
            size = sum(byte << 8 * power for power, byte in enumerate(reversed(data[2:start])))
        if len(data) < start + size:
            raise IndexError("cut off")
        yield data[0], data[start : start + size]
        data = data[start + size :]


def trees(data: bytes) -> list[Tree]:
    """Return the elements with what is inside them, down to the content that has no elements."""
    return [
        (tag, trees(content) if tag & CONSTRUCTED else content) for tag, content in elements(data)
    ]


def tree(data: bytes) -> Tree:
    """Return the one element that *data* is."""
    (found,) = trees(data)
    return found
