from collections.abc import Generator
from functools import partial
from typing import cast

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.sasl import scram
from pysaslauthd.sasl.client import ClientExchange, Credentials
from pysaslauthd.sasl.client import find as find_client
from pysaslauthd.sasl.scram import SHA_1, SHA_256, SHA_512, Scram, encode_base64, exclusive_or
from pysaslauthd.sasl.server.mechanism import (
    Answer,
    ChannelBinding,
    Compute,
    FetchPassword,
    Mechanism,
    Step,
)
from pysaslauthd.sasl.server.registry import find
from pysaslauthd.sasl.server.scram import script, without_plus
from pysaslauthd.sasl.server.scram_keys import KeyRing, Proof
from tests.helpers.sasl_own_server import HERE, KEY, WRONG_PASSWORD, OwnServer
from tests.helpers.sasl_servers import Reply, authenticate

HASHES = {"SHA-1": SHA_1, "SHA-256": SHA_256, "SHA-512": SHA_512}
END_POINT = ChannelBinding("tls-server-end-point", b"\0digest of the certificate\xff")
BOUND = HERE._replace(channel_binding=END_POINT)
NOT_THE_HEADER = "SCRAM: c= is not the gs2-header and the channel binding"


def log_in(
    server: OwnServer,
    mechanism: str | Mechanism = "SCRAM-SHA-1",
    header: bytes = b"n,,",
    binding: bytes = b"",
    digest: str = "SHA-1",
    name: bytes = b"joe",
    password: bytes = b"right",
) -> Reply:
    """Return what becomes of a client that says what it is told to say."""
    hashes = HASHES[digest]
    bare = b"n=%b,r=cnonce" % name
    reply = server.start(mechanism, header + bare)
    if not reply.is_challenge or reply.data is None:
        return reply
    nonce, salt, _ = (part[2:] for part in reply.data.split(b","))
    salted = hashes.salted_password(password, scram.decode_base64(salt.decode()), 4096)
    without_proof = b"c=%b,r=%b" % (encode_base64(header + binding).encode(), nonce)
    message = b",".join([bare, reply.data, without_proof])
    proof = encode_base64(proof_of(hashes, salted, message))
    return server.answer(b"%b,p=%b" % (without_proof, proof.encode()))


def proof_of(hashes: Scram, salted_password: bytes, message: bytes) -> bytes:
    """Return the proof of who knows *salted_password*."""
    client_key = hashes.client_key(salted_password)
    return exclusive_or(client_key, hashes.signature(hashes.stored_key(client_key), message))


def joes(password: str = "right") -> OwnServer:
    return OwnServer({"joe": password})


