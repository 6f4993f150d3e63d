"""BER as LDAP restricts it. Vectors are from X.690 and RFC 4511 section 5.1, or built by hand."""

from collections.abc import Callable

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.wire import ber
from pysaslauthd.wire.ber import Reader


def reader(text: str) -> Reader:
    """Return what reads the bytes that *text* shows in hexadecimal."""
    data = bytes.fromhex(text)
    return Reader(data, 0, len(data))


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "02 01 00"),
        (1, "02 01 01"),
        (127, "02 01 7f"),
        (128, "02 02 00 80"),
        (255, "02 02 00 ff"),
        (256, "02 02 01 00"),
        (32767, "02 02 7f ff"),
        (32768, "02 03 00 80 00"),
        (0x7FFFFFFF, "02 04 7f ff ff ff"),
    ],
)
def test_a_number_takes_as_few_bytes_as_hold_its_sign(number: int, encoded: str) -> None:
    assert ber.integer(number) == bytes.fromhex(encoded)


def test_a_number_may_have_another_tag() -> None:
    assert ber.integer(3, ber.ENUMERATED) == bytes.fromhex("0a 01 03")


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "04 00"),
        (1, "04 01"),
        (127, "04 7f"),
        (128, "04 81 80"),
        (255, "04 81 ff"),
        (256, "04 82 01 00"),
        (65535, "04 82 ff ff"),
        (65536, "04 83 01 00 00"),
    ],
)
def test_a_length_takes_as_few_bytes_as_hold_it(size: int, header: str) -> None:
    assert ber.octets(b"x" * size) == bytes.fromhex(header) + b"x" * size


@pytest.mark.parametrize(
    ("encoded", "size"),
    [
        ("30 05", 5),
        ("30 7f", 127),
        ("30 81 05", 5),
        ("30 81 80", 128),
        ("30 82 01 00", 256),
        ("30 84 00 00 00 05", 5),  # as Active Directory writes all of its lengths
        ("30 84 ff ff ff ff", 0xFFFFFFFF),
    ],
)
def test_a_header_tells_where_its_element_ends(encoded: str, size: int) -> None:
    data = bytes.fromhex(encoded)

    assert ber.header(data, 0, len(data)) == (0x30, len(data), len(data) + size)


@pytest.mark.parametrize("cut", range(6))
def test_a_header_that_is_not_all_there_is_awaited(cut: int) -> None:
    data = bytes.fromhex("30 84 00 00 00 05")

    assert ber.header(data[:cut], 0, cut) is None


@pytest.mark.parametrize("encoded", ["30 80", "30 85 00 00 00 00 05", "30 ff"])
def test_a_length_that_is_indefinite_or_too_long_is_refused(encoded: str) -> None:
    data = bytes.fromhex(encoded)

    with pytest.raises(MalformedMessage, match="a length that is indefinite or too long"):
        ber.header(data, 0, len(data))


@pytest.mark.parametrize("encoded", ["1f 81 01", "3f 02", "bf 1f 00", "ff ff"])
def test_a_tag_of_several_bytes_is_refused(encoded: str) -> None:
    data = bytes.fromhex(encoded)

    with pytest.raises(MalformedMessage, match="a tag of several bytes"):
        ber.header(data, 0, len(data))


def test_elements_are_read_one_after_the_other() -> None:
    subject = reader("02 01 05 04 02 61 62 30 03 0a 01 02 85 00")

    assert subject.read_integer() == 5
    assert subject.read(ber.OCTET_STRING) == b"ab"
    assert subject.enter(ber.SEQUENCE).read_integer(ber.ENUMERATED) == 2
    assert subject.read_any() == (0x85, b"")
    assert not subject


def test_the_next_tag_can_be_seen_before_it_is_read() -> None:
    subject = reader("02 01 05")

    assert subject.next_tag == ber.INTEGER
    subject.read_integer()
    assert subject.next_tag is None


def test_a_reader_sees_nothing_outside_its_bounds() -> None:
    subject = Reader(bytes.fromhex("ff 02 01 05 ff"), 1, 4)

    assert subject.read_integer() == 5
    assert not subject


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("00", 0),
        ("7f", 127),
        ("80", -128),
        ("ff", -1),
        ("00 80", 128),
        ("00 00 01", 1),  # more bytes than needed
        ("7f ff ff ff ff ff ff ff", 0x7FFFFFFFFFFFFFFF),
    ],
)
def test_a_number_has_a_sign(content: str, number: int) -> None:
    size = len(bytes.fromhex(content))

    assert reader(f"02 {size:02x} {content}").read_integer() == number


Read = Callable[[Reader], object]


def read_octets(subject: Reader) -> object:
    return subject.read(ber.OCTET_STRING)


def enter_sequence(subject: Reader) -> object:
    return subject.enter(ber.SEQUENCE)


@pytest.mark.parametrize(
    ("encoded", "read", "problem"),
    [
        pytest.param("", Reader.read_any, "goes beyond its end", id="nothing"),
        pytest.param("04", Reader.read_any, "goes beyond its end", id="half-a-header"),
        pytest.param("04 81", Reader.read_any, "goes beyond its end", id="half-a-length"),
        pytest.param("04 02 61", Reader.read_any, "goes beyond its end", id="too-long"),
        pytest.param("04 84 ff ff ff ff 61", Reader.read_any, "goes beyond", id="far-too-long"),
        pytest.param("04 80 00 00", Reader.read_any, "indefinite or too long", id="indefinite"),
        pytest.param("1f 01 00", Reader.read_any, "several bytes", id="long-tag"),
        pytest.param("02 01 61", read_octets, "of tag 0x2 instead of 0x4", id="wrong-tag"),
        pytest.param("31 00", enter_sequence, "of tag 0x31 instead of 0x30", id="set-for-sequence"),
        pytest.param("30 05 04", enter_sequence, "goes beyond its end", id="sequence-too-long"),
        pytest.param("02 00", Reader.read_integer, "a number of no bytes", id="empty-number"),
        pytest.param("02 09" + "00" * 9, Reader.read_integer, "or of too many", id="long-number"),
        pytest.param("0a 01 01", Reader.read_integer, "tag 0xa instead of 0x2", id="enumerated"),
    ],
)
def test_what_is_no_such_element_is_malformed(encoded: str, read: Read, problem: str) -> None:
    subject = reader(encoded)

    with pytest.raises(MalformedMessage, match=problem):
        read(subject)


def test_an_inner_element_cannot_reach_beyond_the_outer_one() -> None:
    outer = reader("30 03 04 02 61 62")

    with pytest.raises(MalformedMessage, match="goes beyond its end"):
        outer.enter(ber.SEQUENCE).read(ber.OCTET_STRING)
