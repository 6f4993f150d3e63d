"""DIGEST-MD5 (RFC 2831): what both halves compute, and how their messages are written.

Of its qualities of protection only `auth` is here, and of its authentications only
the initial one, whose nonce count is one. Messages are lists of directives, read as
liberally as clients and servers write them (protocols/mechanisms.md section 6).
"""

import re
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.md5 import md5

CHALLENGE_BOUND = 2048  # bytes: a challenge has fewer (RFC 2831 section 2.1.1)
RESPONSE_BOUND = 4096  # and a response (section 2.1.2)
NONCE_COUNT = b"00000001"
QUALITY = b"auth"

SPACE = rb"[ \t\r\n]*"
TOKEN = rb"[!#$%&'*+\-.0-9A-Z^_`a-z|~]+"
QUOTED = rb'"((?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\[\t -~])*)"'
DIRECTIVE = re.compile(
    rb"(%b)%b=%b(?:%b|(%b))%b(?:,[ \t\r\n,]*|\Z)" % (TOKEN, SPACE, SPACE, QUOTED, TOKEN, SPACE)
)

Directives = dict[str, list[bytes]]


def parse_directives(message: bytes, bound: int) -> Directives:
    """Return the values in *message*, without quotes, by their keys in small letters.

    MalformedMessage where it is no list of directives, or has *bound* bytes or more.
    """
    if len(message) >= bound:
        raise MalformedMessage(f"a DIGEST-MD5 message of {bound} bytes or more")
    directives: Directives = {}
    rest = message.lstrip(b" \t\r\n,")
    at = 0
    while at < len(rest):
        found = DIRECTIVE.match(rest, at)
        if not found:
            raise MalformedMessage("a DIGEST-MD5 message that is no list of directives")
        key, quoted, token = found.groups()
        value = unquote(quoted) if token is None else token
        directives.setdefault(key.decode().lower(), []).append(value)
        at = found.end()
    return directives


def single(directives: Directives, key: str) -> bytes | None:
    """Return the value of *key*, None if there is none; MalformedMessage if there are several."""
    values = directives.get(key, [None])
    if len(values) > 1:
        raise MalformedMessage(f"a DIGEST-MD5 message with more than one {key}")
    return values[0]


def quote(value: bytes) -> bytes:
    """Return *value* as a quoted string; it has no control characters."""
    return b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", value)


def unquote(inside: bytes) -> bytes:
    """Return what stands between the quotes of a quoted string, without its backslashes."""
    return re.sub(rb"\\(.)", rb"\1", inside)


def hashed_form(value: bytes) -> bytes:
    """Return what of a user name, realm or password in UTF-8 enters the hash.

    It is in ISO 8859-1 if that has all of its characters (RFC 2831 section
    2.1.2.1): HTTP's databases of hashes are. Bytes that are not UTF-8, as a
    password's may be, enter as they are.
    """
    try:
        return value.decode().encode("latin-1")
    except UnicodeError:
        return value


def secret_hash(username: bytes, realm: bytes, password: bytes) -> bytes:
    """Return the 16 bytes that a server may keep in a password's stead; all in `hashed_form`."""
    return md5(b":".join([username, realm, password]))


class Said(NamedTuple):
    """What challenge and response say that enters the proofs."""

    nonce: bytes
    cnonce: bytes
    digest_uri: bytes
    authzid: bytes = b""


def client_proof(secret: bytes, said: Said) -> bytes:
    """Return the response-value of who knows *secret*, which is a `secret_hash`."""
    return _proof(secret, said, b"AUTHENTICATE:" + said.digest_uri)


def server_proof(secret: bytes, said: Said) -> bytes:
    """Return the value of rspauth (RFC 2831 section 2.1.3)."""
    return _proof(secret, said, b":" + said.digest_uri)


def _proof(secret: bytes, said: Said, a2: bytes) -> bytes:
    a1 = b":".join([secret, said.nonce, said.cnonce, *filter(None, [said.authzid])])
    between = [said.nonce, NONCE_COUNT, said.cnonce, QUALITY]
    return _hex_md5(b":".join([_hex_md5(a1), *between, _hex_md5(a2)]))


def _hex_md5(data: bytes) -> bytes:
    return md5(data).hex().encode()
