"""CRAM-MD5 (RFC 2195): an HMAC of the challenge under the password.

The server proves nothing, and its challenge may be any bytes.
"""

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.client.credentials import (
    Credentials,
    no_name,
    password_bytes,
    required_name,
)
from pysaslauthd.sasl.client.exchange import Mechanism, Script
from pysaslauthd.sasl.md5 import hmac_md5
from pysaslauthd.sasl.nonces import Nonces

LARGEST_CHALLENGE = 1024  # bytes: what libsasl takes


def script(credentials: Credentials, _nonces: Nonces) -> Script:
    authcid = required_name(credentials.authcid, "authcid")
    password = password_bytes(credentials)
    no_name(credentials.authzid, "authzid")

    challenge = yield None
    if not 0 < len(challenge) <= LARGEST_CHALLENGE:
        raise MalformedMessage("a CRAM-MD5 challenge that is empty or too long")

    return b"%b %b" % (authcid.encode(), hmac_md5(password, challenge).hex().encode())


CRAM_MD5 = Mechanism("CRAM-MD5", script)
