"""LOGIN (draft-murchison-sasl-login): the password itself, asked for as at a terminal."""

from pysaslauthd.sasl.server.mechanism import (
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    check,
    say,
)
from pysaslauthd.sasl.server.text import password, required_name


def script(_surroundings: Surroundings, initial: bytes | None) -> Script:
    # An initial response is the name, for Cyrus and Dovecot too; an empty one is none.
    message = initial or (yield from say(b"Username:"))
    authcid = required_name(message, "authcid")
    verdict = yield from check(authcid, password((yield from say(b"Password:"))))
    return Finished(verdict, authcid)


LOGIN = Mechanism("LOGIN", Need.PASSWORD_CHECK, Traits(plaintext=True), script)
