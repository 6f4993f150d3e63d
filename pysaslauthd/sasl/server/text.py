"""What clients say as text: the one place where a server's mechanisms decode it.

Names are taken as they are sent. SASLprep, which RFC 4616 recommends for comparisons,
is left to who compares: backends know users by names that nobody prepared, a name that
it changes could not be asked of them any more, and one account would have two names in
log and throttle. SCRAM, where clients prepare (RFC 5802 section 5.1), does it itself.
"""

import re

from pysaslauthd.errors import MalformedMessage

LONGEST_NAME = 255  # bytes (RFC 4616 section 2); longer ones are nobody's
LONGEST_PASSWORD = 1024  # bytes: what libsasl's LOGIN takes, and saslauthd's clients may send

CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def name(value: bytes, what: str, encoding: str = "utf-8") -> str:
    """Return *value* as a name; MalformedMessage where it is not one that could be logged."""
    if len(value) > LONGEST_NAME:
        raise MalformedMessage(f"the {what} has more than {LONGEST_NAME} bytes")
    try:
        text = value.decode(encoding)
    except UnicodeDecodeError:
        raise MalformedMessage(f"the {what} is not UTF-8") from None
    if not text.isprintable() and CONTROL.search(text):  # the former is one quick call
        raise MalformedMessage(f"the {what} has a control character")
    return text


def is_utf8(value: bytes) -> bool:
    """Say whether *value* could be text in UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def required_name(value: bytes, what: str, encoding: str = "utf-8") -> str:
    """Return *value* as a name that is not empty; MalformedMessage where it is none."""
    if not value:
        raise MalformedMessage(f"there is no {what}")
    return name(value, what, encoding)


def password(value: bytes) -> bytes:
    """Return *value*, which stays bytes; MalformedMessage where it is no password to ask about.

    An empty one never is: directories take it for a wish to be anonymous, and say yes.
    """
    if not value:
        raise MalformedMessage("there is no password")
    if len(value) > LONGEST_PASSWORD:
        raise MalformedMessage(f"the password has more than {LONGEST_PASSWORD} bytes")
    if b"\0" in value:
        raise MalformedMessage("the password has a NUL")
    return value
