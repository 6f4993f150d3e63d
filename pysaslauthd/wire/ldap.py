"""LDAPv3 as a client of a directory speaks it, without sockets (RFC 4511).

Requests are made as protocol operations, to which `message` gives a number;
what a server sends is decoded to entries and results. Names and values stay
bytes: they go back as they came.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.wire import ber
from pysaslauthd.wire.ber import ENUMERATED, OCTET_STRING, SEQUENCE, SET, Reader

LARGEST_MESSAGE = 1 << 20  # bytes; what is asked for here is far smaller

BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
UNBIND_REQUEST = 0x42
SEARCH_REQUEST, SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE = 0x63, 0x64, 0x65, 0x73
COMPARE_REQUEST, COMPARE_RESPONSE = 0x6E, 0x6F
ABANDON_REQUEST = 0x50
EXTENDED_REQUEST, EXTENDED_RESPONSE = 0x77, 0x78
INTERMEDIATE_RESPONSE = 0x79
RESULTS = frozenset({BIND_RESPONSE, SEARCH_DONE, COMPARE_RESPONSE, EXTENDED_RESPONSE})

CONTEXT_0, CONTEXT_1, CONTEXT_7 = 0x80, 0x81, 0x87
CONTROLS, REFERRAL, SASL = 0xA0, 0xA3, 0xA3
EXTENDED_VALUE = 0x8B

VERSION = ber.integer(3)
START_TLS_OID = b"1.3.6.1.4.1.1466.20037"
WHO_AM_I_OID = b"1.3.6.1.4.1.4203.1.11.3"
NO_ATTRIBUTES = (b"1.1",)
PLAIN = 12  # bytes of a result with nothing but its code

# draft-behera-ldap-password-policy-10, section 6: asked for, and told with the answer to a bind.
PASSWORD_POLICY_OID = b"1.3.6.1.4.1.42.2.27.8.5.1"
PASSWORD_POLICY_REQUEST = ber.encode(
    CONTROLS, ber.encode(SEQUENCE, ber.octets(PASSWORD_POLICY_OID))
)

SCOPES = {"base": 0, "one": 1, "sub": 2}
DEREFERENCES = {"never": 0, "search": 1, "find": 2, "always": 3}


class SearchRules(NamedTuple):
    """What is the same in every search: *scope*, *deref* by their words; the server's bounds."""

    scope: str = "sub"
    deref: str = "never"
    size_limit: int = 0
    time_limit: int = 0


class Entry(NamedTuple):
    """What a search has found: a name, and by lower-case description the values asked for."""

    dn: bytes
    attributes: Mapping[bytes, tuple[bytes, ...]]


class Result(NamedTuple):
    """The end of an operation; *kind* is the tag of its response.

    *diagnostic* is text in which bytes that are no UTF-8 stand as lone surrogates.
    *credentials* is what the server has to say in a SASL bind. *value* is an
    extended operation's. *policy_error* is the password policy's word about a
    bind, None where it has none.
    """

    kind: int
    code: int
    diagnostic: str = ""
    referrals: tuple[bytes, ...] = ()
    credentials: bytes | None = None
    value: bytes | None = None
    policy_error: int | None = None


class Received(NamedTuple):
    """A message of the server's: what it says about the request of that number."""

    message_id: int
    content: Entry | Result


def message(message_id: int, operation: bytes, controls: bytes = b"") -> bytes:
    """Return *operation*, made by one of the functions here, as the message of that number."""
    return ber.encode(SEQUENCE, ber.integer(message_id) + operation + controls)


def simple_bind(dn: bytes, password: bytes) -> bytes:
    """Return the request to be *dn*; ValueError where that is no question about a password.

    An empty password, or an empty name, is always right (RFC 4513 sections 5.1.1, 5.1.2).
    """
    if not dn.strip() or not password:
        raise ValueError("a bind without a name or a password")
    return ber.encode(BIND_REQUEST, VERSION + ber.octets(dn) + ber.encode(CONTEXT_0, password))


def sasl_bind(mechanism: str, credentials: bytes | None) -> bytes:
    """Return one step of a SASL bind; no credentials and empty ones are different."""
    said = b"" if credentials is None else ber.octets(credentials)
    sasl = ber.encode(SASL, ber.octets(mechanism.encode()) + said)
    return ber.encode(BIND_REQUEST, VERSION + ber.octets(b"") + sasl)


def search(
    base: bytes,
    rules: SearchRules,
    filter_: bytes,
    attributes: tuple[bytes, ...] = NO_ATTRIBUTES,
) -> bytes:
    """Return the request for entries that *filter_* (see `ldap_filter`) fits."""
    bounds, wanted = _encode_rules(rules), _encode_attributes(attributes)
    return ber.encode(SEARCH_REQUEST, ber.octets(base) + bounds + filter_ + wanted)


@lru_cache(maxsize=16)  # a backend has few, and each search one of them
def _encode_rules(rules: SearchRules) -> bytes:
    return (
        ber.integer(SCOPES[rules.scope], ENUMERATED)
        + ber.integer(DEREFERENCES[rules.deref], ENUMERATED)
        + ber.integer(rules.size_limit)
        + ber.integer(rules.time_limit)
        + ber.encode(ber.BOOLEAN, b"\0")  # values too, not types only
    )


@lru_cache(maxsize=16)
def _encode_attributes(attributes: tuple[bytes, ...]) -> bytes:
    return ber.encode(SEQUENCE, b"".join(map(ber.octets, attributes)))


