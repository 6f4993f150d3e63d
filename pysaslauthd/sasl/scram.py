"""SCRAM (RFC 5802, 7677): what both halves compute, and how their messages are written.

Attributes are one letter, `=` and a value, between commas; their order is fixed
and is for the halves to check.
"""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage

LARGEST_MESSAGE = 2048  # bytes: what libsasl takes, and a multiple of what anybody sends

ATTRIBUTE = re.compile(r"([A-Za-z])=([^\0,]+)")
BARE_EQUALS_SIGN = re.compile("=(?!2C|3D)")
NONCE = re.compile(r"[!-+\--~]+")


class Scram(NamedTuple):
    """The computations of RFC 5802 section 3 with one hash function, by its name in hashlib."""

    digest: str

    def salted_password(self, password: bytes, salt: bytes, iterations: int) -> bytes:
        """Return SaltedPassword; *password* is prepared. Takes as long as *iterations* say."""
        return hashlib.pbkdf2_hmac(self.digest, password, salt, iterations)

    def client_key(self, salted_password: bytes) -> bytes:
        """Return ClientKey, which the client proves to know."""
        return hmac.digest(salted_password, b"Client Key", self.digest)

    def stored_key(self, client_key: bytes) -> bytes:
        """Return StoredKey, with which a server checks the proof."""
        return hashlib.new(self.digest, client_key).digest()

    def server_key(self, salted_password: bytes) -> bytes:
        """Return ServerKey, which the server proves to know."""
        return hmac.digest(salted_password, b"Server Key", self.digest)

    def signature(self, key: bytes, auth_message: bytes) -> bytes:
        """Return ClientSignature, of StoredKey as *key*, or ServerSignature, of ServerKey."""
        return hmac.digest(key, auth_message, self.digest)


SHA_1 = Scram("sha1")
SHA_256 = Scram("sha256")
SHA_512 = Scram("sha512")


def exclusive_or(one: bytes, other: bytes) -> bytes:
    """Return ClientProof of ClientKey and ClientSignature; ClientKey of proof and signature."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def parse_attributes(message: bytes) -> list[tuple[str, str]]:
    """Return letter and value of each attribute in *message*; MalformedMessage where it has others.

    An `m` among them is refused: it announces an extension that must be understood.
    """
    if len(message) > LARGEST_MESSAGE:
        raise MalformedMessage(f"a SCRAM message of more than {LARGEST_MESSAGE} bytes")
    try:
        parts = message.decode().split(",")
    except UnicodeDecodeError:
        raise MalformedMessage("a SCRAM message that is not UTF-8") from None
    found = [ATTRIBUTE.fullmatch(part) for part in parts]
    attributes = [(one[1], one[2]) for one in found if one]
    if len(attributes) < len(parts):
        raise MalformedMessage("a SCRAM message that is not made of attributes")
    if any(letter == "m" for letter, _ in attributes):
        raise MalformedMessage("a SCRAM message with a mandatory extension")
    return attributes


def escape(name: str) -> str:
    """Return *name* as a saslname, which has no comma."""
    return name.replace("=", "=3D").replace(",", "=2C")


def unescape(saslname: str) -> str:
    """Return the name that *saslname* stands for; MalformedMessage where it is none."""
    if "," in saslname or BARE_EQUALS_SIGN.search(saslname):
        raise MalformedMessage("a name with an unescaped character")
    return saslname.replace("=2C", ",").replace("=3D", "=")


def encode_base64(value: bytes) -> str:
    """Return *value* as it stands in an attribute."""
    return base64.b64encode(value).decode()


def decode_base64(text: str) -> bytes:
    """Return the bytes that *text* stands for; MalformedMessage unless it is their one spelling."""
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedMessage("a SCRAM message with something that is not base64") from None
    # Python overlooks bits that no byte needs, and superfluous padding.
    if encode_base64(value) != text:
        raise MalformedMessage("a SCRAM message with something that is not base64")
    return value
