"""What -PLUS mechanisms bind to where TLS ends here: tls-server-end-point (RFC 5929 section 4)."""

import hashlib

from pysaslauthd.sasl.server.mechanism import ChannelBinding

TYPE = "tls-server-end-point"
REPLACED = {"md5": "sha256", "sha1": "sha256"}  # as the RFC has it


def end_point(pem: bytes) -> ChannelBinding:
    """Return the channel binding of a server whose certificate is the first in *pem*.

    It is the same for all connections. ValueError where there is none: the
    certificate cannot be read, or its signature has no hash function (Ed25519).
    """
    from cryptography import x509  # for those only who want it
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = x509.load_pem_x509_certificate(pem)
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:
        raise ValueError(f"a certificate with such a signature has no {TYPE}")
    name = REPLACED.get(algorithm.name, algorithm.name)
    der = certificate.public_bytes(Encoding.DER)
    return ChannelBinding(TYPE, hashlib.new(name, der).digest())
