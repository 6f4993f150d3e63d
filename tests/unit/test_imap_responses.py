"""What an IMAP server says: which responses it is cut into, and how much is too much."""

import itertools

import pytest

from pysaslauthd.wire.imap_responses import (
    LINE_BYTES,
    MOST_BYTES,
    Response,
    ResponseReader,
    Unexpected,
    parse_capabilities,
)


def responses(*chunks: bytes) -> list[Response]:
    """Return what a reader makes of *chunks*."""
    reader = ResponseReader()
    found = []
    for chunk in chunks:
        reader.feed(chunk)
        while (response := reader.next()) is not None:
            found.append(response)
    return found


def parts(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return tag, status, code and arguments of the one response in *line*."""
    (response,) = responses(line)
    assert response.said == line.rstrip(b"\r\n")
    return response[:4]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"* OK ready\r\n", (b"*", b"OK", b"", b""), id="greeting"),
        pytest.param(b"* OK\r\n", (b"*", b"OK", b"", b""), id="no-text"),
        pytest.param(b"* OK \r\n", (b"*", b"OK", b"", b""), id="empty-text"),
        pytest.param(b"* OK ready\n", (b"*", b"OK", b"", b""), id="bare-lf"),
        pytest.param(b"* BYE gone\r\n", (b"*", b"BYE", b"", b""), id="bye"),
        pytest.param(b"* PREAUTH joe\r\n", (b"*", b"PREAUTH", b"", b""), id="preauth"),
        pytest.param(b"* ok ready\r\n", (b"*", b"OK", b"", b""), id="lower-case"),
        pytest.param(
            b"saslauthd NO [ALERT] x\r\n", (b"saslauthd", b"NO", b"ALERT", b""), id="code"
        ),
        pytest.param(b"a NO [alert]\r\n", (b"a", b"NO", b"ALERT", b""), id="code-only"),
        pytest.param(
            b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n",
            (b"*", b"OK", b"CAPABILITY", b"IMAP4rev1 AUTH=PLAIN"),
            id="code-with-arguments",
        ),
        pytest.param(b"a NO [ALERT\r\n", (b"a", b"NO", b"", b""), id="bracket-never-closed"),
        pytest.param(b"a NO no [ALERT]\r\n", (b"a", b"NO", b"", b""), id="bracket-in-the-text"),
        pytest.param(b"a NO []\r\n", (b"a", b"NO", b"", b""), id="empty-code"),
        pytest.param(
            b"* CAPABILITY IMAP4rev1 ID\r\n",
            (b"*", b"", b"CAPABILITY", b" IMAP4rev1 ID"),
            id="capabilities",
        ),
        pytest.param(b"* 3 EXISTS\r\n", (b"*", b"", b"3", b" EXISTS"), id="data"),
        pytest.param(b"*\r\n", (b"*", b"", b"", b""), id="star-only"),
        pytest.param(b"+ go on\r\n", (b"+", b"", b"GO", b" on"), id="continuation"),
        pytest.param(b"+\r\n", (b"+", b"", b"", b""), id="bare-continuation"),
        pytest.param(b"+ OK\r\n", (b"+", b"", b"OK", b""), id="continuation-is-no-status"),
        pytest.param(b"a OKAY\r\n", (b"a", b"", b"OKAY", b""), id="no-status"),
        pytest.param(b"a NO {5}\r\n", (b"a", b"NO", b"", b""), id="text-is-no-literal"),
    ],
)
def test_a_line_is_a_response(line: bytes, expected: tuple[bytes, ...]) -> None:
    assert parts(line) == expected


@pytest.mark.parametrize("line", [b"\r\n", b"\n", b" OK\r\n", b"\t\r\n"], ids=repr)
def test_a_line_without_a_tag_is_no_response(line: bytes) -> None:
    with pytest.raises(Unexpected, match="a line that is no response"):
        responses(line)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"* LIST () {3}\r\na\r\n\r\n", id="one-literal"),
        pytest.param(b"* LIST () {0}\r\n\r\n", id="empty-literal"),
        pytest.param(b"* X {3}\r\nabc {2}\r\nde {1}\r\nf\r\n", id="several"),
        pytest.param(b"* X {5}\r\n{9}\r\n rest\r\n", id="literal-that-looks-like-one"),
        pytest.param(b"* X {13}\r\na OK forged\r\n\r\n", id="literal-that-looks-like-an-answer"),
        pytest.param(b"* X ~{2}\r\n\0\0\r\n", id="literal8"),
        pytest.param(b"* X {1}\na\n", id="bare-lf"),
    ],
)
def test_data_end_after_their_literals(data: bytes) -> None:
    found = responses(data + b"saslauthd OK\r\n")

    assert [response.tag for response in found] == [b"*", b"saslauthd"]


DIALOGUE = b"* OK [ALERT] hi\r\n* X {4}\r\nsasl {1}\r\n\n\r\n+\r\nsaslauthd NO [X y] {3}\r\n"


@pytest.mark.parametrize("cut", range(len(DIALOGUE) + 1))
def test_a_cut_changes_nothing(cut: int) -> None:
    assert responses(DIALOGUE[:cut], DIALOGUE[cut:]) == responses(DIALOGUE)


def test_single_bytes_change_nothing() -> None:
    assert responses(*(bytes([byte]) for byte in DIALOGUE)) == responses(DIALOGUE)


@pytest.mark.parametrize("data", [b"", b"* OK", b"* X {3}\r\n", b"* X {3}\r\nab", b"* X {1}\r\na"])
def test_what_has_not_ended_is_awaited(data: bytes) -> None:
    assert responses(data) == []


@pytest.mark.parametrize("size", [LINE_BYTES, LINE_BYTES - 1])
def test_a_long_line_is_taken(size: int) -> None:
    assert len(responses(b"* OK".ljust(size - 2, b"x") + b"\r\n")) == 1


@pytest.mark.parametrize(
    "data", [b"x" * (LINE_BYTES + 1), b"x" * LINE_BYTES + b"\n"], ids=["endless", "whole"]
)
def test_a_line_that_is_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(Unexpected, match=f"a line of more than {LINE_BYTES} bytes"):
        responses(data)


def test_a_second_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(Unexpected, match="a line of more than"):
        responses(b"* OK\r\n" + b"x" * LINE_BYTES, b"x")


@pytest.mark.parametrize("size", [MOST_BYTES, 9999999999])
def test_a_literal_that_is_too_long_is_refused_when_it_is_announced(size: int) -> None:
    with pytest.raises(Unexpected, match=f"more than {MOST_BYTES} bytes"):
        responses(b"* X {%d}\r\n" % size)


def test_endless_lines_are_refused() -> None:
    lines = itertools.repeat(b"* OK still here\r\n", MOST_BYTES // 16)

    with pytest.raises(Unexpected, match=f"more than {MOST_BYTES} bytes"):
        responses(*lines)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "line", [b"* OK [" + b"x" * 8000, b"* OK [" + b"x " * 4000, b"* " * 4000, b" *" * 4000]
)
def test_no_line_takes_longer_than_it_is_long(line: bytes) -> None:
    for _ in range(100):
        responses(b"*" + line + b"\r\n")


@pytest.mark.timeout(5)
def test_what_comes_bit_by_bit_is_not_looked_at_again_and_again() -> None:
    literals = itertools.repeat(b"{0}\r\n", MOST_BYTES // 5 - 2)

    assert responses(b"* X {0}\r\n", *literals) == []


def test_what_came_before_a_command_is_early() -> None:
    reader = ResponseReader()
    reader.feed(b"* OK\r\n* 1\r\nsaslauthd OK\r\nsaslauth")

    greeting = reader.next()
    reader.note_command()
    early = [reader.next(), reader.next(), reader.next()]
    reader.feed(b"d NO\r\n+\r\n")
    later = [reader.next(), reader.next()]

    assert greeting is not None
    assert not greeting.is_early
    assert [response and response.is_early for response in early] == [True, True, None]
    assert [response and response.is_early for response in later] == [True, False]


def test_it_tells_whether_something_is_left() -> None:
    reader = ResponseReader()
    before = reader.has_more()
    reader.feed(b"* OK\r\n*")
    reader.next()

    assert not before
    assert reader.has_more()


def test_capabilities_are_words_in_any_case() -> None:
    assert parse_capabilities(b" IMAP4rev1  auth=plain ") == {b"IMAP4REV1", b"AUTH=PLAIN"}
