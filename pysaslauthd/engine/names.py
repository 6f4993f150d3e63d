"""Who is asked about: the one place where names and realms are joined or defaulted."""

from typing import NamedTuple

from pysaslauthd.model import AuthRequest


class Names(NamedTuple):
    """The rules of one instance: `-r` (*combine*) and the realm of users who name none."""

    combine: bool
    default_realm: str

    def for_backend(self, request: AuthRequest, *, keeps_realm: bool) -> AuthRequest:
        """Return *request* as a backend should see it.

        A backend that keeps pairs of name and realm gets the pair, completed;
        the others get `user@realm` and no realm under `-r`.
        """
        if keeps_realm:
            return request if request.realm else request._replace(realm=self.default_realm)
        if self.combine and request.realm:
            return request._replace(user=self.logged_user(request), realm="")
        return request

    def logged_user(self, request: AuthRequest) -> str:
        """Return the user's name as the C daemon logs it: joined under `-r`."""
        if self.combine and request.realm:
            return f"{request.user}@{request.realm}"
        return request.user
