"""Answers from the system's shadow map, dates of expiry included, in a worker process.

Rules: protocols/backends.md section 3, shadow(5); what differs from the C
daemon is in docs/differences.md. It needs root, or the file's group.
"""

import time
from collections.abc import Callable

from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable
from pysaslauthd.passwords import libcrypt
from pysaslauthd.stores import accounts

NAME = "shadow"
INVALID_USERNAME = Rejected(Reason.NO_SUCH_USER, NAME, "Invalid username")
INVALID_SHADOW_USERNAME = Rejected(Reason.NO_SUCH_USER, NAME, "Invalid shadow username")
INCORRECT_PASSWORD = Rejected(Reason.WRONG_PASSWORD, NAME, "Incorrect password")
ACCOUNT_EXPIRED = Rejected(Reason.ACCOUNT_EXPIRED, NAME, "Account expired")
PASSWORD_EXPIRED = Rejected(Reason.PASSWORD_EXPIRED, NAME, "Password expired")

WITHHELD = b"*NP*"  # getspnam(3) of Solaris: NIS let the caller see no hash
NIS_REFUSED = Unavailable(
    "Insufficient permission to access NIS authentication database (saslauthd)", NAME
)
SECONDS_PER_DAY = 24 * 60 * 60


def utc_day() -> int:
    """Return the days since 1970-01-01, in UTC."""
    return int(time.time()) // SECONDS_PER_DAY


class Shadow:
    """The backend `-a shadow`: realm and service are ignored.

    Whatever a refusal is about, it takes as long as one hash; that a password
    or an account has expired is told only to who knows the password.
    """

    name = NAME

    def __init__(self, today: Callable[[], int] = utc_day) -> None:
        self._today = today

    def check(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict on *request*; a hash or map that cannot be read is an outage."""
        password = request.password.reveal()
        found = _find(request.user)
        match found:
            case Unavailable():
                return found
            case Rejected():
                libcrypt.decoy(password)
                return found
        try:
            fits = libcrypt.matches(password, found.stored.reveal())
        except libcrypt.CannotHash as error:
            return Unavailable(str(error), NAME)
        if not fits:
            return INCORRECT_PASSWORD
        return expiry(found.aging, self._today()) or Accepted(request.user, NAME)


def expiry(aging: accounts.Aging, today: int) -> Rejected | None:
    """Return the refusal of an account or password whose time is over on day *today*.

    An account ends on the day of its expiry, a password after its last day; one
    that was last changed on day 0 must be changed before it is of use.
    """
    if aging.expire is not None and today >= aging.expire:
        return ACCOUNT_EXPIRED
    if aging.last_change == 0:
        return PASSWORD_EXPIRED
    if aging.last_change is None or aging.max_days is None:
        return None
    grace = max(0, aging.inactive or 0)
    return PASSWORD_EXPIRED if today > aging.last_change + aging.max_days + grace else None


def check_prerequisites(path: str = accounts.SHADOW) -> None:
    """Raise StartupError where this process could not answer: no libcrypt, or *path* unreadable."""
    libcrypt.load()
    try:
        accounts.check_readable(path)
    except FileNotFoundError as error:
        raise StartupError(
            f"-a {NAME} reads {path}, and there is none here", "use -a pam or -a getpwent"
        ) from error
    except OSError as error:
        raise StartupError(
            f"-a {NAME} reads {path}, and this process cannot: {error.strerror}",
            "start the daemon as root, or as a user of that file's group (Debian: shadow)",
        ) from error


def _find(user: str) -> accounts.Shadow | Rejected | Unavailable:
    try:
        if accounts.find_hash(user) is None:
            return INVALID_USERNAME
    except OSError as error:
        return Unavailable(f"Username lookup failure: {error.strerror}", NAME)
    try:
        found = accounts.find_shadow(user)
    except OSError as error:
        return Unavailable(f"Username shadow lookup failure: {error.strerror}", NAME)
    if found is None:
        return INVALID_SHADOW_USERNAME
    return NIS_REFUSED if found.stored.matches(WITHHELD) else found
