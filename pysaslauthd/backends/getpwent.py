"""Answers from the hashes of the passwd map, in a worker process.

Where passwords are shadowed the map has an `x`, and nobody is let in: that is
what the backend `shadow` is for. Rules: protocols/backends.md section 2.
"""

from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable
from pysaslauthd.passwords import libcrypt
from pysaslauthd.stores import accounts

NAME = "getpwent"
INVALID_USERNAME = Rejected(Reason.NO_SUCH_USER, NAME, "Invalid username")
INCORRECT_PASSWORD = Rejected(Reason.WRONG_PASSWORD, NAME, "Incorrect password")


class Getpwent:
    """The backend `-a getpwent`: realm and service are ignored, and nothing expires.

    Whatever a refusal is about, it takes as long as one hash.
    """

    name = NAME

    def check(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict on *request*; a hash or map that cannot be read is an outage."""
        password = request.password.reveal()
        try:
            stored = accounts.find_hash(request.user)
        except OSError as error:
            return Unavailable(f"Username lookup failure: {error.strerror}", NAME)
        if stored is None:
            libcrypt.decoy(password)
            return INVALID_USERNAME
        try:
            fits = libcrypt.matches(password, stored.reveal())
        except libcrypt.CannotHash as error:
            return Unavailable(str(error), NAME)
        return Accepted(request.user, NAME) if fits else INCORRECT_PASSWORD
