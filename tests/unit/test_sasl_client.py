"""What the dialogues of tests/vectors/sasl do not show."""

import re
from collections.abc import Sequence

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import (
    ClientExchange,
    Credentials,
    NoMechanism,
    ServerRefused,
    UnusableCredentials,
    find,
    strongest,
)
from pysaslauthd.sasl.nonces import random_nonce

JOE = Credentials("joe", Secret(b"right"), service="ldap", host="directory.test.example")
SCRAM = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
WITH_PASSWORD = [*SCRAM, "DIGEST-MD5", "CRAM-MD5", "PLAIN"]
WITH_AUTHZID = [*SCRAM, "DIGEST-MD5", "PLAIN", "EXTERNAL"]
KNOWN = "EXTERNAL, SCRAM-SHA-512, SCRAM-SHA-256, SCRAM-SHA-1, DIGEST-MD5, CRAM-MD5, PLAIN"


def exchange(mechanism: str, credentials: Credentials = JOE) -> ClientExchange:
    return ClientExchange(find(mechanism), credentials, lambda: "cnonce")


class TestInitialResponse:
    @pytest.mark.parametrize("mechanism", ["CRAM-MD5", "DIGEST-MD5"])
    def test_there_is_none_where_the_server_begins(self, mechanism: str) -> None:
        assert exchange(mechanism).initial is None

    def test_an_empty_one_is_one(self) -> None:
        assert exchange("EXTERNAL").initial == b""


class TestNonces:
    def test_are_printable_and_need_no_escaping(self) -> None:
        assert re.fullmatch("[A-Za-z0-9+/]{32}", random_nonce())

    @pytest.mark.parametrize("mechanism", SCRAM)
    def test_are_new_in_every_exchange(self, mechanism: str) -> None:
        one, other = (ClientExchange(find(mechanism), JOE) for _ in range(2))

        assert one.initial != other.initial


class TestUnusableCredentials:
    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    @pytest.mark.parametrize(
        ("credentials", "problem"),
        [
            pytest.param(JOE._replace(authcid=""), "there is no authcid", id="no-authcid"),
            pytest.param(
                JOE._replace(authcid="joe\0"),
                "the authcid has a control character",
                id="nul-in-authcid",
            ),
            pytest.param(
                JOE._replace(authcid="j\noe"),
                "the authcid has a control character",
                id="lf-in-authcid",
            ),
            pytest.param(
                JOE._replace(authcid="caf\udce9"),
                "the authcid is not Unicode",
                id="authcid-not-unicode",
            ),
            pytest.param(JOE._replace(password=None), "there is no password", id="no-password"),
            pytest.param(
                JOE._replace(password=Secret(b"")), "there is no password", id="empty-password"
            ),
        ],
    )
    def test_are_told_before_anything_is_said(
        self, mechanism: str, credentials: Credentials, problem: str
    ) -> None:
        with pytest.raises(UnusableCredentials, match=f"^{problem}$"):
            exchange(mechanism, credentials)

    @pytest.mark.parametrize("mechanism", WITH_AUTHZID)
    @pytest.mark.parametrize(
        ("authzid", "problem"),
        [
            pytest.param("u:\0", "the authzid has a control character", id="nul"),
            pytest.param("u:\x7f", "the authzid has a control character", id="delete"),
            pytest.param("u:\ud800", "the authzid is not Unicode", id="surrogate"),
        ],
    )
    def test_may_be_an_authzid(self, mechanism: str, authzid: str, problem: str) -> None:
        with pytest.raises(UnusableCredentials, match=f"^{problem}$"):
            exchange(mechanism, JOE._replace(authzid=authzid))

    @pytest.mark.parametrize(
        ("mechanism", "credentials", "problem"),
        [
            ("PLAIN", JOE._replace(password=Secret(b"a\0b")), "the password has a NUL"),
            ("CRAM-MD5", JOE._replace(authzid="boss"), "the mechanism has no place for an authzid"),
            ("DIGEST-MD5", JOE._replace(service=""), "there is no service"),
            ("DIGEST-MD5", JOE._replace(host=""), "there is no host"),
            ("DIGEST-MD5", JOE._replace(realm="\n"), "the realm has a control character"),
        ],
        ids=["nul-in-password", "authzid", "no-service", "no-host", "lf-in-realm"],
    )
    def test_may_be_so_for_one_mechanism_only(
        self, mechanism: str, credentials: Credentials, problem: str
    ) -> None:
        with pytest.raises(UnusableCredentials, match=f"^{problem}$"):
            exchange(mechanism, credentials)

    @pytest.mark.parametrize("mechanism", SCRAM)
    @pytest.mark.parametrize(
        ("credentials", "problem"),
        [
            pytest.param(
                JOE._replace(authcid="\ue000"),
                "the authcid has a character that SASLprep prohibits",
                id="authcid-prohibited",
            ),
            pytest.param(
                JOE._replace(authcid="\u00ad"),
                "SASLprep leaves nothing of the authcid",
                id="no-authcid-left",
            ),
            pytest.param(
                JOE._replace(password=Secret(b"caf\xe9")),
                "the password is not UTF-8",
                id="not-utf8",
            ),
            pytest.param(
                JOE._replace(password=Secret(b"a\7b")),
                "the password has a character that SASLprep prohibits",
                id="password-prohibited",
            ),
            pytest.param(
                JOE._replace(password=Secret("\U0001f600".encode())),
                "the password has a character that Unicode 3.2 does not know",
                id="password-unassigned",
            ),
            pytest.param(
                JOE._replace(password=Secret("\u00ad".encode())),
                "SASLprep leaves nothing of the password",
                id="no-password-left",
            ),
        ],
    )
    def test_are_what_saslprep_refuses_for_scram(
        self, mechanism: str, credentials: Credentials, problem: str
    ) -> None:
        with pytest.raises(UnusableCredentials, match=f"^{re.escape(problem)}$"):
            exchange(mechanism, credentials)


