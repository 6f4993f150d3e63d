"""PLAIN (RFC 4616): the password itself."""

from typing import cast

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import AuthResult, Secret
from pysaslauthd.sasl.server.mechanism import (
    CheckPassword,
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    say,
)
from pysaslauthd.sasl.server.text import name, password, required_name


def script(_surroundings: Surroundings, initial: bytes | None) -> Script:
    # Most messages go through here: neither of the two steps is worth a generator of its own.
    message = initial if initial is not None else (yield from say(b""))
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise MalformedMessage("PLAIN: not authzid, authcid and password")
    authzid, authcid = name(parts[0], "authzid"), required_name(parts[1], "authcid")
    verdict = yield CheckPassword(authcid, Secret(password(parts[2])))
    return Finished(cast("AuthResult", verdict), authcid, authzid)


PLAIN = Mechanism("PLAIN", Need.PASSWORD_CHECK, Traits(plaintext=True), script)
