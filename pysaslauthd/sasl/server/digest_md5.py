"""DIGEST-MD5 (RFC 2831), initial authentication with qop=auth, seen from the server.

One realm is offered, and no nonce is used twice. Host and server name in digest-uri are
not checked: clients put in whatever they connected to, which the server may not know.
"""

import hmac
import re
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, Unavailable
from pysaslauthd.sasl.digest_md5 import (
    NONCE_COUNT,
    QUALITY,
    RESPONSE_BOUND,
    Directives,
    Said,
    client_proof,
    hashed_form,
    parse_directives,
    quote,
    secret_hash,
    server_proof,
    single,
)
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
from pysaslauthd.sasl.server.text import is_utf8, name, required_name

PROOF = re.compile(rb"[0-9a-f]{32}")
DIGEST_URI = re.compile(rb"([^/]+)/.+")  # service, and a host in whatever form
UNUSED_ONCE = ("maxbuf", "cipher")  # not for qop=auth, but never twice

is_same = hmac.compare_digest


class Response(NamedTuple):
    """What the client says. *username* and *realm*, b"" where it names none, as it sent them."""

    username: bytes
    realm: bytes
    said: Said
    proof: bytes
    says_utf8: bool

    def lookup_name(self, offered: str) -> str:
        """Return whose password to ask for: who is of another realm than *offered* is named so."""
        username = required_name(self.username, "username", self._encoding(self.username))
        realm = name(self.realm, "realm", self._encoding(self.realm))
        return f"{username}@{realm}" if realm and realm != offered else username

    def secrets(self, password: bytes) -> list[bytes]:
        """Return the hashes that a client may make of *password*.

        The first is the RFC's. In the others UTF-8 stands where that wants ISO 8859-1: in
        GNU SASL's in the names; everywhere in the one that Cyrus SASL calls bogus, and takes.
        """
        return [
            secret_hash(hashed_form(self.username), hashed_form(self.realm), hashed_form(password)),
            secret_hash(self.username, self.realm, hashed_form(password)),
            secret_hash(self.username, self.realm, password),
        ]

    def _encoding(self, value: bytes) -> str:
        """Return what *value* is encoded in: libsasl's clients use UTF-8 without saying so."""
        return "utf-8" if self.says_utf8 or is_utf8(value) else "latin-1"


def script(surroundings: Surroundings, initial: bytes | None) -> Script:
    if initial is not None:
        raise MalformedMessage("DIGEST-MD5: there is no subsequent authentication")
    offered = surroundings.realm or surroundings.host
    nonce = surroundings.nonces().encode()
    response = parse_response((yield from say(encode_challenge(nonce, offered))))
    check_said(response.said, nonce, surroundings.service)
    authcid = response.lookup_name(offered)
    authzid = name(response.said.authzid, "authzid")

    stored = yield from fetch(authcid)
    if isinstance(stored, Unavailable):
        return Finished(stored, authcid, authzid)
    secrets = response.secrets(stored.password.reveal())
    proven = [s for s in secrets if is_same(client_proof(s, response.said), response.proof)]
    verdict = stored.verdict(is_proven=bool(proven))
    if not isinstance(verdict, Accepted):
        return Finished(verdict, authcid, authzid)
    rspauth = b"rspauth=" + server_proof(proven[0], response.said)
    return Finished(verdict, authcid, authzid, rspauth)


def encode_challenge(nonce: bytes, realm: str) -> bytes:
    """Return the digest-challenge."""
    directives = b'nonce=%b,realm=%b,qop="auth",charset=utf-8,algorithm=md5-sess'
    return directives % (quote(nonce), quote(realm.encode()))


def parse_response(message: bytes) -> Response:
    """Return what *message* says, if it is a response to any challenge of ours."""
    directives = parse_directives(message, RESPONSE_BOUND)
    for key in UNUSED_ONCE:
        single(directives, key)
    check_choices(directives)
    said = Said(
        required(directives, "nonce"),
        required(directives, "cnonce"),
        required(directives, "digest-uri"),
        optional(directives, "authzid"),
    )
    proof = required(directives, "response")
    if not PROOF.fullmatch(proof):
        raise MalformedMessage("DIGEST-MD5: a response that is not 32 hexadecimal digits")
    username, realm = required(directives, "username"), single(directives, "realm") or b""
    says_utf8 = single(directives, "charset") is not None
    return Response(username, realm, said, proof, says_utf8)


def check_choices(directives: Directives) -> None:
    """Refuse a choice of what was not offered."""
    if required(directives, "nc") != NONCE_COUNT:
        raise MalformedMessage("DIGEST-MD5: a nonce count that is not 1")
    if single(directives, "qop") not in (None, QUALITY):
        raise MalformedMessage("DIGEST-MD5: the client does not choose qop=auth")
    charset = single(directives, "charset")
    if charset is not None and charset.lower() != b"utf-8":
        raise MalformedMessage("DIGEST-MD5: a charset that is not utf-8")


def check_said(said: Said, nonce: bytes, service: str) -> None:
    """Refuse a response to another challenge, or to another service."""
    if said.nonce != nonce:
        raise MalformedMessage("DIGEST-MD5: the nonce is not the challenge's")
    found = DIGEST_URI.fullmatch(said.digest_uri)
    if not found or found[1].lower() != service.lower().encode():
        raise MalformedMessage("DIGEST-MD5: the digest-uri is not of this service")


def required(directives: Directives, key: str) -> bytes:
    """Return the one value of *key*, if it is there and not empty."""
    value = single(directives, key)
    if not value:
        raise MalformedMessage(f"DIGEST-MD5: a response without {key}")
    return value


def optional(directives: Directives, key: str) -> bytes:
    """Return the one value of *key*, b"" if it is not there; it must not be empty."""
    return required(directives, key) if key in directives else b""


DIGEST_MD5 = Mechanism(
    "DIGEST-MD5",
    Need.STORED_PASSWORD,
    Traits(dictionary=True, active=True, mutual_auth=True),
    script,
)
