"""What the dialogues of tests/vectors/sasl do not show of the server halves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pysaslauthd.model import Accepted, Reason, Rejected, Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials
from pysaslauthd.sasl.client import find as find_client
from pysaslauthd.sasl.server.decoys import decoy_password
from pysaslauthd.sasl.server.mechanism import (
    CheckPassword,
    Finished,
    Need,
    Stored,
    Traits,
)
from pysaslauthd.sasl.server.registry import STRONGEST_FIRST, find, usable
from tests.helpers.sasl_own_server import BACKEND, HERE, KEY, NO_SUCH_USER, OUTAGE, OwnServer
from tests.helpers.sasl_servers import HOST, REFUSAL, SERVICE, Reply, authenticate
from tests.unit.test_sasl_md5 import FIPS

ROOT = Path(__file__).parents[2]
NAMES = [
    *("SCRAM-SHA-512-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"),
    *("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "DIGEST-MD5", "EXTERNAL", "CRAM-MD5"),
    *("PLAIN", "LOGIN", "ANONYMOUS"),
]
WITH_PASSWORD = ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5", "PLAIN"]
BY_SECRET = WITH_PASSWORD[:-1]
JOE = Credentials("joe", Secret(b"right"), service=SERVICE, host=HOST)
USERS = {"joe": "right", "zoë": "pässwörd"}


def log_in(server: OwnServer, mechanism: str, credentials: Credentials = JOE) -> Reply:
    """Return what becomes of our own client's exchange."""
    return authenticate(server, ClientExchange(find_client(mechanism), credentials))


def end(server: OwnServer) -> Finished:
    """Return how the last exchange ended."""
    assert server.finished is not None
    return server.finished


class TestRegistry:
    def test_the_strongest_mechanism_is_first(self) -> None:
        assert [mechanism.name for mechanism in STRONGEST_FIRST] == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_a_mechanism_is_found_in_any_case_of_letters(self, name: str) -> None:
        mechanism = find(name)

        assert mechanism is not None
        assert mechanism.name == name
        assert find(name.lower()) is mechanism

    @pytest.mark.parametrize("name", ["", "GSSAPI", "PLAIN ", "SCRAM-SHA-1-PLUS-PLUS"])
    def test_what_there_is_not_is_not_found(self, name: str) -> None:
        assert find(name) is None

    @pytest.mark.parametrize(
        ("name", "need", "traits"),
        [
            ("PLAIN", Need.PASSWORD_CHECK, Traits(plaintext=True)),
            ("LOGIN", Need.PASSWORD_CHECK, Traits(plaintext=True)),
            ("CRAM-MD5", Need.STORED_PASSWORD, Traits(dictionary=True, active=True)),
            (
                "DIGEST-MD5",
                Need.STORED_PASSWORD,
                Traits(dictionary=True, active=True, mutual_auth=True),
            ),
            ("SCRAM-SHA-1", Need.STORED_PASSWORD, Traits(mutual_auth=True)),
            ("SCRAM-SHA-256", Need.STORED_PASSWORD, Traits(mutual_auth=True)),
            ("SCRAM-SHA-512", Need.STORED_PASSWORD, Traits(mutual_auth=True)),
            ("SCRAM-SHA-1-PLUS", Need.CHANNEL_BINDING, Traits(mutual_auth=True)),
            ("SCRAM-SHA-256-PLUS", Need.CHANNEL_BINDING, Traits(mutual_auth=True)),
            ("SCRAM-SHA-512-PLUS", Need.CHANNEL_BINDING, Traits(mutual_auth=True)),
            ("ANONYMOUS", Need.NOTHING, Traits(anonymous=True)),
            ("EXTERNAL", Need.EXTERNAL_IDENTITY, Traits()),
        ],
    )
    def test_needs_and_traits_are_those_of_the_table(
        self, name: str, need: Need, traits: Traits
    ) -> None:
        mechanism = find(name)

        assert mechanism is not None
        assert (mechanism.need, mechanism.traits) == (need, traits)

    def test_all_are_usable_where_md5_is_approved(self) -> None:
        assert usable() == STRONGEST_FIRST

    def test_those_of_md5_are_not_usable_where_it_is_forbidden(self, tmp_path: Path) -> None:
        settings = tmp_path / "openssl.cnf"
        settings.write_text(FIPS)
        code = "from pysaslauthd.sasl.server.registry import *; print(*[m.name for m in usable()])"

        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            timeout=20,
            cwd=ROOT,
            env={**os.environ, "OPENSSL_CONF": str(settings)},
        )

        assert done.stdout.split() == [name for name in NAMES if not name.endswith("-MD5")]


