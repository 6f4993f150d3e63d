"""What clients say as text: the one place where a server's mechanisms decode it."""

from pysaslauthd.errors import MalformedMessage

LONGEST_NAME = 255  # bytes (RFC 4616 section 2); longer ones are nobody's


def name(value: bytes, what: str) -> str:
    """Return *value* as a name; MalformedMessage where it is not one that could be logged."""
    if len(value) > LONGEST_NAME:
        raise MalformedMessage(f"the {what} has more than {LONGEST_NAME} bytes")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise MalformedMessage(f"the {what} is not UTF-8") from None
    if any(character < " " or character == "\x7f" for character in text):
        raise MalformedMessage(f"the {what} has a control character")
    return text