class TestChannelBinding:
    @pytest.mark.parametrize("digest", HASHES)
    @pytest.mark.parametrize(
        "channel",
        [END_POINT, ChannelBinding("tls-unique", b"unique"), ChannelBinding("x-other.1", b"")],
        ids=lambda channel: channel.type,
    )
    def test_who_is_bound_to_this_channel_is_let_in(
        self, digest: str, channel: ChannelBinding
    ) -> None:
        server = OwnServer({"joe": "right"}, HERE._replace(channel_binding=channel))
        header = b"p=%b,," % channel.type.encode()

        reply = log_in(server, f"SCRAM-{digest}-PLUS", header, channel.data, digest)

        assert (reply.is_success, reply.user) == (True, "joe")

    def test_an_authzid_is_bound_too(self) -> None:
        server = OwnServer({"joe": "right"}, BOUND)
        header = b"p=tls-server-end-point,a=boss,"

        reply = log_in(server, "SCRAM-SHA-1-PLUS", header, END_POINT.data)

        assert reply.is_success
        assert server.finished is not None
        assert server.finished.authzid == "boss"

    @pytest.mark.parametrize(
        "binding", [b"", END_POINT.data[:-1], END_POINT.data + b"x", b"another"], ids=ascii
    )
    def test_who_is_bound_to_another_channel_is_refused(self, binding: bytes) -> None:
        server = OwnServer({"joe": "right"}, BOUND)

        log_in(server, "SCRAM-SHA-1-PLUS", b"p=tls-server-end-point,,", binding)

        assert (server.malformed, server.asked) == (NOT_THE_HEADER, [])

    @pytest.mark.parametrize(
        "header",
        [
            b"n,,",
            b"y,,",
            b"p=tls-unique,,",
            b"p=tls-server-end-poin,,",
            b"p=TLS-Server-End-Point,,",
        ],
        ids=ascii,
    )
    def test_who_does_not_want_this_binding_is_refused(self, header: bytes) -> None:
        server = OwnServer({"joe": "right"}, BOUND)

        log_in(server, "SCRAM-SHA-1-PLUS", header)

        assert server.malformed == "SCRAM: the client does not bind to this channel"

    def test_there_is_none_without_a_channel(self) -> None:
        server = joes()

        log_in(server, "SCRAM-SHA-1-PLUS", b"p=tls-unique,,")

        assert server.malformed == "SCRAM: there is no channel to bind to"

    def test_who_could_bind_may_see_that_we_cannot(self) -> None:
        assert log_in(joes(), header=b"y,,").is_success

    def test_who_was_kept_from_binding_is_refused(self) -> None:
        server = OwnServer({"joe": "right"}, BOUND)

        log_in(server, header=b"y,,")

        assert server.malformed == "SCRAM: the client was not shown the -PLUS mechanism"

    def test_who_cannot_bind_need_not(self) -> None:
        assert log_in(OwnServer({"joe": "right"}, BOUND)).is_success

    def test_nobody_binds_without_plus(self) -> None:
        server = OwnServer({"joe": "right"}, BOUND)

        log_in(server, header=b"p=tls-server-end-point,,", binding=END_POINT.data)

        assert server.malformed == "SCRAM: channel binding without a -PLUS mechanism"


class TestNames:
    def test_a_name_is_prepared_and_asked_for_at_the_end(self) -> None:
        server = OwnServer({"IX,=": "right"})
        server.start("SCRAM-SHA-1", "n,,n=\u2168=2C=3D,r=cnonce".encode())

        assert server.asked == []

    def test_a_name_is_looked_for_as_prepared_and_hashed_as_sent(self) -> None:
        server = OwnServer({"IX,=": "right"})

        reply = log_in(server, name="\u2168=2C=3D".encode())

        assert server.asked == [FetchPassword("IX,=")]
        assert (reply.is_success, reply.user) == (True, "IX,=")

    @pytest.mark.parametrize(
        ("authzid", "told"), [("\u2168", "IX"), ("IX", "IX"), ("\u2167", "\u2167")], ids=ascii
    )
    def test_who_says_twice_who_it_is_is_one(self, authzid: str, told: str) -> None:
        server = OwnServer({"IX": "right"})

        log_in(server, header=f"n,a={authzid},".encode(), name="\u2168".encode())

        assert server.named == ("IX", told)

    def test_a_name_may_be_newer_than_unicode_3_2(self) -> None:
        assert log_in(OwnServer({"\U0001f600": "right"}), name="\U0001f600".encode()).is_success

    def test_a_name_of_many_escapes_is_no_longer_than_it_is(self) -> None:
        assert log_in(OwnServer({"," * 255: "right"}), name=b"=2C" * 255).is_success