class TestEveryMechanismWithAPassword:
    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_an_outage_is_no_refusal(self, mechanism: str) -> None:
        server = OwnServer(USERS, is_down=True)

        log_in(server, mechanism)

        assert end(server) == Finished(OUTAGE, "joe")

    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_an_unknown_user_is_refused_as_such(self, mechanism: str) -> None:
        server = OwnServer({})

        log_in(server, mechanism)

        assert end(server) == Finished(NO_SUCH_USER, "joe")

    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "DIGEST-MD5", "PLAIN"])
    def test_an_authzid_is_told(self, mechanism: str) -> None:
        server = OwnServer(USERS)

        log_in(server, mechanism, JOE._replace(authzid="boss,=é"))

        assert end(server).authzid == "boss,=é"

    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_neither_questions_nor_answers_show_the_password(self, mechanism: str) -> None:
        server = OwnServer(USERS)

        log_in(server, mechanism)

        stored = Stored("joe", Secret(b"right"), BACKEND)
        assert "right" not in repr([server.asked, server.finished, server.surroundings, stored])


class TestStored:
    def test_an_empty_password_is_nobodys(self) -> None:
        stored = Stored("joe", Secret(b""), BACKEND)

        assert stored.verdict(is_proven=True) == Rejected(Reason.WRONG_PASSWORD, BACKEND)

    def test_a_decoy_is_refused_whatever_is_proven(self) -> None:
        stored = Stored("joe", Secret(b"decoy"), BACKEND, NO_SUCH_USER)

        assert stored.verdict(is_proven=True) == NO_SUCH_USER

    @pytest.mark.parametrize("mechanism", BY_SECRET)
    def test_who_knows_a_decoy_is_refused(self, mechanism: str) -> None:
        server = OwnServer({})
        knows = JOE._replace(password=decoy_password(KEY, "joe"))

        assert log_in(server, mechanism, knows) == REFUSAL
        assert end(server) == Finished(NO_SUCH_USER, "joe")


class TestDecoys:
    def test_one_name_has_one_decoy(self) -> None:
        assert decoy_password(KEY, "joe") == decoy_password(KEY, "joe")

    def test_another_name_or_key_has_another(self) -> None:
        decoys = [
            decoy_password(KEY, "joe"),
            decoy_password(KEY, "ann"),
            decoy_password(Secret(b"another"), "joe"),
        ]

        assert len({decoy.reveal() for decoy in decoys}) == 3

    def test_a_decoy_is_as_long_as_passwords_are(self) -> None:
        assert len(decoy_password(KEY, "joe").reveal()) == 12


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "EXTERNAL", "ANONYMOUS"])
def test_a_client_that_is_to_begin_is_asked_by_an_empty_challenge(mechanism: str) -> None:
    assert OwnServer(USERS).start(mechanism, None) == Reply(is_challenge=True, data=b"")


class TestPlain:
    @pytest.mark.parametrize("password", [b" right ", b"caf\xe9", b"a\nb", b"p" * 1024])
    def test_a_password_stays_as_it_is(self, password: bytes) -> None:
        server = OwnServer(USERS)

        server.start("PLAIN", b"\0joe\0" + password)

        assert server.asked == [CheckPassword("joe", Secret(password))]

    @pytest.mark.parametrize("name", ["joe@test.example", "ª", "e\u0301", "n" * 255], ids=ascii)
    def test_a_name_is_asked_for_as_it_was_sent(self, name: str) -> None:
        server = OwnServer(USERS)

        server.start("PLAIN", f"\0{name}\0right".encode())

        assert server.asked == [CheckPassword(name, Secret(b"right"))]


