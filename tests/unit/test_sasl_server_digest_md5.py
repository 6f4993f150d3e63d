import re
from typing import NamedTuple

import pytest

from pysaslauthd.model import Accepted
from pysaslauthd.sasl.digest_md5 import (
    CHALLENGE_BOUND,
    Said,
    client_proof,
    parse_directives,
    quote,
    secret_hash,
    server_proof,
)
from pysaslauthd.sasl.server.mechanism import FetchPassword
from tests.helpers.sasl_own_server import BACKEND, HERE, WRONG_PASSWORD, OwnServer, Users
from tests.helpers.sasl_servers import Reply

REALM = "test.example"
THERE = HERE._replace(service="smtp", realm=REALM, host="mail.test.example")
JOE = {"joe": "right"}
CAFE = "café"
LATIN, UTF_8 = CAFE.encode("latin-1"), CAFE.encode()


class Claim(NamedTuple):
    """What a client says it is, and what it hashes."""

    username: bytes = b"joe"
    realm: bytes | None = REALM.encode()
    hashed: tuple[bytes, bytes, bytes] = (b"joe", REALM.encode(), b"right")
    uri: bytes = b"smtp/mail.test.example"
    charset: bytes = b",charset=utf-8"

    @property
    def secret(self) -> bytes:
        return secret_hash(*self.hashed)


def answer(server: OwnServer, claim: Claim) -> tuple[Said, Reply]:
    """Return what enters the proofs, and what *server* answers."""
    nonce = parse_directives(server.start("DIGEST-MD5", None).data or b"", CHALLENGE_BOUND)["nonce"]
    said = Said(nonce[0], b"cnonce", claim.uri)
    directives = [
        (b"username", quote(claim.username)),
        (b"realm", None if claim.realm is None else quote(claim.realm)),
        (b"nonce", quote(said.nonce)),
        (b"cnonce", quote(said.cnonce)),
        (b"nc", b"00000001"),
        (b"digest-uri", quote(claim.uri)),
        (b"response", client_proof(claim.secret, said)),
    ]
    message = b",".join(b"%b=%b" % (key, value) for key, value in directives if value is not None)
    return said, server.answer(message + claim.charset)


def log_in(users: Users, claim: Claim) -> Reply:
    """Return what becomes of *claim*."""
    return answer(OwnServer(users, THERE), claim)[1]


@pytest.mark.parametrize(
    ("realm", "offered"),
    [("test.example", b"test.example"), ("", b"mail.test.example"), ('a "b"', b'a "b"')],
    ids=["configured", "the-hosts-name", "quotes"],
)
def test_one_realm_is_offered(realm: str, offered: bytes) -> None:
    challenge = OwnServer(JOE, THERE._replace(realm=realm)).start("DIGEST-MD5", None).data

    assert challenge is not None
    assert parse_directives(challenge, CHALLENGE_BOUND)["realm"] == [offered]


def test_the_challenge_is_written_as_cyrus_has_it() -> None:
    server = OwnServer(JOE, THERE._replace(nonces=lambda: "OA6MG9tEQGm2hh"))

    assert server.start("DIGEST-MD5", None).data == (
        b'nonce="OA6MG9tEQGm2hh",realm="test.example",qop="auth",charset=utf-8,algorithm=md5-sess'
    )


@pytest.mark.parametrize(
    ("username", "realm", "name"),
    [
        pytest.param(b"joe", b"test.example", "joe", id="realm-as-offered"),
        pytest.param(b"joe", b"", "joe", id="empty-realm"),
        pytest.param(b"joe", None, "joe", id="no-realm"),
        pytest.param(b"joe", b"other.example", "joe@other.example", id="another-realm"),
        pytest.param(b"joe", b"TEST.example", "joe@TEST.example", id="realm-in-other-letters"),
        pytest.param(b"joe@x.example", b"test.example", "joe@x.example", id="at-sign"),
        pytest.param(b"joe@x.example", None, "joe@x.example", id="at-sign-and-no-realm"),
        pytest.param(b"a@b", b"c", "a@b@c", id="at-sign-and-another-realm"),
    ],
)
def test_a_user_is_looked_up_as_cyrus_does(username: bytes, realm: bytes | None, name: str) -> None:
    server = OwnServer({name: "right"}, THERE)

    _said, reply = answer(server, Claim(username, realm, (username, realm or b"", b"right")))

    assert server.asked == [FetchPassword(name)]
    assert (reply.is_success, reply.user) == (True, name)


