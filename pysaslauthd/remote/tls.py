"""TLS contexts, and what is wrong with a server's certificate in words that help."""

import os
import ssl
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.model import Secret

MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

UNKNOWN_AUTHORITY = (
    "is signed by an authority that is not known here: name its file in tls_cacert_file"
)
# X509_V_ERR_* of OpenSSL: verify(1).
FAULTS = {
    2: UNKNOWN_AUTHORITY,
    9: "is not valid yet: is the clock of this machine right?",
    10: "has expired",
    18: "is signed by itself only: name it in tls_cacert_file if it is the right one",
    19: UNKNOWN_AUTHORITY,
    20: UNKNOWN_AUTHORITY,
    21: UNKNOWN_AUTHORITY,
    23: "has been revoked",
    26: "is not for servers",
    62: "is for another name than the one it is asked for",
    64: "is for another address than the one it is asked for",
}
# Reasons of OpenSSL's errors: openssl-errors(7).
REASONS = {
    "HTTP_REQUEST": "it does not speak TLS there",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours: tls_cert, tls_key",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS as new as tls_minimum",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS as new as tls_minimum",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there",
}


class TlsProblem(Exception):
    """These rules make no TLS; the text names the file or setting."""


class TlsRules(NamedTuple):
    """How servers are checked; *identity* is our certificate and its key in PEM, if any.

    Without an authority of its own, the system's authorities are trusted.
    """

    check_peer: bool = True
    ca_file: str | None = None
    ca_directory: str | None = None
    minimum: str = "1.2"
    ciphers: str | None = None
    identity: Secret | None = None


def make_context(rules: TlsRules) -> ssl.SSLContext:
    """Return a context for clients; TlsProblem says what is wrong with *rules*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = MINIMUM[rules.minimum]
    if not rules.check_peer:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_authorities(context, rules)
    if rules.ciphers is not None:
        _set_ciphers(context, rules.ciphers)
    if rules.identity is not None:
        _load_identity(context, rules.identity)
    return context


def _load_authorities(context: ssl.SSLContext, rules: TlsRules) -> None:
    if rules.ca_file is None and rules.ca_directory is None:
        context.load_default_certs()
        return
    if rules.ca_directory is not None and not Path(rules.ca_directory).is_dir():
        raise TlsProblem(f"{rules.ca_directory}: not a directory (tls_cacert_dir)")
    try:
        context.load_verify_locations(rules.ca_file, rules.ca_directory)
    except ssl.SSLError:
        raise TlsProblem(f"{rules.ca_file}: no certificates in PEM (tls_cacert_file)") from None
    except OSError as error:
        raise TlsProblem(f"{rules.ca_file}: {error.strerror} (tls_cacert_file)") from None


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise TlsProblem(f"tls_ciphers: OpenSSL knows no cipher by {ciphers!r}") from None


def _load_identity(context: ssl.SSLContext, identity: Secret) -> None:
    """Load certificate and key, which OpenSSL wants in a file: one that is in memory only."""
    descriptor = os.memfd_create("identity")
    try:
        os.write(descriptor, identity.reveal())
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    except ssl.SSLError as error:
        raise TlsProblem(
            f"tls_cert and tls_key: no certificate with its key, without a password: {error.reason}"
        ) from None
    finally:
        os.close(descriptor)


def explain(error: ssl.SSLError) -> str:
    """Return what went wrong, as the end of a sentence about the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate {FAULTS.get(error.verify_code, error.verify_message)}"
    reason = error.reason or "no reason given"
    return REASONS.get(reason, f"TLS failed: {reason.lower().replace('_', ' ')}")
