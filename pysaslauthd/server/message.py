"""The message that follows DATA, read to its end in one piece."""

from asyncio import LimitOverrunError, StreamReader

LINE_TOO_LONG = "500 5.5.2 Error: line too long"
MESSAGE_TOO_LARGE = "552 5.3.4 Error: message size exceeds fixed limit"

# A line counts as so many bytes at least: aiosmtplib makes objects of a message's line ends,
# so that one of empty lines would need forty times its size for a moment.
SHORTEST_LINE = 16


async def read_message(reader: StreamReader, most: int) -> bytes | str:
    """Return what comes before the lone dot, without the dots that were put in.

    (RFC 5321 section 4.5.2.) The reply that refuses it, once all has come, where it
    has more than *most* bytes, or a line that is longer than the reader's limit.
    """
    message, size, refusal, begins = bytearray(), 0, "", True
    while True:
        piece, ends = await _read_piece(reader)
        if begins and piece == b".\r\n":
            return refusal or bytes(message)
        if not ends:
            refusal = refusal or LINE_TOO_LONG
        size += max(len(piece), SHORTEST_LINE)
        if size > most:
            refusal = refusal or MESSAGE_TOO_LARGE
        if not refusal:
            message += piece.removeprefix(b".") if begins else piece
        begins = ends


async def _read_piece(reader: StreamReader) -> tuple[bytes, bool]:
    """Return a line, or of one that is too long a part; and whether that is its end."""
    try:
        return await reader.readuntil(b"\r\n"), True
    except LimitOverrunError as error:
        return await reader.readexactly(error.consumed), False