class TestLogin:
    def test_name_and_password_are_asked_for(self) -> None:
        server = OwnServer(USERS)

        said = [server.start("LOGIN", None), server.answer(b"joe"), server.answer(b"right")]

        assert [reply.data for reply in said] == [b"Username:", b"Password:", None]
        assert said[-1].is_success
        assert end(server) == Finished(Accepted("joe", BACKEND), "joe")

    def test_an_initial_response_is_the_name(self) -> None:
        server = OwnServer(USERS)

        said = [server.start("LOGIN", b"joe"), server.answer(b"right")]

        assert [reply.data for reply in said] == [b"Password:", None]
        assert said[-1].is_success

    def test_an_empty_initial_response_is_none(self) -> None:
        assert OwnServer(USERS).start("LOGIN", b"").data == b"Username:"

    def test_a_wrong_password_is_refused(self) -> None:
        server = OwnServer(USERS)
        server.start("LOGIN", b"joe")

        assert server.answer(b"wrong") == REFUSAL

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            pytest.param(b"", "there is no authcid", id="empty"),
            pytest.param(b"j\0e", "the authcid has a control character", id="nul"),
            pytest.param(b"\xff", "the authcid is not UTF-8", id="not-utf8"),
            pytest.param(b"j" * 256, "the authcid has more than 255 bytes", id="too-long"),
        ],
    )
    def test_a_bad_name_is_refused(self, name: bytes, problem: str) -> None:
        server = OwnServer(USERS)
        server.start("LOGIN", None)

        assert server.answer(name) == REFUSAL
        assert server.malformed == problem

    @pytest.mark.parametrize(
        ("password", "problem"),
        [
            pytest.param(b"", "there is no password", id="empty"),
            pytest.param(b"ri\0ght", "the password has a NUL", id="nul"),
            pytest.param(b"p" * 1025, "the password has more than 1024 bytes", id="too-long"),
        ],
    )
    def test_a_bad_password_is_asked_nobody(self, password: bytes, problem: str) -> None:
        server = OwnServer(USERS)
        server.start("LOGIN", b"joe")

        server.answer(password)

        assert (server.malformed, server.asked) == (problem, [])


class TestAnonymous:
    @pytest.mark.parametrize("trace", ["", "sirhc", "ann@test.example", "é" * 255])
    def test_everybody_is_anonymous(self, trace: str) -> None:
        server = OwnServer({})

        reply = server.start("ANONYMOUS", trace.encode())

        assert reply == Reply(is_success=True, user="anonymous")
        assert end(server) == Finished(Accepted("anonymous", "anonymous"), "anonymous")

    @pytest.mark.parametrize(
        ("trace", "problem"),
        [
            pytest.param(b"\xff", "is not UTF-8", id="not-utf8"),
            pytest.param(b"x" * 256, "has more than 255 characters", id="too-long"),
            pytest.param(b"a\nb", "has a control character", id="lf"),
        ],
    )
    def test_a_bad_trace_is_refused(self, trace: bytes, problem: str) -> None:
        server = OwnServer({})

        assert server.start("ANONYMOUS", trace) == REFUSAL
        assert server.malformed == f"ANONYMOUS: the trace {problem}"


class TestExternal:
    CERTIFIED = HERE._replace(external="joe")

    @pytest.mark.parametrize("authzid", ["", "joe", "boss"])
    def test_who_has_a_certificate_is_let_in(self, authzid: str) -> None:
        server = OwnServer({}, self.CERTIFIED)

        server.start("EXTERNAL", authzid.encode())

        assert end(server) == Finished(Accepted("joe", "external"), "joe", authzid)

    @pytest.mark.parametrize("external", [None, ""])
    def test_who_has_none_is_refused(self, external: str | None) -> None:
        server = OwnServer(USERS, HERE._replace(external=external))

        assert server.start("EXTERNAL", b"joe") == REFUSAL
        result = end(server).result
        assert isinstance(result, Rejected)
        assert result.reason is Reason.DENIED


class TestCramMd5:
    def test_the_challenge_is_a_message_id(self) -> None:
        challenge = OwnServer(USERS).start("CRAM-MD5", None).data

        assert re.fullmatch(rb"<[A-Za-z0-9+/]{32}@directory\.test\.example>", challenge or b"")

    @pytest.mark.parametrize("name", ["two words", "joe@test.example", "ends in "])
    def test_the_last_space_ends_the_name(self, name: str) -> None:
        server = OwnServer({name: "right"})

        assert log_in(server, "CRAM-MD5", JOE._replace(authcid=name)).is_success


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1"])
def test_no_challenge_comes_twice(mechanism: str) -> None:
    server = OwnServer(USERS)
    initial = b"n,,n=joe,r=cnonce" if mechanism.startswith("SCRAM") else None

    challenges = {server.start(mechanism, initial).data for _ in range(10)}

    assert len(challenges) == 10
