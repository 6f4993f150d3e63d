"""The saslauthd mux protocol, both ends, without sockets.

A request is four counted strings (login, password, service, realm), or five in
clients built from unreleased sources (the client's address); one connection
carries one request and one reply. See docs/differences.md for what the C
daemon does otherwise.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Origin, Rejected, Secret

COUNT_BYTES = 2
OUTAGE_REPLY = b"\0\0"  # libsasl: SASL_FAIL, its descriptor closed; Postfix 454, Exim defers


class Limits(NamedTuple):
    """The most bytes each field may have; the C daemon's 256 cannot carry a token."""

    login: int = 1024
    password: int = 8192
    service: int = 1024
    realm: int = 1024
    remote: int = 1024

    @property
    def request(self) -> int:
        """The most bytes a whole request may have."""
        return sum(self) + COUNT_BYTES * len(self)


FIELD_NAMES = ("login", "password", "service", "realm", "client address")
REQUIRED_FIELDS = 4


class RefusedRequest(MalformedMessage):
    """A request that no backend is asked about: the text is for the log, *reply* for the peer."""

    def __init__(self, text: str, reply: bytes) -> None:
        super().__init__(text)
        self.reply = reply


def decode_request(
    data: bytes, received: float, limits: Limits, *, final: bool = False
) -> AuthRequest | None:
    """Return the request at the start of *data*, or None while it is incomplete.

    Four fields are a request when nothing follows them: a four-field client
    waits for its answer. Any further byte announces a fifth, which is awaited
    unless *final* says that no more will come. Bytes after the fifth field are
    ignored. Raises RefusedRequest, as soon as a count is over its limit.
    """
    size = len(data)
    fields: list[bytes] = []
    at = 0
    for limit in limits:
        start = at + COUNT_BYTES
        if start > size:
            break
        at = start + (data[at] << 8) + data[at + 1]
        if at - start > limit:
            name = FIELD_NAMES[len(fields)]
            raise RefusedRequest(f"{name} exceeded MAX_REQ_LEN: {limit}", encode_reply("NO "))
        if at > size:
            break
        fields.append(data[start:at])
        if at == size:
            break
    if len(fields) == len(limits):
        return _request(fields, received, remote=fields[REQUIRED_FIELDS])
    if len(fields) == REQUIRED_FIELDS and (final or at == size):
        return _request(fields, received, remote=b"")
    return None


def awaits_address(data: bytes, limits: Limits) -> bool:
    """Say whether *data* holds all but the rest of an announced fifth field."""
    return (
        decode_request(data, 0.0, limits) is None
        and decode_request(data, 0.0, limits, final=True) is not None
    )


def _request(fields: list[bytes], received: float, *, remote: bytes) -> AuthRequest:
    login, password, service, realm = fields[:REQUIRED_FIELDS]
    if not login:
        raise _refusal("NULL login received")
    if not password:
        raise _refusal("NULL password received")
    if b"\0" in password:
        raise _refusal("NUL byte in password")
    return AuthRequest(
        _name(login, "login"),
        Secret(password),
        _name(realm, "realm"),
        _origin(service, remote),
        received,
    )


def _name(field: bytes, what: str) -> str:
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise _refusal(f"{what} is not UTF-8") from None
    # Nearly every name is printable, and that is one quick call.
    if not text.isprintable():
        _refuse_characters(text, what, "\0\r\n\t")
    return text


@lru_cache(maxsize=256)  # few services, and few clients in a row: most requests share these
def _origin(service: bytes, remote: bytes) -> Origin:
    texts = []
    for field, what in ((service, "service"), (remote, "client address")):
        try:
            text = field.decode()
        except UnicodeDecodeError:
            raise _refusal(f"{what} is not UTF-8") from None
        _refuse_characters(text, what, "\0")
        texts.append(text)
    return Origin(*texts)


NAMED_CHARACTERS = {"\0": "NUL byte", "\r": "CR", "\n": "LF", "\t": "TAB"}


def _refuse_characters(text: str, what: str, refused: Iterable[str]) -> None:
    for character in refused:
        if character in text:
            raise _refusal(f"{NAMED_CHARACTERS[character]} in {what}")


def _refusal(text: str) -> RefusedRequest:
    return RefusedRequest(text, encode_reply(f"NO {text}"))


def encode_reply(text: str) -> bytes:
    """Return *text* as a counted reply; libsasl and Exim read at most 1023 bytes of it."""
    body = text.encode()[:1023]
    return len(body).to_bytes(COUNT_BYTES, "big") + body


PLAIN_OK = encode_reply("OK")
PLAIN_NO = encode_reply("NO")


def encode_result(result: AuthResult, on_outage: bytes) -> bytes:
    """Return the reply that tells a client *result*; *on_outage* is sent where nobody knows."""
    match result:
        case Accepted(text=""):
            return PLAIN_OK
        case Accepted(text=text):
            return encode_reply(f"OK {text}")
        case Rejected(text=""):
            return PLAIN_NO
        case Rejected(text=text):
            return encode_reply(f"NO {text}")
    return on_outage


def encode_request(
    login: bytes, password: bytes, service: bytes, realm: bytes, remote: bytes | None = None
) -> bytes:
    """Return a request of four fields, or of five where *remote* (`addr;port`) is given.

    Raises ValueError where a field is longer than its 16-bit count can say.
    """
    fields = [login, password, service, realm]
    if remote is not None:
        fields.append(remote)
    if any(len(field) > 0xFFFF for field in fields):
        raise ValueError("a field is longer than 65535 bytes")
    return b"".join(len(field).to_bytes(COUNT_BYTES, "big") + field for field in fields)


def decode_reply(data: bytes) -> bytes | None:
    """Return the text of the reply at the start of *data*, or None while it is incomplete."""
    if len(data) < COUNT_BYTES:
        return None
    end = COUNT_BYTES + int.from_bytes(data[:COUNT_BYTES], "big")
    return data[COUNT_BYTES:end] if len(data) >= end else None
