"""The Dovecot auth-client protocol, server side, without sockets.

Lines end in LF, fields in TAB; within a field TAB, LF, CR, NUL and 0x01 are escaped.
Requests of Dovecot's own master are not served. Facts: protocols/dovecot-auth.md; where
that is silent, what Dovecot 2.3 does.
"""

import binascii
import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Origin, Secret

MAJOR, MINOR = 1, 2  # of Dovecot 2.3; with a higher minor number more would be expected of us
LONGEST_LINE = 16_384  # bytes with its LF, as in Dovecot; longer ones end the connection
LONGEST_VALUE = 256  # characters of what is kept of a line for as long as its request lasts
LARGEST_NUMBER = 0xFFFF_FFFF
NUMBER_DIGITS = 10
LAST_PORT = 0xFFFF
NO_VERSION = -1
TELLS_EMPTY_RESPONSE = 2  # the minor version from which on `resp=` is not "none"

INITIAL_GARBLED = "Invalid base64 data in initial response"
RESPONSE_GARBLED = "Invalid base64 data in continued response"
NOT_PENDING = "Authentication request timed out"  # the reason also for one that never was
UNEXPECTED = "Unexpected continuation"

NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"  # with it, two names would be one

ESCAPES = {"\0": "0", "\1": "1", "\t": "t", "\r": "r", "\n": "n"}
ESCAPED = str.maketrans({character: f"\1{letter}" for character, letter in ESCAPES.items()})
UNESCAPED = {letter: character for character, letter in ESCAPES.items()}
ESCAPE = re.compile("\1(.?)", re.DOTALL)


class About(NamedTuple):
    """What a mail server tells of its client.

    *secured*: nobody reads along. *certificate*: who the client is by its certificate.
    *final_beside_success*: a success may carry the mechanism's last message.
    *nodelay*: a refusal need not wait.
    """

    origin: Origin
    secured: bool = False
    certificate: str | None = None
    final_beside_success: bool = False
    nodelay: bool = False


class Garbled(NamedTuple):
    """What stands where base64 should."""


GARBLED = Garbled()


class Auth(Struct, frozen=True):  # which costs a quarter of a NamedTuple
    """Begin request *number*. *initial*: None where there is no initial response."""

    number: int
    mechanism: str
    about: About
    initial: Secret | Garbled | None


class Continue(NamedTuple):
    """What the client of request *number* responds."""

    number: int
    response: Secret | Garbled


class Cancel(NamedTuple):
    """Nobody wants to know the answer to request *number* any more."""

    number: int


Message: TypeAlias = Auth | Continue | Cancel


class Decoder:
    """Bytes of one connection to messages; its handshake is dealt with here."""

    def __init__(self) -> None:
        self._rest = b""
        self._minor = NO_VERSION
        self._has_named_itself = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that *data* completes, in order.

        MalformedMessage, after those before it, where Dovecot would close the connection: so
        should the caller.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if len(line) >= LONGEST_LINE:
                raise _too_long()
            if b"\0" in line:
                raise MalformedMessage("a NUL in a line")
            command, _, arguments = line.rstrip(b"\r").partition(b"\t")
            if self._has_named_itself:
                yield _message(command, arguments, self._minor)
            else:
                self._shake_hands(command, arguments)
        if len(self._rest) >= LONGEST_LINE:
            raise _too_long()

    def _shake_hands(self, command: bytes, arguments: bytes) -> None:
        if self._minor == NO_VERSION:
            self._minor = _minor_version(command, arguments)
        else:
            _check_process(command, arguments)
            self._has_named_itself = True


def _minor_version(command: bytes, arguments: bytes) -> int:
    fields = arguments.split(b"\t")
    if command != b"VERSION" or len(fields) != 2:
        raise MalformedMessage("the first line is not VERSION with two numbers")
    major, minor = map(_number, fields)
    if major != MAJOR:
        raise MalformedMessage(f"protocol version {major}: only {MAJOR} is known here")
    return minor


def _check_process(command: bytes, arguments: bytes) -> None:
    if command != b"CPID":
        raise MalformedMessage("the second line is not CPID")
    _number(arguments, least=1)


def _message(command: bytes, arguments: bytes, minor: int) -> Message:
    if command == b"AUTH":
        return _auth(arguments, minor)
    if command == b"CONT":
        number, tab, data = arguments.partition(b"\t")
        if not tab:
            raise MalformedMessage("CONT has no data")
        return Continue(_number(number), _decoded(data))
    if command == b"CANCEL":
        return Cancel(_number(arguments))
    raise MalformedMessage("an unknown command")


def _auth(arguments: bytes, minor: int) -> Auth:
    rest, has_initial, initial = arguments.partition(b"\tresp=")
    if b"\t" in initial:
        raise MalformedMessage("AUTH has something after its initial response")
    number, _, request = rest.partition(b"\t")
    mechanism, about = _request(request)
    said = _initial(initial, minor) if has_initial else None
    return Auth(_number(number, 1), mechanism, about, said)


