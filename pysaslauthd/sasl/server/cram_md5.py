"""CRAM-MD5 (RFC 2195): the client sends an HMAC of the challenge under the password."""

import hmac
import re

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Unavailable
from pysaslauthd.sasl.md5 import hmac_md5
from pysaslauthd.sasl.server.mechanism import (
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    fetch,
    say,
)
from pysaslauthd.sasl.server.text import required_name

LARGEST_RESPONSE = 1024  # bytes: what libsasl takes
# In small letters, as the RFC has it and every client sends: one spelling of one digest.
DIGEST = re.compile(rb"[0-9a-f]{32}")


def script(surroundings: Surroundings, initial: bytes | None) -> Script:
    if initial is not None:
        raise MalformedMessage("CRAM-MD5: an initial response, but the server is to begin")
    challenge = f"<{surroundings.nonces()}@{surroundings.host}>".encode()
    authcid, digest = parse_response((yield from say(challenge)))

    stored = yield from fetch(authcid)
    if isinstance(stored, Unavailable):
        return Finished(stored, authcid)
    expected = hmac_md5(stored.password.reveal(), challenge).hex().encode()
    is_proven = hmac.compare_digest(digest, expected)
    return Finished(stored.verdict(is_proven=is_proven), authcid)


def parse_response(message: bytes) -> tuple[str, bytes]:
    """Return authcid and digest."""
    if len(message) > LARGEST_RESPONSE:
        raise MalformedMessage(f"CRAM-MD5: a response of more than {LARGEST_RESPONSE} bytes")
    # Names may contain spaces, so the last space is the separator.
    authcid, _, digest = message.rpartition(b" ")
    if not DIGEST.fullmatch(digest):
        raise MalformedMessage("CRAM-MD5: not a name, a space and 32 hexadecimal digits")
    return required_name(authcid, "authcid"), digest


CRAM_MD5 = Mechanism("CRAM-MD5", Need.STORED_PASSWORD, Traits(dictionary=True, active=True), script)