class TestPasswords:
    @pytest.mark.parametrize(
        ("stored", "hashed"),
        [
            pytest.param("IX a", b"IX a", id="prepared"),
            pytest.param("\u2168\u00a0\u00aa", b"IX a", id="not-prepared"),
            pytest.param("\U0001f600", "\U0001f600".encode(), id="newer-than-unicode-3.2"),
            pytest.param("a\u05d0", "a\u05d0".encode(), id="two-directions"),
            pytest.param("caf\udce9", b"caf\xe9", id="not-utf8"),
            pytest.param("\u00ad", "\u00ad".encode(), id="nothing-left"),
        ],
    )
    def test_a_stored_password_is_prepared_where_that_can_be(
        self, stored: str, hashed: bytes
    ) -> None:
        assert log_in(joes(stored), password=hashed).is_success

    @pytest.mark.parametrize("stored", ["", "\u00ad"], ids=["empty", "nothing-left"])
    def test_an_empty_password_is_never_right(self, stored: str) -> None:
        assert not log_in(joes(stored), password=b"").is_success


class TestProofs:
    def test_an_extension_is_ignored_and_proved(self) -> None:
        server = joes()
        first = server.start("SCRAM-SHA-1", b"n,,n=joe,r=cnonce,x=1").data or b""
        nonce, salt, _ = (part[2:] for part in first.split(b","))
        salted = SHA_1.salted_password(b"right", scram.decode_base64(salt.decode()), 4096)
        without_proof = b"c=biws,r=%b,y=2" % nonce
        message = b",".join([b"n=joe,r=cnonce,x=1", first, without_proof])
        proof = encode_base64(proof_of(SHA_1, salted, message)).encode()

        assert server.answer(b"%b,p=%b" % (without_proof, proof)).is_success

    @pytest.mark.parametrize("size", [1, 19, 21, 32])
    def test_a_proof_of_another_length_is_wrong(self, size: int) -> None:
        server = joes()
        first = server.start("SCRAM-SHA-1", b"n,,n=joe,r=cnonce").data or b""
        nonce = first.split(b",")[0]

        server.answer(b"c=biws,%b,p=%b" % (nonce, encode_base64(bytes(size)).encode()))

        assert server.finished is not None
        assert server.finished.result == WRONG_PASSWORD

    def test_the_proof_of_the_first_exchange_proves_nothing_in_the_second(self) -> None:
        server = joes()
        client = ClientExchange(find_client("SCRAM-SHA-1"), Credentials("joe", Secret(b"right")))
        final = client.respond(server.start("SCRAM-SHA-1", client.initial).data or b"")

        server.start("SCRAM-SHA-1", client.initial)
        server.answer(final)

        assert server.malformed == "SCRAM: the nonce is not the server's"


class TestSalts:
    def salt(self, name: str, mechanism: str = "SCRAM-SHA-1", key: Secret = KEY) -> bytes:
        server = OwnServer({"joe": "right"}, HERE._replace(key=key))
        first = server.start(mechanism, f"n,,n={name},r=cnonce".encode()).data or b""
        return scram.decode_base64(first.split(b",")[1][2:].decode())

    @pytest.mark.parametrize("name", ["joe", "nobody"], ids=["known", "unknown"])
    def test_a_name_has_one(self, name: str) -> None:
        assert self.salt(name) == self.salt(name)
        assert len(self.salt(name)) == 16

    def test_another_name_hash_function_or_process_has_another(self) -> None:
        salts = {
            self.salt("joe"),
            self.salt("nobody"),
            self.salt("joe", "SCRAM-SHA-256"),
            self.salt("joe", key=Secret(b"of another process")),
        }

        assert len(salts) == 4

    def test_one_user_has_one_with_channel_binding_and_without(self) -> None:
        server = OwnServer({"joe": "right"}, BOUND)
        bound = server.start("SCRAM-SHA-1-PLUS", b"p=tls-server-end-point,,n=joe,r=cnonce").data

        assert (bound or b"").split(b",")[1][2:].decode() == encode_base64(self.salt("joe"))


class CountingScram(Scram):
    """SCRAM-SHA-1 that notes for which passwords keys have been made."""

    made: list[bytes]

    def salted_password(self, password: bytes, salt: bytes, iterations: int) -> bytes:
        self.made.append(password)
        return super().salted_password(password, salt, iterations)


