"""Who is asked about: the one place where names and realms are joined or defaulted."""

from typing import NamedTuple

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import AuthRequest


class Names(NamedTuple):
    """The rules of one instance: `-r` (*combine*) and the realm of users who name none."""

    combine: bool
    default_realm: str

    def for_backend(self, request: AuthRequest, naming: Naming) -> AuthRequest:
        """Return *request* as a backend of that *naming* should see it.

        A pair is completed by the default realm; others complete it themselves.
        """
        if naming is Naming.PAIR:
            return request if request.realm else request._replace(realm=self.default_realm)
        if self.combine and request.realm:
            realm = request.realm if naming is Naming.BOTH else ""
            return request._replace(user=self.logged_user(request), realm=realm)
        return request

    def logged_user(self, request: AuthRequest) -> str:
        """Return the user's name as the C daemon logs it: joined under `-r`."""
        if self.combine and request.realm:
            return f"{request.user}@{request.realm}"
        return request.user
