"""What the engine asks of a backend.

To add one: a module of this package with a class that fulfils `PasswordVerifier`,
a contract test (tests/contract), and its name in `plugins`.
"""

from collections.abc import Awaitable
from enum import Enum
from typing import Protocol, TypeAlias

from pysaslauthd.model import AuthRequest, AuthResult, Lookup, Rejected, Secret, Unavailable

Found: TypeAlias = Secret | Rejected | Unavailable


class Naming(Enum):
    """How a backend wants to be told whom it is asked about; it matters under `-r`."""

    PAIR = "name and realm, whatever `-r` says; a realm always"
    JOINED = "under `-r` user@realm, and no realm"
    BOTH = "under `-r` user@realm, and the realm too"


class PasswordVerifier(Protocol):
    """Answers whether a password is right.

    - A wrong password, an unknown user: `Rejected`. Could not find out:
      `Unavailable`. An exception is a bug.
    - What is known without waiting is returned as a value, anything else as
      an awaitable; the engine bounds the wait. What is cancelled then may say what
      it was waiting for, by `add_note` on the CancelledError.
    - *naming*: which form of name and realm it knows users by.
    - *waits*: it asks elsewhere, so its good answers are worth caching.
    - *uses_address*: the client's address is part of the question.
    """

    name: str
    naming: Naming
    waits: bool
    uses_address: bool

    def verify(self, request: AuthRequest, /) -> AuthResult | Awaitable[AuthResult]:
        """Return the verdict on *request*, or what to wait for to have it."""
        ...

    async def open(self) -> None:
        """Get ready before the first request; an outage is logged and is no reason to fail."""
        ...

    def retire(self) -> None:
        """Keep only what the requests that are under way need: no other will come."""
        ...

    async def close(self) -> None:
        """Let go of everything held; no request is in flight any more."""
        ...


class SecretStore(Protocol):
    """Has the passwords themselves, which CRAM-MD5, DIGEST-MD5 and SCRAM compute with.

    For it holds what holds for `PasswordVerifier`; an unknown user is `Rejected`.
    """

    name: str
    naming: Naming

    def fetch(self, lookup: Lookup, /) -> Found | Awaitable[Found]:
        """Return a user's password, or why there is none, or what to wait for to have it."""
        ...


class BlockingVerifier(Protocol):
    """Answers the same question in a worker process, where it may block, hang or crash.

    One request at a time; what it returns crosses to the front, so its texts
    carry no secret and no hash. An exception becomes `Unavailable`, and is logged.
    """

    def check(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict on *request*."""
        ...
