"""What must hold for any client (style.md: the four properties)."""

from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials, UnusableCredentials
from pysaslauthd.sasl.client import find as find_client
from pysaslauthd.sasl.digest_md5 import hashed_form
from pysaslauthd.sasl.prep import NotPreparable, prepare_stored
from pysaslauthd.sasl.server.mechanism import ChannelBinding
from pysaslauthd.sasl.server.registry import STRONGEST_FIRST
from pysaslauthd.sasl.server.text import LONGEST_NAME, LONGEST_PASSWORD
from tests.helpers.sasl_own_server import HERE, OwnServer
from tests.helpers.sasl_servers import HOST, SERVICE, Reply, SaslServer, authenticate

NAMES = [mechanism.name for mechanism in STRONGEST_FIRST]
OPEN = {"ANONYMOUS", "EXTERNAL"}  # let in whoever comes, here
SCRAM = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
BY_PASSWORD = [*SCRAM, "DIGEST-MD5", "CRAM-MD5", "PLAIN"]
USERS = {"joe": "what nobody draws by chance"}
EVERYTHING = HERE._replace(
    nonces=lambda: "server+nonce",
    channel_binding=ChannelBinding("tls-unique", b"unique"),
    external="joe",
)

unhurried = settings(deadline=None)  # SCRAM's keys take milliseconds, on purpose

# Random bytes hardly ever are a message: most are made of what messages are made of.
pieces = st.sampled_from(
    [
        *(b"n,,", b"y,,", b"p=tls-unique,,", b"a=boss,", b"n=joe", b"r=", b"cnonce", b",", b"c="),
        *(b"biws", b"cD10bHMtdW5pcXVlLCx1bmlxdWU=", b"server+nonce", b",p=", b"AAAA", b"=2C"),
        *(b"\xc2\xad", b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=", b"m=x", b"\0", b"joe", b" ", b"\xff"),
        *(b"d388dad90d4bbd760a152321f2143af7", b'username="joe",', b'realm="directory",'),
        *(b'nonce="server+nonce",', b'cnonce="x",', b"nc=00000001,", b"qop=auth,"),
        *(b'digest-uri="ldap/x",', b"response=d388dad90d4bbd760a152321f2143af7,", b"charset="),
        *(b"utf-8,", b'authzid="boss",', b"maxbuf=1024,", b'"', b"\\", b"\xc3\xab", b"\n"),
    ]
)
whole = st.sampled_from(
    [
        b"n,,n=joe,r=cnonce",
        b"p=tls-unique,,n=joe,r=cnonce",
        b"c=biws,r=cnonceserver+nonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"c=cD10bHMtdW5pcXVlLCx1bmlxdWU=,r=cnonceserver+nonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b'username="joe",nonce="server+nonce",cnonce="x",nc=00000001,digest-uri="ldap/x",'
        b"response=d388dad90d4bbd760a152321f2143af7",
        b"joe d388dad90d4bbd760a152321f2143af7",
        b"\0joe\0wrong",
    ]
)
messages = st.one_of(
    st.binary(max_size=60),
    st.lists(pieces | st.binary(max_size=5), max_size=20).map(b"".join),
    whole,
)


@pytest.mark.parametrize("mechanism", NAMES)
@unhurried
@given(initial=st.none() | messages, responses=st.lists(messages, max_size=4))
def test_no_client_raises_anything_but_a_malformed_message(
    mechanism: str, initial: bytes | None, responses: list[bytes]
) -> None:
    server = OwnServer(USERS, EVERYTHING)

    reply = server.start(mechanism, initial)
    for response in responses:
        if reply.is_challenge:
            reply = server.answer(response)

    ends = [reply.is_challenge, server.malformed is not None, server.finished is not None]
    assert ends.count(True) == 1


@pytest.mark.parametrize("mechanism", [name for name in NAMES if name not in OPEN])
@unhurried
@given(initial=st.none() | messages, responses=st.lists(messages, max_size=4))
def test_no_client_that_does_not_know_the_password_is_let_in(
    mechanism: str, initial: bytes | None, responses: list[bytes]
) -> None:
    server = OwnServer(USERS, EVERYTHING)

    replies = [server.start(mechanism, initial)]
    for response in responses:
        if replies[-1].is_challenge:
            replies.append(server.answer(response))

    assert not any(reply.is_success for reply in replies)


def credentials(name: str, password: str) -> Credentials:
    return Credentials(name, Secret(password.encode()), service=SERVICE, host=HOST)


def is_let_in(server: SaslServer, mechanism: str, who: Credentials) -> bool:
    """Say whether both sides call it a success; skip what our client cannot say."""
    try:
        exchange = ClientExchange(find_client(mechanism), who)
    except UnusableCredentials:
        assume(condition=False)
        raise
    with suppress(MalformedMessage):
        return authenticate(server, exchange).is_success
    return False


def forms(mechanism: str, password: str) -> set[bytes]:
    """Return what *password* is where it is proven; nothing where our client cannot say it."""
    if mechanism in SCRAM:
        try:
            return {prepare_stored(password).encode()}
        except NotPreparable:
            return set()
    encoded = password.encode()
    return {encoded, hashed_form(encoded)} if mechanism == "DIGEST-MD5" else {encoded}


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)
names = texts.filter(lambda name: len(name.encode()) <= LONGEST_NAME)
passwords = texts.filter(lambda password: len(password.encode()) <= LONGEST_PASSWORD)


