"""Clients of the mechanisms of which the package has no client's half; for a rehearsal only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pysaslauthd.sasl import client
from pysaslauthd.sasl.client.credentials import password_bytes
from pysaslauthd.sasl.client.exchange import Mechanism, Script
from pysaslauthd.sasl.client.scram import check_server_final, parse_server_first
from pysaslauthd.sasl.scram import SHA_1, SHA_256, SHA_512, Scram, encode_base64, exclusive_or
from pysaslauthd.sasl.server.mechanism import ChannelBinding

if TYPE_CHECKING:
    from pysaslauthd.sasl.client import Credentials
    from pysaslauthd.sasl.nonces import Nonces

CHANNEL = ChannelBinding("tls-server-end-point", b"a digest of a certificate, so long")
HASHES = {"SCRAM-SHA-1": SHA_1, "SCRAM-SHA-256": SHA_256, "SCRAM-SHA-512": SHA_512}
PLUS = "-PLUS"


def login(credentials: Credentials, _nonces: Nonces) -> Script:
    """Say name and password when asked."""
    yield None
    yield credentials.authcid.encode()
    return password_bytes(credentials)


def anonymous(_credentials: Credentials, _nonces: Nonces) -> Script:
    """Leave a trace."""
    yield from ()
    return b"somebody@client.test.example"


def bound(scram: Scram, credentials: Credentials, nonces: Nonces) -> Script:
    """Speak SCRAM with channel binding (RFC 5802 sections 5 and 6)."""
    header, cnonce = f"p={CHANNEL.type},,", nonces()
    bare = f"n={credentials.authcid},r={cnonce}"
    server_first = yield f"{header}{bare}".encode()

    first = parse_server_first(server_first, cnonce)
    salted = scram.salted_password(password_bytes(credentials), first.salt, first.iterations)
    binding = encode_base64(header.encode() + CHANNEL.data)
    without_proof = f"c={binding},r={first.nonce}"
    message = b",".join([bare.encode(), server_first, without_proof.encode()])
    key = scram.client_key(salted)
    proof = exclusive_or(key, scram.signature(scram.stored_key(key), message))

    server_final = yield f"{without_proof},p={encode_base64(proof)}".encode()
    check_server_final(server_final, scram.signature(scram.server_key(salted), message))
    return b""


WRITTEN_HERE = {
    "LOGIN": Mechanism("LOGIN", login),
    "ANONYMOUS": Mechanism("ANONYMOUS", anonymous),
    **{f"{name}{PLUS}": Mechanism(name, partial(bound, scram)) for name, scram in HASHES.items()},
}


def find(name: str) -> Mechanism:
    """Return the client's half of the mechanism called *name*."""
    return WRITTEN_HERE.get(name) or client.find(name)
