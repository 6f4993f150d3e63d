"""PLAIN (RFC 4616): the password itself."""

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.server.mechanism import (
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    check,
    first_message,
)
from pysaslauthd.sasl.server.text import name, password, required_name


def script(_surroundings: Surroundings, initial: bytes | None) -> Script:
    message = yield from first_message(initial)
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise MalformedMessage("PLAIN: not authzid, authcid and password")
    authzid, authcid = name(parts[0], "authzid"), required_name(parts[1], "authcid")
    verdict = yield from check(authcid, password(parts[2]))
    return Finished(verdict, authcid, authzid)


PLAIN = Mechanism("PLAIN", Need.PASSWORD_CHECK, Traits(plaintext=True), script)