@pytest.mark.parametrize(
    "hashed",
    [
        pytest.param((LATIN, LATIN, LATIN), id="latin-1"),
        pytest.param((UTF_8, UTF_8, LATIN), id="gnu-sasl"),
        pytest.param((UTF_8, UTF_8, UTF_8), id="utf-8-which-cyrus-calls-bogus"),
    ],
)
def test_names_and_password_are_hashed_as_clients_do(hashed: tuple[bytes, bytes, bytes]) -> None:
    server = OwnServer({f"{CAFE}@{CAFE}": CAFE}, THERE)
    claim = Claim(UTF_8, UTF_8, hashed)

    said, reply = answer(server, claim)

    assert (reply.is_success, reply.data) == (
        True,
        b"rspauth=" + server_proof(claim.secret, said),
    )


@pytest.mark.parametrize(
    ("username", "hashed"),
    [
        pytest.param(b"joe", LATIN, id="latin-1"),
        pytest.param(b"joe", UTF_8, id="utf-8"),
        pytest.param(LATIN, LATIN, id="name-in-latin-1-too"),
    ],
)
def test_a_client_may_know_nothing_of_utf8(username: bytes, hashed: bytes) -> None:
    claim = Claim(username, None, (username, b"", hashed), charset=b"")

    assert log_in({username.decode("latin-1"): CAFE}, claim).is_success


def test_a_client_may_have_utf8_and_not_say_so() -> None:
    claim = Claim(UTF_8, None, (LATIN, b"", "€".encode()), charset=b"")

    assert log_in({CAFE: "€"}, claim).user == CAFE


def test_a_password_that_is_no_utf8_is_hashed_as_it_is() -> None:
    claim = Claim(hashed=(b"joe", REALM.encode(), b"caf\xe9\xff"))

    assert log_in({"joe": "caf\udce9\udcff"}, claim).is_success


@pytest.mark.parametrize(
    "hashed",
    [
        pytest.param((b"joe", b"test.example", b"wrong"), id="password"),
        pytest.param((b"Joe", b"test.example", b"right"), id="name"),
        pytest.param((b"joe", b"", b"right"), id="realm"),
    ],
)
def test_who_hashes_something_else_is_refused(hashed: tuple[bytes, bytes, bytes]) -> None:
    server = OwnServer(JOE, THERE)

    answer(server, Claim(hashed=hashed))

    assert server.finished is not None
    assert (server.finished.result, server.finished.data) == (WRONG_PASSWORD, None)


@pytest.mark.parametrize(
    "uri", [b"smtp/other.example", b"SMTP/[::1]", b"Smtp/a/b", b"smtp/a/b/c"], ids=ascii
)
def test_the_host_in_the_uri_is_anything(uri: bytes) -> None:
    assert log_in(JOE, Claim(uri=uri)).is_success


def test_a_response_is_read_as_liberally_as_clients_write_it() -> None:
    server = OwnServer(JOE, THERE._replace(nonces=lambda: "nonce"))
    server.start("DIGEST-MD5", None)
    proof = client_proof(Claim().secret, Said(b"nonce", b"cnonce", b"smtp/h"))

    reply = server.answer(
        b' , RESPONSE=%b, digest-uri = "smtp/h",NC=00000001,qop="auth", maxbuf=1024 ,unknown=x,'
        b'cnonce="c\\nonce",nonce="nonce",\trealm="test.example",Username=joe,Charset="UTF-8",,'
        % proof
    )

    assert reply.is_success


def test_a_password_of_the_first_exchange_proves_nothing_in_the_second() -> None:
    server = OwnServer(JOE, THERE)
    nonce = re.compile(rb'nonce="([^"]+)"')
    first = nonce.findall(server.start("DIGEST-MD5", None).data or b"")[0]
    said = Said(first, b"cnonce", b"smtp/h")
    message = (
        b'username="joe",realm="test.example",nonce="%b",cnonce="cnonce",nc=00000001,'
        b'digest-uri="smtp/h",response=%b' % (first, client_proof(Claim().secret, said))
    )
    assert server.answer(message).is_success

    server.start("DIGEST-MD5", None)
    server.answer(message)

    assert server.malformed == "DIGEST-MD5: the nonce is not the challenge's"


def test_an_authzid_is_part_of_what_is_proven() -> None:
    server = OwnServer(JOE, THERE._replace(nonces=lambda: "nonce"))
    said = Said(b"nonce", b"cnonce", b"smtp/h", b"boss")
    template = (
        b'username="joe",realm="test.example",nonce="nonce",cnonce="cnonce",nc=00000001,'
        b'digest-uri="smtp/h",response=%b,authzid="%%b"' % client_proof(Claim().secret, said)
    )

    server.start("DIGEST-MD5", None)
    reply = server.answer(template % b"boss")
    server.start("DIGEST-MD5", None)
    other = server.answer(template % b"root")

    assert reply.is_success
    assert not other.is_success


def test_the_end_names_user_and_backend() -> None:
    server = OwnServer(JOE, THERE)

    answer(server, Claim())

    assert server.finished is not None
    assert server.finished.result == Accepted("joe", BACKEND)
