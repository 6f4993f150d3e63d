"""Who is asked about: the one place where names and realms are joined or defaulted."""

from typing import NamedTuple

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import AuthRequest


class Names(NamedTuple):
    """The rules of one instance: `-r` (*combine*) and the realm of users who name none.

    *trusts_realms*: a realm is what a mail server says it is. Where clients name it themselves,
    a backend that does not look at realms would let joe be joe of any realm: there other
    realms than the default one stay in the name, as under `-r`.
    """

    combine: bool
    default_realm: str
    trusts_realms: bool = True

    def for_backend(self, request: AuthRequest, naming: Naming) -> AuthRequest:
        """Return *request* as a backend of that *naming* should see it.

        A pair is completed by the default realm; others complete it themselves.
        """
        if naming is Naming.PAIR:
            if request.realm:
                return request
            user, password, _, origin, received = request  # quicker than _replace
            return AuthRequest(user, password, self.default_realm, origin, received)
        if request.realm and (self.combine or self._is_claimed(request.realm)):
            realm = request.realm if naming is Naming.BOTH else ""
            return request._replace(user=f"{request.user}@{request.realm}", realm=realm)
        return request

    def logged_user(self, request: AuthRequest) -> str:
        """Return the user's name as the C daemon logs it: joined under `-r`."""
        if self.combine and request.realm:
            return f"{request.user}@{request.realm}"
        return request.user

    def split(self, name: str) -> tuple[str, str]:
        """Return user and realm of a *name* that is one, as `user@realm`; an empty realm if none.

        It is split at its last `@` (RFC 5321 allows others before, in quotes). One with nothing
        behind it belongs to the name: `joe@` is not joe, whom the mail server may have barred.
        """
        user, at, realm = name.rpartition("@")
        return (user, realm) if at and realm else (name, "")

    def are_same(self, one: str, other: str) -> bool:
        """Say whether two names are of one user: the default realm need not be written."""
        return self._completed(one) == self._completed(other)

    def _is_claimed(self, realm: str) -> bool:
        return not self.trusts_realms and realm.lower() != self.default_realm.lower()

    def _completed(self, name: str) -> tuple[str, str]:
        user, realm = self.split(name)
        return user, realm or self.default_realm
