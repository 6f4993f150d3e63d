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
    first_message,
)
from pysaslauthd.sasl.server.text import name, password, required_name


def read(message: bytes) -> tuple[CheckPassword, str]:
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise MalformedMessage("PLAIN: not authzid, authcid and password")
    authzid = name(parts[0], "authzid") if parts[0] else ""
    authcid = required_name(parts[1], "authcid")
    return CheckPassword(authcid, Secret(password(parts[2]))), authzid


def script(_surroundings: Surroundings, initial: bytes | None) -> Script:
    message = yield from first_message(initial)
    check, authzid = read(message)
    return Finished(cast("AuthResult", (yield check)), check.authcid, authzid)


PLAIN = Mechanism("PLAIN", Need.PASSWORD_CHECK, Traits(plaintext=True), script, reads=read)