def _initial(text: bytes, minor: int) -> Secret | Garbled | None:
    if text not in {b"", b"="}:
        return _decoded(text)
    # Exim writes an empty one where its client has said nothing.
    return Secret(b"") if text or minor >= TELLS_EMPTY_RESPONSE else None


def _decoded(text: bytes) -> Secret | Garbled:
    try:
        return Secret(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error:
        return GARBLED


def _number(text: bytes, least: int = 0) -> int:
    """Return what *text* says in digits; MalformedMessage where that is no number of 32 bits."""
    if text.isdigit() and len(text) <= NUMBER_DIGITS:
        number = int(text)
        if least <= number <= LARGEST_NUMBER:
            return number
    raise MalformedMessage("what should be a number of 32 bits is none")


@lru_cache(maxsize=256)  # most are those of one client after the other, or of a few in turn
def _request(text: bytes) -> tuple[str, About]:
    name, _, parameters = text.partition(b"\t")
    mechanism = name.decode("ascii", "replace").upper()
    return mechanism, _about(mechanism, parameters)


def _about(mechanism: str, parameters: bytes) -> About:
    """Return what *parameters* say; what is unknown there, or makes no sense, is ignored."""
    values = {}
    for field in parameters.split(b"\t"):
        name, _, value = field.partition(b"=")
        values[name] = _unescaped(value)
    service = values.get(b"service", values.get(b"protocol"))  # the latter from Dovecot 2.4 on
    if service is None:
        raise MalformedMessage("AUTH has no service")
    if "\0" in service:
        raise MalformedMessage("a NUL in a service")
    if len(service) > LONGEST_VALUE:
        raise MalformedMessage(f"a service of more than {LONGEST_VALUE} characters")
    name_of_certificate = values.get(b"cert_username", "")
    is_known = b"valid-client-cert" in values and _is_name(name_of_certificate)
    return About(
        Origin(
            service,
            _endpoint(values, b"rip", b"rport"),
            mechanism,
            _endpoint(values, b"lip", b"lport"),
        ),
        secured=b"secured" in values,
        certificate=name_of_certificate if is_known else None,
        final_beside_success=b"final-resp-ok" in values,
        nodelay=b"nodelay" in values,
    )


def _endpoint(values: dict[bytes, str], its_address: bytes, its_port: bytes) -> str:
    """Return `address;port`, as the mux protocol has it; what there is of it."""
    address, port = values.get(its_address, ""), values.get(its_port, "")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return ""
    if not _is_name(address):  # in the scope of one of IPv6
        return ""
    is_number = port.isascii() and port.isdigit() and len(port) <= NUMBER_DIGITS
    is_port = is_number and 0 < int(port) <= LAST_PORT
    return f"{address};{port}" if is_port else address


def _is_name(value: str) -> bool:
    return 0 < len(value) <= LONGEST_VALUE and value.isprintable() and NOT_UTF8 not in value


def _unescaped(value: bytes) -> str:
    return ESCAPE.sub(
        lambda found: UNESCAPED.get(found[1], found[1]), value.decode(errors="replace")
    )


def encode_greeting(
    mechanisms: Iterable[tuple[str, Iterable[str]]], process: int, connection: int, cookie: str
) -> bytes:
    """Return all that a client is told before it says anything.

    *mechanisms*: names, each with its flags. Whole, and at once: Exim up to 4.98 reads to its end
    before it writes; and Exim and Postfix take MECH after SPID for a sign of another protocol.
    """
    lines = [
        f"VERSION\t{MAJOR}\t{MINOR}",
        *("\t".join(("MECH", name, *flags)) for name, flags in mechanisms),
        f"SPID\t{process}",
        f"CUID\t{connection}",
        f"COOKIE\t{cookie}",
        "DONE\n",
    ]
    return "\n".join(lines).encode()


def encode_challenge(number: int, data: bytes) -> bytes:
    """Return what has the client of request *number* told *data*."""
    return b"CONT\t%d\t%b\n" % (number, binascii.b2a_base64(data, newline=False))


def encode_success(
    number: int, user: str, *, is_anonymous: bool = False, final: bytes | None = None
) -> bytes:
    """Return the news that *user* is in; *final* is what the mechanism says besides.

    Nothing else is ever said with it: Postfix and Exim see `user` only, and would let in
    whom a further field keeps out.
    """
    line = f"OK\t{number}\tuser={user if user.isprintable() else user.translate(ESCAPED)}"
    if is_anonymous:
        line += "\tanonymous"
    if final is not None:
        line += f"\tresp={binascii.b2a_base64(final, newline=False).decode()}"
    return f"{line}\n".encode()


def encode_failure(number: int, user: str = "", code: str = "", reason: str = "") -> bytes:
    """Return the news that request *number* has failed; Postfix shows *reason* to the client."""
    line = f"FAIL\t{number}"
    for name, value in (("user", user), ("code", code), ("reason", reason)):
        if value:
            line += f"\t{name}={value.translate(ESCAPED)}"
    return f"{line}\n".encode()


def _too_long() -> MalformedMessage:
    return MalformedMessage(f"a line of {LONGEST_LINE} bytes or more")
