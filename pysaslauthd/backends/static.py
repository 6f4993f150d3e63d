"""Users that are given, not looked up: for programs that have their own, and to try things out."""

from collections.abc import Mapping

from pysaslauthd.backends.base import Found, Naming
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Lookup,
    Reason,
    Rejected,
    Secret,
)

NAME = "static"
NO_SUCH_USER = Rejected(Reason.NO_SUCH_USER, NAME)
WRONG_PASSWORD = Rejected(Reason.WRONG_PASSWORD, NAME)
DECOY = Secret(b"compared with where there is no such user")


class Static:
    """A backend of *users*: their passwords by their names, which are as clients say them.

    So `joe` and `joe@example.com` are two users; a realm is part of a name.
    """

    name = NAME
    naming = Naming.JOINED
    waits = False
    uses_address = False

    def __init__(self, users: Mapping[str, Secret]) -> None:
        self._users = dict(users)

    async def open(self) -> None:
        """Do nothing: all is there."""

    def retire(self) -> None:
        """Do nothing: all stays there."""

    async def close(self) -> None:
        """Do nothing: the users are the caller's."""

    def verify(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict at once."""
        stored = self._users.get(_name(request.user, request.realm))
        if (stored or DECOY).matches(request.password.reveal()) and stored is not None:
            return Accepted(request.user, NAME)
        return NO_SUCH_USER if stored is None else WRONG_PASSWORD

    def fetch(self, lookup: Lookup, /) -> Found:
        """Return a user's password at once."""
        return self._users.get(_name(lookup.user, lookup.realm), NO_SUCH_USER)


def _name(user: str, realm: str) -> str:
    return f"{user}@{realm}" if realm else user
