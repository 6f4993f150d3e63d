"""The backends by name; a backend's module is imported when it is used, and not before."""

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins import httpform, kerberos5, ldap, local, rimap
from pysaslauthd.plugins.mechanism import Mechanism

MECHANISMS = {
    "sasldb": local.SASLDB,
    "getpwent": local.GETPWENT,
    "kerberos5": kerberos5.KERBEROS5,
    "pam": local.PAM,
    "rimap": rimap.RIMAP,
    "shadow": local.SHADOW,
    "ldap": ldap.LDAP,
    "httpform": httpform.HTTPFORM,
}


def find_mechanism(settings: Settings) -> Mechanism:
    """Return what `-a` names, in any case; StartupError where there is no such backend."""
    mechanism = MECHANISMS.get(settings.mechanism.lower())
    if mechanism is None:
        raise StartupError(
            f"unknown authentication mechanism: {settings.mechanism}",
            f"this release knows: {' '.join(MECHANISMS)}",
        )
    return mechanism


def most_workers(settings: Settings) -> int:
    """Return how many worker processes the backend may have."""
    return find_mechanism(settings).most_workers(settings)
