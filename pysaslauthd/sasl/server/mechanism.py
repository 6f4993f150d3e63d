"""What a mechanism is to a server: a record, and a script of what it says and what it asks.

A script reads top to bottom like its RFC. It does no I/O: where it needs something,
a message of the client's or a password, it yields a step and goes on with the answer.
"""

from collections.abc import Callable, Generator
from enum import Enum
from typing import NamedTuple, TypeAlias, cast

from msgspec import Struct

from pysaslauthd.model import Accepted, AuthResult, Reason, Rejected, Secret, Unavailable
from pysaslauthd.sasl.nonces import Nonces, random_nonce


class Traits(NamedTuple):
    """What security options ask about, as Dovecot's MECH lines have it (mechanisms.md section 2).

    The first four are weaknesses: who listens learns the password, may try
    passwords on what was said, may change what is said; nobody is named. The
    other two are strengths: the server proves itself; a password that becomes
    known later opens nothing that was said before.
    """

    plaintext: bool = False
    dictionary: bool = False
    active: bool = False
    anonymous: bool = False
    mutual_auth: bool = False
    forward_secrecy: bool = False


class Need(Enum):
    """What a server must have for a mechanism to be of any use."""

    NOTHING = "nothing"
    PASSWORD_CHECK = "a backend that says whether a password is right"  # noqa: S105 (a text)
    STORED_PASSWORD = "a backend that has the passwords themselves"  # noqa: S105 (a text)
    EXTERNAL_IDENTITY = "a client that proves who it is by a certificate"
    CHANNEL_BINDING = "stored passwords, and TLS that ends here"


class ChannelBinding(NamedTuple):
    """What a connection is in TLS (RFC 5056): the *type*'s name, such as tls-server-end-point."""

    type: str
    data: bytes


class Surroundings(NamedTuple):
    """What one exchange knows of where it takes place.

    *host* is the server's own name. *realm*, which DIGEST-MD5 offers, may be "".
    *key* is the process's own: what is derived from it is the same for a name as
    long as the process lives. *channel_binding*: None where no -PLUS mechanism is
    offered. *external*: who the client is by its certificate.
    """

    host: str
    key: Secret
    service: str = "smtp"
    realm: str = ""
    nonces: Nonces = random_nonce
    channel_binding: ChannelBinding | None = None
    external: str | None = None


class Challenge(NamedTuple):
    """Say *data* to the client; the answer is its response."""

    data: bytes


# The next and the end are made for each request: a Struct costs a quarter of a NamedTuple.
class CheckPassword(Struct, frozen=True):
    """Find out whether *password* is *authcid*'s; the answer is the verdict."""

    authcid: str
    password: Secret


class FetchPassword(NamedTuple):
    """Look up *authcid*'s password; the answer is a Stored, or Unavailable."""

    authcid: str


class Compute(NamedTuple):
    """Do *work*, which takes milliseconds, outside of the GIL; the answer is its result."""

    work: Callable[[], bytes]


class Stored(NamedTuple):
    """The *password* of *user*, who is known to the backend of that name.

    Where there is no such user it is a decoy, and *refusal* is the verdict
    whatever the client proves: nothing that it sees tells the two apart.
    """

    user: str
    password: Secret
    backend: str
    refusal: Rejected | None = None

    def verdict(self, *, is_proven: bool) -> AuthResult:
        """Return what it means that the client has proven, or not, to know the password.

        Nobody knows one that is empty: a backend may have it for an account without any.
        """
        if self.refusal is not None:
            return self.refusal
        if not is_proven or not self.password.reveal():
            return Rejected(Reason.WRONG_PASSWORD, self.backend)
        return Accepted(self.user, self.backend)


class Finished(Struct, frozen=True):
    """The end: the *result* for *authcid*, who wants to act as *authzid* ("": as itself).

    *data* is what a success has to tell the client (RFC 4422 section 3.6). Whether
    *authcid* may act as *authzid* is not decided here.
    """

    result: AuthResult
    authcid: str
    authzid: str = ""
    data: bytes | None = None


Step: TypeAlias = Challenge | CheckPassword | FetchPassword | Compute
Answer: TypeAlias = bytes | AuthResult | Stored
Script: TypeAlias = Generator[Step, Answer, Finished]
"""A mechanism's steps in order. MalformedMessage, which it may raise, is the client's fault."""


class Mechanism(NamedTuple):
    """A way to authenticate. *start* is given the initial response, None where there is none.

    *reads*: where an initial response says all, what is in it: what is to be checked, and the
    authzid. MalformedMessage where it is none. To check it and be done is what *start*'s script
    does, too.
    """

    name: str
    need: Need
    traits: Traits
    start: Callable[[Surroundings, bytes | None], Script]
    reads: Callable[[bytes], tuple[CheckPassword, str]] | None = None


def say(data: bytes) -> Generator[Step, Answer, bytes]:
    """Send a challenge; return the response."""
    return cast("bytes", (yield Challenge(data)))


def first_message(initial: bytes | None) -> Generator[Step, Answer, bytes]:
    """Return what a client says that is to speak first: asked by an empty challenge if need be."""
    return initial if initial is not None else (yield from say(b""))


def check(authcid: str, password: bytes) -> Generator[Step, Answer, AuthResult]:
    """Return the verdict on a password."""
    return cast("AuthResult", (yield CheckPassword(authcid, Secret(password))))


def compute(work: Callable[[], bytes]) -> Generator[Step, Answer, bytes]:
    """Return what *work* does, which takes milliseconds."""
    return cast("bytes", (yield Compute(work)))


def fetch(authcid: str) -> Generator[Step, Answer, Stored | Unavailable]:
    """Return what is stored for a user, a decoy where there is none; or that nobody knows."""
    return cast("Stored | Unavailable", (yield FetchPassword(authcid)))
