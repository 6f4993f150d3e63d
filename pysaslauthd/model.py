"""The values that travel between the layers: secrets, requests, verdicts.

Nothing here does I/O. A refusal is a value; "could not find out" is another,
and is never turned into "no" on the way.
"""

from collections.abc import Mapping
from enum import Enum
from hmac import compare_digest
from typing import NamedTuple, NoReturn

TELLING_BYTES = 4  # so much of a secret is not shown either


class Secret:
    """Bytes that never print and compare in constant time.

    Python cannot wipe memory: the bytes live until the interpreter reuses
    them, which is why the daemon forbids core dumps.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def matches(self, other: bytes) -> bool:
        """Say whether *other* is the same secret; the time does not tell where they differ."""
        return compare_digest(other, self._value)

    def reveal(self) -> bytes:
        """Return the bytes; for backends that must hand them on."""
        return self._value

    def shows_in(self, text: bytes) -> bool:
        """Say whether *text*, such as a server's answer, repeats it, and must not be shown.

        Its beginning is enough, in any case: servers cut what they repeat.
        """
        return self._value[:TELLING_BYTES].lower() in text.lower()

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    __hash__ = None  # type: ignore[assignment]  # a dictionary would compare in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


class Origin(NamedTuple):
    """Where a request came from: the application's service name and its client's address.

    *mechanism*: the SASL mechanism's name, where the door speaks SASL itself. *local*: the
    application's own address, to which the client came. Addresses are `address;port` or less.
    """

    service: str
    remote: str = ""
    mechanism: str = ""
    local: str = ""


class AuthRequest(NamedTuple):
    """One question: may *user* of *realm* in with *password*?

    *received* is `time.monotonic()` at or after the moment the last byte was
    read: what a backend has looked up since then is fresh enough to answer.
    """

    user: str
    password: Secret
    realm: str
    origin: Origin
    received: float


class Lookup(NamedTuple):
    """What a store of passwords is asked for: *user* of *realm*; *received* as in AuthRequest."""

    user: str
    realm: str
    received: float


class Reason(Enum):
    """Why a request was refused; a closed set, fit for counting."""

    NO_SUCH_USER = "no such user"
    WRONG_PASSWORD = "wrong password"  # noqa: S105 (a word for the log)
    ACCOUNT_EXPIRED = "account expired"
    PASSWORD_EXPIRED = "password expired"  # noqa: S105 (the same)
    ACCOUNT_LOCKED = "account locked"
    PASSWORD_MUST_CHANGE = "password must be changed"  # noqa: S105 (the same)
    MALFORMED = "malformed message"
    NO_AUTHORISATION = "may not act as somebody else"
    DENIED = "denied"  # by policy: not for this service, not from this address, in no such group


class Accepted(NamedTuple):
    """Yes. *text* is what the C daemon's reply carries after `OK `, where it has such a text."""

    user: str
    backend: str
    text: str = ""


class Rejected(NamedTuple):
    """No, for *reason*. *text* is what the reply carries after `NO `.

    *delay*: seconds for which the backend wants the reply held, lest guessing be quick.
    *detail*: what the log says where the reply, as the C daemon's, has no text.
    """

    reason: Reason
    backend: str
    text: str = ""
    delay: float = 0.0
    detail: str = ""


class Unavailable(NamedTuple):
    """Could not find out; *detail* says why, for the log only."""

    detail: str
    backend: str


AuthResult = Accepted | Rejected | Unavailable
VERDICTS = (Accepted, Rejected, Unavailable)  # for isinstance, on the hot path


class Deadlines(NamedTuple):
    """How many seconds a backend may take: *default*, or what *by_service* has for a service."""

    default: float
    by_service: Mapping[str, float]

    def of(self, service: str) -> float:
        """Return the seconds for a request of *service*."""
        return self.by_service.get(service, self.default)

    @property
    def longest(self) -> float:
        """The most seconds any request may take."""
        return max([self.default, *self.by_service.values()])