class TestSecrecy:
    def test_credentials_do_not_show_the_password(self) -> None:
        assert "right" not in repr(JOE)

    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_an_exchange_does_not_show_the_password(self, mechanism: str) -> None:
        assert "right" not in repr(vars(exchange(mechanism)) | {"initial": None})


class TestScram:
    def test_name_and_password_are_prepared(self) -> None:
        prepared = exchange("SCRAM-SHA-1", JOE._replace(authcid="IX", password=Secret(b"a b")))
        typed = JOE._replace(authcid="\u2168", password=Secret("\u00aa\u00a0b".encode()))
        challenge = b"r=cnonce+,s=QSXCR+Q6sek8bf92,i=4096"

        as_typed = exchange("SCRAM-SHA-1", typed)

        assert as_typed.initial == prepared.initial == b"n,,n=IX,r=cnonce"
        assert as_typed.respond(challenge) == prepared.respond(challenge)

    def test_a_name_may_be_newer_than_unicode_3_2(self) -> None:
        assert exchange("SCRAM-SHA-1", JOE._replace(authcid="j\U0001f600e")).initial

    @pytest.mark.parametrize("count", [4096, 1_000_000])
    def test_the_bounds_of_the_iteration_count_are_within(self, count: int) -> None:
        assert exchange("SCRAM-SHA-1").respond(b"r=cnonce+,s=QSXCR+Q6sek8bf92,i=%d" % count)

    def test_extensions_of_the_server_are_ignored_but_proved(self) -> None:
        plain, extended = exchange("SCRAM-SHA-1"), exchange("SCRAM-SHA-1")
        challenge = b"r=cnonce+,s=QSXCR+Q6sek8bf92,i=4096"

        one, other = plain.respond(challenge), extended.respond(challenge + b",x=1,r=2")

        assert one.startswith(b"c=biws,r=cnonce+,p=")
        assert other.startswith(b"c=biws,r=cnonce+,p=")
        assert one != other

    def test_extensions_behind_the_signature_are_ignored(self) -> None:
        credentials = Credentials("user", Secret(b"pencil"))
        scram = ClientExchange(find("SCRAM-SHA-1"), credentials, lambda: "fyko+d2lbbFgONRv9qkxdawL")
        nonce = b"fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
        scram.respond(b"r=%b,s=QSXCR+Q6sek8bf92,i=4096" % nonce)

        scram.finish(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=,x=1")

    @pytest.mark.parametrize(
        ("error", "blames"),
        [
            ("invalid-proof", True),
            ("unknown-user", True),
            ("no-resources", False),
            ("extensions-not-supported", False),
        ],
    )
    def test_an_error_says_whether_it_is_about_the_credentials(
        self,
        error: str,
        blames: bool,  # noqa: FBT001
    ) -> None:
        scram = exchange("SCRAM-SHA-1")
        scram.respond(b"r=cnonce+,s=QSXCR+Q6sek8bf92,i=4096")

        with pytest.raises(ServerRefused) as caught:
            scram.respond(b"e=" + error.encode())

        assert (caught.value.error, caught.value.blames_credentials) == (error, blames)


class TestDigestMd5:
    OFFER = b'nonce="nonce",algorithm=md5-sess'

    def response(self, challenge: bytes, credentials: Credentials = JOE) -> bytes:
        return exchange("DIGEST-MD5", credentials).respond(challenge)

    @pytest.mark.parametrize(
        ("realms", "wished", "chosen"),
        [
            pytest.param(b"", None, b"", id="none-offered"),
            pytest.param(b"", "", b'realm="",', id="none-offered-and-empty-wished"),
            pytest.param(b"", "b", b'realm="b",', id="none-offered-and-one-wished"),
            pytest.param(b',realm=""', None, b'realm="",', id="empty-offered"),
            pytest.param(b',realm="a"', None, b'realm="a",', id="one-offered"),
            pytest.param(b',realm="a",realm="b"', None, b'realm="a",', id="first-of-several"),
            pytest.param(b',realm="a",realm="b"', "b", b'realm="b",', id="second-of-several"),
            pytest.param(b',realm="a"', "c", b'realm="c",', id="another-wished"),
            pytest.param(rb',realm="a\"\\"', None, rb'realm="a\"\\",', id="quotes-offered"),
            pytest.param(b"", 'a"\\', rb'realm="a\"\\",', id="quotes-wished"),
        ],
    )
    def test_the_realm_is_the_wished_or_the_first(
        self, realms: bytes, wished: str | None, chosen: bytes
    ) -> None:
        response = self.response(self.OFFER + realms, JOE._replace(realm=wished))

        assert response.startswith(b'username="joe",%bnonce="nonce",' % chosen)

    def test_no_realm_and_an_empty_one_have_the_same_proof(self) -> None:
        proofs = {
            re.findall(b"response=([0-9a-f]{32}),", self.response(self.OFFER + realm))[0]
            for realm in (b"", b',realm=""')
        }

        assert len(proofs) == 1

    def test_utf8_is_used_where_it_is_offered(self) -> None:
        response = self.response(
            self.OFFER + b",charset=UTF-8", JOE._replace(authcid="zoë", realm="é")
        )

        assert response.startswith('charset=utf-8,username="zoë",realm="é",'.encode())

    def test_iso_8859_1_is_used_where_utf8_is_not_offered(self) -> None:
        response = self.response(self.OFFER, JOE._replace(authcid="zoë", realm="é"))

        assert response.startswith('username="zoë",realm="é",'.encode("latin-1"))

    @pytest.mark.parametrize("authcid", ["zoë", "Ã©"], ids=["zoë", "looks-like-utf8"])
    def test_what_iso_8859_1_has_is_hashed_in_it_either_way(self, authcid: str) -> None:
        user = JOE._replace(authcid=authcid, realm="é", password=Secret("café".encode()))
        proofs = {
            re.findall(b"response=([0-9a-f]{32}),", self.response(self.OFFER + charset, user))[0]
            for charset in (b"", b",charset=utf-8")
        }

        assert len(proofs) == 1

    @pytest.mark.parametrize(
        "credentials",
        [
            pytest.param(JOE._replace(authcid="кира"), id="authcid"),
            pytest.param(JOE._replace(password=Secret("€".encode())), id="password"),
            pytest.param(JOE._replace(realm="€"), id="realm"),
        ],
    )
    def test_what_iso_8859_1_does_not_have_cannot_be_said_without_utf8(
        self, credentials: Credentials
    ) -> None:
        digest = exchange("DIGEST-MD5", credentials)

        with pytest.raises(
            MalformedMessage, match=r"^DIGEST-MD5: the server takes ISO 8859-1 only"
        ):
            digest.respond(self.OFFER)

    def test_a_password_that_is_not_utf8_can_be_said_without_utf8(self) -> None:
        raw = self.response(self.OFFER, JOE._replace(password=Secret(b"caf\xe9")))

        assert raw == self.response(self.OFFER, JOE._replace(password=Secret("café".encode())))

    @pytest.mark.parametrize(
        "qop", [b"", b',qop="auth"', b',qop="auth-conf, auth-int,AUTH"', b",qop=auth"]
    )
    def test_authentication_alone_is_chosen_where_it_is_offered(self, qop: bytes) -> None:
        assert b",qop=auth" in self.response(self.OFFER + qop)

    def test_a_response_that_is_too_long_is_not_sent(self) -> None:
        digest = exchange("DIGEST-MD5", JOE._replace(authcid="j" * 4000))

        with pytest.raises(MalformedMessage, match=r"^DIGEST-MD5: the response has 4096 bytes"):
            digest.respond(self.OFFER)


class TestFind:
    @pytest.mark.parametrize("name", KNOWN.split(", "))
    def test_every_mechanism_is_found_by_its_name(self, name: str) -> None:
        assert find(name).name == name
        assert find(name.lower()) is find(name)

    @pytest.mark.parametrize("name", ["GSSAPI", "gss-spnego"])
    def test_kerberos_is_not_supported_yet(self, name: str) -> None:
        with pytest.raises(
            NoMechanism, match=f"^{name.upper()} is not supported yet; known are {KNOWN}$"
        ):
            find(name)

    @pytest.mark.parametrize("name", ["", "LOGIN", "SCRAM-SHA-1-PLUS", "\x1b[31m"])
    def test_an_unknown_name_is_told_with_the_known_ones(self, name: str) -> None:
        text = re.escape(f"there is no mechanism {name!r}; known are {KNOWN}")
        with pytest.raises(NoMechanism, match=f"^{text}$"):
            find(name)


class TestStrongest:
    EVERY = ("PLAIN", "EXTERNAL", "CRAM-MD5", "GSSAPI", "SCRAM-SHA-1", "DIGEST-MD5")

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            pytest.param([*EVERY, "SCRAM-SHA-512", "SCRAM-SHA-256"], "SCRAM-SHA-512", id="all"),
            pytest.param([*EVERY, "SCRAM-SHA-256"], "SCRAM-SHA-256", id="scram-sha-256"),
            pytest.param(EVERY, "SCRAM-SHA-1", id="scram-sha-1"),
            pytest.param(["cram-md5", "digest-md5"], "DIGEST-MD5", id="digest-md5"),
            pytest.param(["PLAIN", "CRAM-MD5", "LOGIN"], "CRAM-MD5", id="cram-md5"),
            pytest.param(["LOGIN", "EXTERNAL", "PLAIN"], "PLAIN", id="plain"),
        ],
    )
    def test_is_chosen_from_the_offer(self, offered: Sequence[str], chosen: str) -> None:
        assert strongest(offered, JOE, private=True).name == chosen

    @pytest.mark.parametrize(
        ("credentials", "chosen"),
        [
            pytest.param(JOE._replace(password=Secret(b"caf\xe9")), "DIGEST-MD5", id="no-utf8"),
            pytest.param(JOE._replace(authzid="boss", host=""), "SCRAM-SHA-1", id="authzid"),
            pytest.param(
                JOE._replace(password=Secret(b"caf\xe9"), host=""), "CRAM-MD5", id="no-utf8-no-host"
            ),
            pytest.param(
                JOE._replace(password=Secret(b"caf\xe9"), host="", authzid="boss"),
                "PLAIN",
                id="no-utf8-no-host-authzid",
            ),
        ],
    )
    def test_can_say_the_credentials(self, credentials: Credentials, chosen: str) -> None:
        assert strongest(self.EVERY, credentials, private=True).name == chosen

    def test_does_not_reveal_the_password_where_others_may_read(self) -> None:
        with pytest.raises(NoMechanism, match=r"^PLAIN: it would reveal the password$"):
            strongest(["PLAIN"], JOE, private=False)

    def test_need_not_be_private_where_the_password_is_not_revealed(self) -> None:
        assert strongest(self.EVERY, JOE, private=False).name == "SCRAM-SHA-1"

    @pytest.mark.parametrize("offered", [[], ["EXTERNAL"], ["LOGIN", "GSSAPI"]])
    def test_is_none_of_what_is_not_known(self, offered: list[str]) -> None:
        with pytest.raises(NoMechanism, match=r"^the server offers none of SCRAM-SHA-512, "):
            strongest(offered, JOE, private=True)

    def test_is_none_where_none_can_say_the_credentials(self) -> None:
        with pytest.raises(
            NoMechanism,
            match=r"^CRAM-MD5: the mechanism has no place for an authzid; "
            r"PLAIN: it would reveal the password$",
        ):
            strongest(["PLAIN", "CRAM-MD5"], JOE._replace(authzid="boss"), private=False)
