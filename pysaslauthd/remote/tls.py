"""TLS contexts, and what is wrong with a server's certificate in words that help."""

import contextlib
import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.model import Secret

MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

UNKNOWN_AUTHORITY = (
    "is signed by an authority that is not known here: name its file in tls_cacert_file,"
    " or have the server send the certificates between"
)
NO_TLS = "it does not speak TLS there"
FOR_FRONT = "tls_cacert_file must be readable for the user of --user"
TOO_OLD = "it speaks no TLS as new as tls_minimum"
# X509_V_ERR_* of OpenSSL: verify(1).
FAULTS = {
    2: UNKNOWN_AUTHORITY,
    9: "is not valid yet, or its authority's is not: is the clock of this machine right?",
    10: "has expired, or its authority's has",
    18: "is signed by itself only: name it in tls_cacert_file if it is the right one",
    19: UNKNOWN_AUTHORITY,
    20: UNKNOWN_AUTHORITY,
    21: UNKNOWN_AUTHORITY,
    23: "has been revoked",
    26: "is not for servers",
    62: "is not for that name: set one that is in the certificate",
    64: "is not for that address: set a name or address that is in the certificate",
}
# Reasons of OpenSSL's errors: openssl-errors(7).
REASONS = {
    "RECORD_LAYER_FAILURE": NO_TLS,  # since OpenSSL 3.2
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses TLS: it may want a certificate of ours"
    " (tls_cert, tls_key), or other tls_ciphers",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours: tls_cert, tls_key",
    "TLSV1_ALERT_PROTOCOL_VERSION": TOO_OLD,
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of our certificate (tls_cert)",
    "UNSUPPORTED_PROTOCOL": TOO_OLD,
    "WRONG_VERSION_NUMBER": NO_TLS,
}


HASHED = re.compile("[0-9a-f]{8}\\.[0-9]+")


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


def knows_ciphers(ciphers: str) -> bool:
    """Say whether OpenSSL finds any cipher by *ciphers*; what is for GnuTLS it does not know."""
    try:
        _set_ciphers(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ciphers)
    except TlsProblem:
        return False
    return True


def _load_authorities(context: ssl.SSLContext, rules: TlsRules) -> None:
    if rules.ca_file is None and rules.ca_directory is None:
        context.load_default_certs()
        return
    if rules.ca_directory is not None:
        _load_directory(context, rules.ca_directory)
    if rules.ca_file is not None:
        _load_file(context, rules.ca_file)


def _load_directory(context: ssl.SSLContext, path: str) -> None:
    """Trust the authorities in a directory, by the names that openssl-rehash(1) gives them.

    Where there are no such names, whatever is a certificate counts, as for GnuTLS.
    """
    try:
        # OpenSSL looks into it when it needs to, and says of nothing why it cannot.
        Path(path, "..").stat()
        names = [entry.name for entry in Path(path).iterdir()]
    except OSError as error:
        raise TlsProblem(f"{path}: {error.strerror} (tls_cacert_dir)") from None
    context.load_verify_locations(capath=path)
    if not any(map(HASHED.fullmatch, names)):
        for name in names:
            with contextlib.suppress(OSError):  # which ssl's errors are
                context.load_verify_locations(str(Path(path, name)))


def _load_file(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise TlsProblem(f"{path}: no certificates in PEM (tls_cacert_file)") from None
    except PermissionError as error:
        raise TlsProblem(f"{path}: {error.strerror} ({FOR_FRONT})") from None
    except OSError as error:
        raise TlsProblem(f"{path}: {error.strerror} (tls_cacert_file)") from None


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise TlsProblem(f"tls_ciphers: OpenSSL knows no cipher by {ciphers!r}") from None


def _load_identity(context: ssl.SSLContext, identity: Secret) -> None:
    """Load certificate and key, which OpenSSL wants in a file: one that is in memory only."""
    with os.fdopen(os.memfd_create("identity"), "wb") as file:
        file.write(identity.reveal())
        file.flush()
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=b"")
        except ssl.SSLError as error:
            fault = _fault_of(identity.reveal(), error)
            raise TlsProblem(f"tls_cert and tls_key: {fault}") from None


def _fault_of(identity: bytes, error: ssl.SSLError) -> str:
    if error.reason:
        return _in_words(error.reason)
    if b"ENCRYPTED" in identity:
        return "the key has a password, which nobody is there to give"
    return "not a certificate and its key in PEM"


def explain(error: ssl.SSLError) -> str:
    """Return what went wrong, as the end of a sentence about the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = FAULTS.get(error.verify_code, f"cannot be trusted: {error.verify_message}")
        return f"its certificate {fault}"
    reason = error.reason or "no reason given"
    return REASONS.get(reason, f"TLS failed: {_in_words(reason)}")


def _in_words(reason: str) -> str:
    return reason.lower().replace("_", " ")
