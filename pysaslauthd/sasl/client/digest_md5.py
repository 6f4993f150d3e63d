"""DIGEST-MD5 (RFC 2831), initial authentication with qop=auth, seen from the client."""

import hmac
import re
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.client.credentials import (
    Credentials,
    optional_name,
    password_bytes,
    required_name,
)
from pysaslauthd.sasl.client.exchange import Mechanism, Script, ServerNotGenuine
from pysaslauthd.sasl.digest_md5 import (
    CHALLENGE_BOUND,
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
from pysaslauthd.sasl.nonces import Nonces

UTF_8 = b"utf-8"
ALGORITHM = b"md5-sess"
UNUSED_ONCE = ("stale", "maxbuf", "cipher")  # not for qop=auth, but never twice


class Challenge(NamedTuple):
    """What the server offers; without *takes_utf8* all text is in ISO 8859-1."""

    nonce: bytes
    realms: list[bytes]
    takes_utf8: bool

    def encode(self, text: str) -> bytes:
        """Return *text* as the server takes it."""
        try:
            return text.encode("utf-8" if self.takes_utf8 else "latin-1")
        except UnicodeEncodeError:
            raise MalformedMessage("DIGEST-MD5: the server takes ISO 8859-1 only") from None

    def encode_password(self, password: bytes) -> bytes:
        """Return *password* as the server takes it; bytes that are not UTF-8 stay as they are."""
        try:
            text = password.decode()
        except UnicodeDecodeError:
            return password
        return self.encode(text)

    def hashed_form(self, value: bytes) -> bytes:
        """Return what of *value*, as the server takes it, enters the hash."""
        return hashed_form(value) if self.takes_utf8 else value


def script(credentials: Credentials, nonces: Nonces) -> Script:
    authcid = required_name(credentials.authcid, "authcid")
    password = password_bytes(credentials)
    authzid = optional_name(credentials.authzid, "authzid").encode()
    wished_realm = None if credentials.realm is None else optional_name(credentials.realm, "realm")
    digest_uri = service_and_host(credentials)

    challenge = parse_challenge((yield None))
    username = challenge.encode(authcid)
    realm = chosen_realm(challenge, wished_realm)
    said = Said(challenge.nonce, nonces().encode(), digest_uri, authzid)
    hashed = (username, realm or b"", challenge.encode_password(password))
    secret = secret_hash(*map(challenge.hashed_form, hashed))

    final = yield encode_response(challenge, username, realm, said, client_proof(secret, said))
    check_proof(final, server_proof(secret, said))
    return b""


def service_and_host(credentials: Credentials) -> bytes:
    """Return the digest-uri; no service-name follows, for we know one host only."""
    service = required_name(credentials.service, "service")
    host = required_name(credentials.host, "host")
    return f"{service}/{host}".encode()


def parse_challenge(message: bytes) -> Challenge:
    """Return what *message* offers, if it is enough (RFC 2831 section 2.1.1)."""
    directives = parse_directives(message, CHALLENGE_BOUND)
    for key in UNUSED_ONCE:
        single(directives, key)
    nonce = single(directives, "nonce")
    if not nonce:
        raise MalformedMessage("DIGEST-MD5: a challenge without a nonce")
    if (single(directives, "algorithm") or b"").lower() != ALGORITHM:
        raise MalformedMessage("DIGEST-MD5: a challenge without algorithm=md5-sess")
    check_quality(single(directives, "qop"))
    return Challenge(nonce, directives.get("realm", []), takes_utf8(directives))


def check_quality(offered: bytes | None) -> None:
    """Refuse an offer without qop=auth: there are no security layers here."""
    if offered is not None and QUALITY not in re.split(rb"[ \t\r\n,]+", offered.lower()):
        raise MalformedMessage("DIGEST-MD5: the server does not offer qop=auth")


def takes_utf8(directives: Directives) -> bool:
    """Say whether the server takes UTF-8; it cannot name anything else."""
    charset = single(directives, "charset")
    if charset is not None and charset.lower() != UTF_8:
        raise MalformedMessage("DIGEST-MD5: a charset that is not utf-8")
    return charset is not None


def chosen_realm(challenge: Challenge, wished: str | None) -> bytes | None:
    """Return the realm to authenticate in; None where neither side has any."""
    if wished is not None:
        return challenge.encode(wished)
    return challenge.realms[0] if challenge.realms else None


def encode_response(
    challenge: Challenge, username: bytes, realm: bytes | None, said: Said, proof: bytes
) -> bytes:
    """Return the digest-response."""
    directives = [
        (b"charset", UTF_8 if challenge.takes_utf8 else None),
        (b"username", quote(username)),
        (b"realm", None if realm is None else quote(realm)),
        (b"nonce", quote(said.nonce)),
        (b"nc", NONCE_COUNT),
        (b"cnonce", quote(said.cnonce)),
        (b"digest-uri", quote(said.digest_uri)),
        (b"response", proof),
        (b"qop", QUALITY),
        (b"authzid", quote(said.authzid) if said.authzid else None),
    ]
    response = b",".join(b"%b=%b" % (key, value) for key, value in directives if value is not None)
    if len(response) >= RESPONSE_BOUND:
        raise MalformedMessage(f"DIGEST-MD5: the response has {RESPONSE_BOUND} bytes or more")
    return response


def check_proof(final: bytes, proof: bytes) -> None:
    """Return if *final* is the server's *proof*."""
    rspauth = single(parse_directives(final, CHALLENGE_BOUND), "rspauth")
    if rspauth is None:
        raise MalformedMessage("DIGEST-MD5: the server's last message has no rspauth")
    if not hmac.compare_digest(rspauth, proof):
        raise ServerNotGenuine("DIGEST-MD5: the server's proof is wrong")


DIGEST_MD5 = Mechanism("DIGEST-MD5", script)