@pytest.fixture
def counting() -> CountingScram:
    scram = CountingScram("sha1")
    scram.made = []
    return scram


def end_of(steps: Generator[Step, Answer, bytes | None]) -> bytes | None:
    """Return what is said in the end, after whatever has to be computed."""
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Compute)
            step = steps.send(step.work())
    except StopIteration as end:
        return cast("bytes | None", end.value)


class TestKeyRing:
    MESSAGE = b"what was said"

    def is_proven(
        self, ring: KeyRing, name: str = "joe", known: bytes = b"right", stored: bytes = b"right"
    ) -> bool:
        """Say whether a client that knows *known* proves to *ring* that it knows *stored*."""
        salted = SHA_1.salted_password(known, ring.salt(KEY, name), 4096)
        proof = Proof(proof_of(SHA_1, salted, self.MESSAGE), self.MESSAGE)
        signature = end_of(ring.signature(KEY, name, Secret(stored), proof))
        if signature is None:
            return False
        assert signature == SHA_1.signature(SHA_1.server_key(salted), self.MESSAGE)
        return True

    def test_keys_are_made_once_for_who_proves_the_password(self, counting: CountingScram) -> None:
        ring = KeyRing(counting)

        proven = [self.is_proven(ring) for _ in range(3)]

        assert (proven, counting.made) == ([True] * 3, [b"right"])

    def test_keys_are_made_for_every_wrong_proof(self, counting: CountingScram) -> None:
        ring = KeyRing(counting)

        proven = [self.is_proven(ring, known=b"wrong") for _ in range(3)]

        assert (proven, len(counting.made)) == ([False] * 3, 3)

    def test_a_wrong_proof_takes_as_long_when_the_keys_are_known(
        self, counting: CountingScram
    ) -> None:
        ring = KeyRing(counting)
        self.is_proven(ring)

        assert not self.is_proven(ring, known=b"wrong")

        assert len(counting.made) == 2

    def test_a_changed_password_counts_at_once(self, counting: CountingScram) -> None:
        ring = KeyRing(counting)
        self.is_proven(ring)

        assert not self.is_proven(ring, stored=b"changed")
        assert self.is_proven(ring, known=b"changed", stored=b"changed")

    def test_the_keys_of_who_came_longest_ago_are_forgotten(self, counting: CountingScram) -> None:
        ring = KeyRing(counting, room=2)
        for name in ("ann", "joe", "ann", "zoe"):
            self.is_proven(ring, name)
        counting.made.clear()

        self.is_proven(ring, "ann")
        self.is_proven(ring, "zoe")
        assert counting.made == []
        self.is_proven(ring, "joe")
        assert counting.made == [b"right"]

    def test_wrong_proofs_push_nobody_out(self, counting: CountingScram) -> None:
        ring = KeyRing(counting, room=1)
        self.is_proven(ring)
        self.is_proven(ring, "ann", known=b"wrong")
        counting.made.clear()

        assert self.is_proven(ring)

        assert counting.made == []

    def test_a_password_is_not_shown(self) -> None:
        ring = KeyRing(SHA_1)
        self.is_proven(ring)

        assert b"right" not in repr(vars(ring)).encode()

    def test_a_second_login_is_as_good_as_the_first(self) -> None:
        mechanism = find("SCRAM-SHA-1")
        assert mechanism is not None
        fresh = mechanism._replace(start=partial(script, KeyRing(SHA_1), without_plus))
        server = joes()

        replies = [log_in(server, fresh) for _ in range(2)]

        assert [reply.is_success for reply in replies] == [True, True]


@pytest.mark.parametrize("digest", HASHES)
def test_our_client_believes_us(digest: str) -> None:
    client = ClientExchange(find_client(f"SCRAM-{digest}"), Credentials("joe", Secret(b"right")))

    assert authenticate(joes(), client).is_success