@pytest.mark.parametrize("mechanism", ["DIGEST-MD5", "CRAM-MD5", "PLAIN"])
@unhurried
@given(name=names, password=passwords)
@example(name='q"\\,= x', password='a "b" \\c')
@example(name="zoë", password="pässwörd €")
def test_who_has_the_password_is_let_in(mechanism: str, name: str, password: str) -> None:
    assert is_let_in(OwnServer({name: password}), mechanism, credentials(name, password))


@pytest.mark.parametrize("mechanism", SCRAM)
@unhurried
@given(password=passwords)
@example(password="pässwörd €")
@example(password="\u2168")
def test_who_has_the_password_is_let_in_by_scram(mechanism: str, password: str) -> None:
    assert is_let_in(OwnServer({"joe": password}), mechanism, credentials("joe", password))


@pytest.mark.parametrize("mechanism", BY_PASSWORD)
@unhurried
@given(stored=passwords, said=passwords)
@example(stored="right", said="Right")
@example(stored="right", said="right ")
@example(stored="x" * 64, said="x" * 65)
def test_who_has_another_is_not(mechanism: str, stored: str, said: str) -> None:
    # For DIGEST-MD5 a password in UTF-8 is as good as what that looks like in ISO 8859-1.
    assume(not forms(mechanism, stored) & forms(mechanism, said))

    assert not is_let_in(OwnServer({"joe": stored}), mechanism, credentials("joe", said))


class Tampering(NamedTuple):
    """A server behind somebody who changes one byte of the message number *which*, any side's."""

    server: SaslServer
    which: int
    data: st.DataObject
    seen: list[bytes]

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        """Begin an exchange."""
        return self.back(self.server.start(mechanism, initial and self.passed(initial)))

    def answer(self, response: bytes, /) -> Reply:
        """Go on with it."""
        return self.back(self.server.answer(self.passed(response)))

    def back(self, reply: Reply) -> Reply:
        """Return what the client gets of *reply*."""
        return reply._replace(data=reply.data and self.passed(reply.data))

    def passed(self, message: bytes) -> bytes:
        """Return what becomes of *message*."""
        self.seen.append(message)
        if len(self.seen) - 1 != self.which or not message:
            return message
        where = self.data.draw(st.integers(0, len(message) - 1), "place")
        changed = bytearray(message)
        changed[where] ^= self.data.draw(st.integers(1, 255), "difference")
        return bytes(changed)


@pytest.mark.parametrize(
    ("mechanism", "count"),
    [*((name, 4) for name in SCRAM), ("CRAM-MD5", 2), ("PLAIN", 1)],
)
@unhurried
@given(st.data())
def test_no_changed_byte_ends_in_success(mechanism: str, count: int, data: st.DataObject) -> None:
    which = data.draw(st.integers(0, count - 1), "message")
    tampering = Tampering(OwnServer(USERS), which, data, [])

    assert not is_let_in(tampering, mechanism, credentials("joe", USERS["joe"]))

    assert len(tampering.seen) > which


@unhurried
@given(st.data())
def test_a_changed_byte_of_digest_md5_ends_in_success_only_where_nothing_depends_on_it(
    data: st.DataObject,
) -> None:
    server = OwnServer(USERS)
    who = credentials("joe", USERS["joe"])._replace(authzid="boss")
    which = data.draw(st.integers(0, 2), "message")

    if is_let_in(Tampering(server, which, data, []), "DIGEST-MD5", who):
        assert server.named == ("joe", "boss")
