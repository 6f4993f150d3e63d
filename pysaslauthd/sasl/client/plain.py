"""PLAIN (RFC 4616): the password itself.

It is sent as it was given, for preparing is the server's: bytes that are not
UTF-8 are left for the server to refuse.
"""

from pysaslauthd.sasl.client.credentials import (
    Credentials,
    UnusableCredentials,
    optional_name,
    password_bytes,
    required_name,
)
from pysaslauthd.sasl.client.exchange import Mechanism, Script
from pysaslauthd.sasl.nonces import Nonces


def script(credentials: Credentials, _nonces: Nonces) -> Script:
    authzid = optional_name(credentials.authzid, "authzid")
    authcid = required_name(credentials.authcid, "authcid")
    password = password_bytes(credentials)
    if b"\0" in password:
        raise UnusableCredentials("the password has a NUL")
    yield from ()  # the only message is the last
    return b"\0".join([authzid.encode(), authcid.encode(), password])


PLAIN = Mechanism("PLAIN", script, reveals_password=True)
