"""What front and workers say to each other: counted fields in one packet, bounded, no pickles."""

from collections.abc import Iterable

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)

COUNT_BYTES = 2
LARGEST_FIELD = 0xFFFF  # what a count can say
QUESTION_FIELDS = 5
LARGEST_QUESTION = QUESTION_FIELDS * (COUNT_BYTES + LARGEST_FIELD)
LARGEST_TEXT = 512  # bytes of what a worker says about its verdict
LARGEST_ANSWER = 2048
LONGEST_DELAY = 60_000  # milliseconds

ACCEPTED, REJECTED, UNAVAILABLE = b"yes", b"no", b"unavailable"
REASONS = {reason.name.encode(): reason for reason in Reason}


def encode(fields: Iterable[bytes]) -> bytes:
    """Return *fields*, each behind its count; ValueError where one is too long for it."""
    packet = bytearray()
    for field in fields:
        if len(field) > LARGEST_FIELD:
            raise ValueError("a field is longer than 65535 bytes")
        packet += len(field).to_bytes(COUNT_BYTES, "big")
        packet += field
    return bytes(packet)


def decode(packet: bytes, count: int) -> list[bytes]:
    """Return the *count* fields that *packet* consists of; MalformedMessage if it does not."""
    fields = []
    at = 0
    for _ in range(count):
        start = at + COUNT_BYTES
        at = start + int.from_bytes(packet[at:start], "big")
        fields.append(packet[start:at])
    if at != len(packet):
        raise MalformedMessage(f"a packet that is not {count} counted fields")
    return fields


def encode_question(request: AuthRequest) -> bytes:
    """Return what a worker is asked. ValueError where a field is too long."""
    origin = request.origin
    names = (request.user, origin.service, request.realm, origin.remote)
    return encode([request.password.reveal(), *(name.encode() for name in names)])


def decode_question(packet: bytes) -> AuthRequest:
    """Return the request in *packet*; when it was received, the front knows."""
    password, *names = decode(packet, QUESTION_FIELDS)
    try:
        user, service, realm, remote = (name.decode() for name in names)
    except UnicodeDecodeError:
        raise MalformedMessage("a name in a question is not UTF-8") from None
    return AuthRequest(user, Secret(password), realm, Origin(service, remote), 0.0)


def encode_answer(result: AuthResult) -> bytes:
    """Return *result* as a worker says it; a text that is too long is cut."""
    match result:
        case Accepted(text=text):
            fields = (ACCEPTED, "", text, 0)
        case Rejected(reason=reason, text=text, delay=delay):
            fields = (REJECTED, reason.name, text, min(int(delay * 1000), LONGEST_DELAY))
        case Unavailable(detail=detail):
            fields = (UNAVAILABLE, "", detail, 0)
    verdict, name, text, milliseconds = fields
    cut = text.encode(errors="backslashreplace")[:LARGEST_TEXT]
    return encode([verdict, name.encode(), cut, b"%d" % milliseconds])


def decode_answer(packet: bytes, user: str, backend: str) -> AuthResult:
    """Return the verdict in *packet* on *user* of *backend*; MalformedMessage where it is none."""
    verdict, name, cut, milliseconds = decode(packet, 4)
    text = cut.decode(errors="ignore")
    if verdict == ACCEPTED:
        return Accepted(user, backend, text)
    if verdict == UNAVAILABLE:
        return Unavailable(text, backend)
    reason = REASONS.get(name)
    # More digits than a packet has room for are more than int takes.
    is_number = milliseconds.isdigit() and len(milliseconds) <= LARGEST_ANSWER
    if verdict != REJECTED or reason is None or not is_number:
        raise MalformedMessage("an answer that is no verdict")
    return Rejected(reason, backend, text, min(int(milliseconds), LONGEST_DELAY) / 1000)
