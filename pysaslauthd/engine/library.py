"""The engine for a program that has a backend, and none of the daemon's settings."""

from typing import cast

from pysaslauthd.backends.base import PasswordVerifier, SecretStore
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.exchange import Exchanges, Parts
from pysaslauthd.engine.names import Names
from pysaslauthd.model import Deadlines
from pysaslauthd.sasl.server.registry import usable

DEADLINE = 8.0  # seconds


def exchanges(
    backend: PasswordVerifier, default_realm: str, *, deadline: float = DEADLINE
) -> Exchanges:
    """Return every mechanism that *backend* can complete; it may take *deadline* seconds each time.

    Users who name no realm are of *default_realm*. The caller opens the backend before
    the first question and closes it after the last.
    """
    names = Names(combine=False, default_realm=default_realm)
    audit, deadlines = Audit(names), Deadlines(deadline, {})
    engine = Authenticator(backend, names, audit, deadlines)
    return Exchanges(Parts(engine, store_of(backend), names, audit, deadlines), usable())


def store_of(backend: PasswordVerifier) -> SecretStore | None:
    """Return *backend* as what has the passwords themselves, None where it has not."""
    return cast("SecretStore", backend) if hasattr(backend, "fetch") else None
