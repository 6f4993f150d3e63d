"""The form of `-a httpform`, filled in as the C daemon does it, and an answer's words made safe.

Facts: protocols/backends.md section 6.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from pysaslauthd.model import Secret

TOKEN = re.compile(rb"%([upr%])")
# Only these stay as they are; `-._~` would too by RFC 3986, and by the C daemon do not.
LETTERS_AND_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ENCODED = [bytes([byte]) if byte in LETTERS_AND_DIGITS else b"%%%02X" % byte for byte in range(256)]

LONGEST_PHRASE = 256  # characters; what a log shows of a value


class Form:
    """What is posted: *template* with %u (name), %p (password), %r (realm) and %% replaced."""

    def __init__(self, template: str) -> None:
        self._pieces = TOKEN.split(template.encode())

    def fill(self, user: str, password: bytes, realm: str) -> bytes:
        """Return the form for these; none of them can end its own field."""
        values = {
            b"u": encode(user.encode()),
            b"p": encode(password),
            b"r": encode(realm.encode()),
            b"%": b"%",
        }
        # The template's own texts and its tokens take turns.
        return b"".join(
            values[piece] if number % 2 else piece for number, piece in enumerate(self._pieces)
        )


def encode(value: bytes) -> bytes:
    """Return *value* percent-encoded."""
    return b"".join([ENCODED[byte] for byte in value])


def presentable(phrase: bytes, secret: Secret) -> str:
    """Return a server's *phrase* fit for a log and a reply; "" where it repeats *secret*."""
    if any(secret.shows_in(spelling) for spelling in _spellings(phrase)):
        return ""
    text = phrase.decode(errors="replace")[:LONGEST_PHRASE]
    return "".join(character if character.isprintable() else "?" for character in text).strip()


def _spellings(text: bytes) -> Iterator[bytes]:
    """Return what *text* may say: as it is and decoded; its charset may not be the request's."""
    for decoded in (text, unquote_to_bytes(text), unquote_to_bytes(text.replace(b"+", b" "))):
        yield decoded
        yield decoded.decode("latin-1").encode()
        yield decoded.decode(errors="ignore").encode("latin-1", errors="ignore")
