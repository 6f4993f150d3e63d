"""The backends by name; a backend's module is imported when it is used, and not before."""

from collections.abc import Callable
from typing import NamedTuple

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError

DEFAULT_SASLDB = "/etc/sasldb2"


class Mechanism(NamedTuple):
    """A backend by its name: *check* refuses settings it cannot use, *make* builds it."""

    check: Callable[[Settings], None]
    make: Callable[[Settings], PasswordVerifier]


def _check_sasldb(settings: Settings) -> None:
    path = settings.mechanism_option
    if path is not None and not path.startswith("/"):
        raise StartupError(f"-O names the database for -a sasldb: an absolute path, not {path!r}")


def _make_sasldb(settings: Settings) -> PasswordVerifier:
    from pysaslauthd.backends.sasldb import Sasldb

    return Sasldb(settings.mechanism_option or DEFAULT_SASLDB)


MECHANISMS = {"sasldb": Mechanism(_check_sasldb, _make_sasldb)}


def find_mechanism(settings: Settings) -> Mechanism:
    """Return what `-a` names, in any case; StartupError where it or its option is no good."""
    mechanism = MECHANISMS.get(settings.mechanism.lower())
    if mechanism is None:
        raise StartupError(
            f"unknown authentication mechanism: {settings.mechanism}",
            f"this release knows: {' '.join(MECHANISMS)}",
        )
    mechanism.check(settings)
    return mechanism