def compare(dn: bytes, attribute: bytes, value: bytes) -> bytes:
    """Return the question whether *attribute* of *dn* has *value*."""
    assertion = ber.encode(SEQUENCE, ber.octets(attribute) + ber.octets(value))
    return ber.encode(COMPARE_REQUEST, ber.octets(dn) + assertion)


def extended(oid: bytes) -> bytes:
    """Return the request for an extended operation that needs no value."""
    return ber.encode(EXTENDED_REQUEST, ber.encode(CONTEXT_0, oid))


def abandon(message_id: int) -> bytes:
    """Return the word that the answer to a message is not wanted any more; it has no answer."""
    return ber.integer(message_id, ABANDON_REQUEST)


UNBIND = ber.encode(UNBIND_REQUEST, b"")


class Decoder:
    """Takes the bytes of a server and gives its messages; after an error there are no more."""

    def __init__(self, largest: int = LARGEST_MESSAGE) -> None:
        self._largest = largest
        self._rest = bytearray()
        self._needed = 0  # bytes, until which there is nothing to look at in the rest
        self._problem: MalformedMessage | None = None

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing is left over of what was fed."""
        return not self._rest

    def feed(self, data: bytes) -> list[Received]:
        """Return what is whole by now. MalformedMessage where it is no LDAP, or too large."""
        if self._problem is not None:
            raise self._problem
        try:
            return self._feed(data)
        except MalformedMessage as problem:
            self._problem = problem
            raise

    def _feed(self, data: bytes) -> list[Received]:
        if self._rest:
            # However small the pieces are in which a large message comes, it is copied once.
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        return self._split(data)

    def _split(self, data: bytes) -> list[Received]:
        found: list[Received] = []
        at, size = 0, len(data)
        self._needed = 0
        while (outer := ber.header(data, at, size)) is not None:
            tag, start, end = outer
            if tag != SEQUENCE:
                raise MalformedMessage(f"a message of tag {tag:#x}")
            if end - at > self._largest:
                raise MalformedMessage(f"a message of {end - at} bytes")
            if end > size:
                self._needed = end - at
                break
            decoded = _decode(Reader(data, start, end))
            if decoded is not None:
                found.append(decoded)
            at = end
        self._rest += data[at:]
        return found


def _decode(reader: Reader) -> Received | None:
    """Return the message in *reader*; None for kinds that nothing here waits for."""
    message_id = reader.read_integer()
    tag = reader.next_tag
    if tag == SEARCH_ENTRY:
        return Received(message_id, _entry(reader.enter(SEARCH_ENTRY)))
    if tag in RESULTS:
        rest = reader.read_rest()
        known = len(rest) <= PLAIN
        return Received(message_id, _plain_result(rest) if known else _result(rest))
    if tag not in {SEARCH_REFERENCE, INTERMEDIATE_RESPONSE}:
        raise MalformedMessage("no operation" if tag is None else f"an operation of tag {tag:#x}")
    return None  # a reference is not followed: it might lead anywhere


def _entry(reader: Reader) -> Entry:
    dn = reader.read(OCTET_STRING)
    attributes = {}
    several = reader.enter(SEQUENCE)
    while several:
        attribute = several.enter(SEQUENCE)
        description = attribute.read(OCTET_STRING)
        values = attribute.enter(SET)
        found = []
        while values:
            found.append(values.read(OCTET_STRING))
        attributes[description.lower()] = tuple(found)
    return Entry(dn, attributes)


def _result(data: bytes) -> Result:
    """Return the result that a message has behind its number."""
    reader = Reader(data, 0, len(data))
    kind = data[0]
    inside = reader.enter(kind)
    code = inside.read_integer(ENUMERATED)
    inside.read(OCTET_STRING)  # the nearest entry that exists; nothing here asks for it
    diagnostic = inside.read(OCTET_STRING)
    referrals = _referrals(inside)
    said: dict[int, bytes] = {}
    while inside:
        tag, content = inside.read_any()
        said[tag] = content
    return Result(
        kind,
        code,
        diagnostic.decode(errors="surrogateescape"),
        referrals,
        said.get(CONTEXT_7),
        said.get(EXTENDED_VALUE),
        _policy_error(reader),
    )


# Nearly all results say no more than a code, of which there are few: each is decoded once.
_plain_result = lru_cache(maxsize=64)(_result)


def _referrals(reader: Reader) -> tuple[bytes, ...]:
    found = []
    if reader.next_tag == REFERRAL:
        uris = reader.enter(REFERRAL)
        while uris:
            found.append(uris.read(OCTET_STRING))
    return tuple(found)


def _policy_error(reader: Reader) -> int | None:
    """Return what the password policy says, if one of the message's controls is its."""
    error = None
    if reader.next_tag == CONTROLS:
        controls = reader.enter(CONTROLS)
        while controls:
            control = controls.enter(SEQUENCE)
            if control.read(OCTET_STRING) == PASSWORD_POLICY_OID:
                if control.next_tag == ber.BOOLEAN:
                    control.read_any()
                if control.next_tag == OCTET_STRING:
                    value = control.read(OCTET_STRING)
                    error = _policy_response(Reader(value, 0, len(value)))
    return error


def _policy_response(reader: Reader) -> int | None:
    response = reader.enter(SEQUENCE)
    if response.next_tag == CONTROLS:  # a warning: how much time, or how many logins are left
        response.read_any()
    return response.read_integer(CONTEXT_1) if response.next_tag == CONTEXT_1 else None
