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
    store = cast("SecretStore", backend) if hasattr(backend, "fetch") else None
    engine = Authenticator(backend, names, audit, deadlines)
    return Exchanges(Parts(engine, store, names, audit, deadlines), usable())
