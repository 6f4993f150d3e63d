"""EXTERNAL (RFC 4422 appendix A): the client is known by its certificate, and may name another."""

from pysaslauthd.model import Accepted, AuthResult, Reason, Rejected
from pysaslauthd.sasl.server.mechanism import (
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    first_message,
)
from pysaslauthd.sasl.server.text import name

BACKEND = "external"
NOBODY = Rejected(Reason.DENIED, BACKEND, detail="the client has no certificate that names it")


def script(surroundings: Surroundings, initial: bytes | None) -> Script:
    authzid = name((yield from first_message(initial)), "authzid")
    authcid = surroundings.external or ""
    verdict: AuthResult = Accepted(authcid, BACKEND) if authcid else NOBODY
    return Finished(verdict, authcid, authzid)


EXTERNAL = Mechanism("EXTERNAL", Need.EXTERNAL_IDENTITY, Traits(), script)
