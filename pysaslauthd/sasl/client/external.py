"""EXTERNAL (RFC 4422 appendix A): the server knows the client by TLS or by its socket."""

from pysaslauthd.sasl.client.credentials import Credentials, optional_name
from pysaslauthd.sasl.client.exchange import Mechanism, Script
from pysaslauthd.sasl.nonces import Nonces


def script(credentials: Credentials, _nonces: Nonces) -> Script:
    yield from ()  # the only message is the last
    return optional_name(credentials.authzid, "authzid").encode()


EXTERNAL = Mechanism("EXTERNAL", script)
