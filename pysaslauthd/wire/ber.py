"""The part of BER that LDAP uses: definite lengths, tags of one byte (RFC 4511 section 5.1)."""

from pysaslauthd.errors import MalformedMessage

BOOLEAN, INTEGER, OCTET_STRING, ENUMERATED, SEQUENCE, SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31
SHORT_FORM = 0x80  # a length below this stands in the one byte
LONGEST_LENGTH = 4  # bytes
LARGEST_INTEGER = 8  # bytes; the largest that LDAP has are of 4
LONG_TAG = 0x1F  # these bits of a first byte: more bytes of the tag follow


def encode(tag: int, content: bytes) -> bytes:
    """Return *content* behind its tag and length."""
    size = len(content)
    if size < SHORT_FORM:
        return bytes((tag, size)) + content
    digits = (size.bit_length() + 7) // 8
    return bytes((tag, SHORT_FORM | digits)) + size.to_bytes(digits, "big") + content


def integer(number: int, tag: int = INTEGER) -> bytes:
    """Return *number*, which is not negative, in as few bytes as hold it and its sign."""
    size = number.bit_length() // 8 + 1
    return bytes((tag, size)) + number.to_bytes(size, "big")


def octets(content: bytes) -> bytes:
    """Return *content* as an OCTET STRING."""
    return encode(OCTET_STRING, content)


def header(data: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """Return tag, start and end of the element at *at*, or None while its header is not all there.

    Its own end may lie beyond *end*. MalformedMessage where no length is told.
    """
    start = at + 2
    if start > end:
        return None
    tag, size = data[at], data[at + 1]
    if tag & LONG_TAG == LONG_TAG:
        raise MalformedMessage("a tag of several bytes")
    if size >= SHORT_FORM:
        digits = size - SHORT_FORM
        if not 0 < digits <= LONGEST_LENGTH:
            raise MalformedMessage("a length that is indefinite or too long")
        start += digits
        if start > end:
            return None
        size = int.from_bytes(data[start - digits : start], "big")
    return tag, start, start + size


class Reader:
    """Goes through the elements that stand in *data* from *at* to *end*, one after the other."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self._at = at
        self._end = end

    def __bool__(self) -> bool:
        return self._at < self._end

    @property
    def next_tag(self) -> int | None:
        """The tag of the next element, None at the end."""
        return self._data[self._at] if self._at < self._end else None

    def enter(self, tag: int) -> "Reader":
        """Return what goes through the next element, which must have that tag."""
        start, end = self._next_of(tag)
        return Reader(self._data, start, end)

    def read(self, tag: int) -> bytes:
        """Return the content of the next element, which must have that tag."""
        start, end = self._next_of(tag)
        return self._data[start:end]

    def read_integer(self, tag: int = INTEGER) -> int:
        """Return the number that the next element is; its tag must be *tag*."""
        content = self.read(tag)
        if not 0 < len(content) <= LARGEST_INTEGER:
            raise MalformedMessage("a number of no bytes, or of too many")
        return int.from_bytes(content, "big", signed=True)

    def read_any(self) -> tuple[int, bytes]:
        """Return tag and content of the next element."""
        tag, start, end = self._next()
        return tag, self._data[start:end]

    def read_rest(self) -> bytes:
        """Return all that is left."""
        at, self._at = self._at, self._end
        return self._data[at : self._end]

    def _next_of(self, tag: int) -> tuple[int, int]:
        data, start = self._data, self._at + 2
        if start <= self._end and data[start - 2] == tag:
            end = start + data[start - 1]
            if end <= self._end and data[start - 1] < SHORT_FORM:  # as nearly all of them are
                self._at = end
                return start, end
        found, start, end = self._next()
        if found != tag:
            raise MalformedMessage(f"an element of tag {found:#x} instead of {tag:#x}")
        return start, end

    def _next(self) -> tuple[int, int, int]:
        found = header(self._data, self._at, self._end)
        if found is None or found[2] > self._end:
            raise MalformedMessage("an element that goes beyond its end")
        self._at = found[2]
        return found
