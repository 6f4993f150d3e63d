"""Which mechanism: by its name, or the strongest that server and credentials allow."""

from collections.abc import Iterable

from pysaslauthd.sasl.client.cram_md5 import CRAM_MD5
from pysaslauthd.sasl.client.credentials import Credentials, UnusableCredentials
from pysaslauthd.sasl.client.digest_md5 import DIGEST_MD5
from pysaslauthd.sasl.client.exchange import ClientExchange, Mechanism
from pysaslauthd.sasl.client.external import EXTERNAL
from pysaslauthd.sasl.client.plain import PLAIN
from pysaslauthd.sasl.client.scram import SCRAM_SHA_1, SCRAM_SHA_256, SCRAM_SHA_512

# EXTERNAL is not among them: who a certificate stands for is not in the credentials.
STRONGEST_FIRST = (SCRAM_SHA_512, SCRAM_SHA_256, SCRAM_SHA_1, DIGEST_MD5, CRAM_MD5, PLAIN)
KNOWN = {mechanism.name: mechanism for mechanism in (EXTERNAL, *STRONGEST_FIRST)}
NOT_YET = {"GSSAPI", "GSS-SPNEGO"}


class NoMechanism(LookupError):
    """There is no mechanism by that name, or none that will do; the text says why."""


def find(name: str) -> Mechanism:
    """Return the mechanism called *name*, in any case of letters; NoMechanism if there is none."""
    mechanism = KNOWN.get(name.upper())
    if mechanism is None:
        known = f"known are {', '.join(KNOWN)}"
        if name.upper() in NOT_YET:
            raise NoMechanism(f"{name.upper()} is not supported yet; {known}")
        raise NoMechanism(f"there is no mechanism {name!r}; {known}")
    return mechanism


def strongest(offered: Iterable[str], credentials: Credentials, *, private: bool) -> Mechanism:
    """Return the strongest mechanism *offered* that can say *credentials*; NoMechanism if none can.

    EXTERNAL never is it. One that reveals the password is it only where the
    channel is *private*: encrypted, to a server whose certificate was checked.
    """
    names = {name.upper() for name in offered}
    obstacles = []
    for mechanism in STRONGEST_FIRST:
        if mechanism.name in names:
            obstacle = obstacle_to(mechanism, credentials, private=private)
            if obstacle is None:
                return mechanism
            obstacles.append(f"{mechanism.name}: {obstacle}")
    none = f"the server offers none of {', '.join(m.name for m in STRONGEST_FIRST)}"
    raise NoMechanism("; ".join(obstacles) or none)


def obstacle_to(mechanism: Mechanism, credentials: Credentials, *, private: bool) -> str | None:
    """Return why *mechanism* will not do, None if it will."""
    if mechanism.reveals_password and not private:
        return "it would reveal the password"
    try:
        ClientExchange(mechanism, credentials)
    except UnusableCredentials as error:
        return str(error)
    return None
