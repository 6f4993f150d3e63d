"""Our client halves, at the servers of Cyrus SASL, GNU SASL and Dovecot."""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials, find
from pysaslauthd.sasl.prep import NotPreparable, prepare_query, prepare_stored
from tests.helpers.dovecot_auth import DovecotServer, dovecot
from tests.helpers.libsasl_server import SASL_SUCCESS_DATA
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.sasl_servers import (
    BY_CERTIFICATE,
    HOST,
    SERVICE,
    Reply,
    SaslServer,
    ServerProcess,
    authenticate,
)
from tests.interop.users import JOE, LATIN, LONG, REALM, SPACED, USERS, ZOE, User

CAFE = User("café", "café")  # all of it in ISO 8859-1
KIRA = User("кира", "пароль")  # nothing of it
QUOTED = User('q"\\,= x', 'a "b" \\c')
PREPARED = User("prepared", "IX a")
EVERYBODY = [*USERS, CAFE, KIRA, QUOTED, PREPARED]
BOSS = "boss,=é"

SCRAM = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MECHANISMS = [*SCRAM, "DIGEST-MD5", "CRAM-MD5", "PLAIN"]

Pair = tuple[str, User]


def pairs(mechanisms: list[str], users: list[User], *without: Pair) -> pytest.MarkDecorator:
    """Let a test run for every mechanism and user, but those *without*.

    SCRAM has no passwords but in UTF-8.
    """
    every = [(mechanism, user) for mechanism in mechanisms for user in users]
    left = [pair for pair in every if pair not in without and pair not in NEVER]
    ids = [f"{mechanism}-{user.name}" for mechanism, user in left]
    return pytest.mark.parametrize(("mechanism", "user"), left, ids=ids)


NEVER = [(mechanism, LATIN) for mechanism in SCRAM]


def log_in(
    server: SaslServer, mechanism: str, user: User, *, authzid: str = "", realm: str | None = None
) -> Reply:
    """Return what becomes of an exchange."""
    password = Secret(os.fsencode(user.password))
    credentials = Credentials(user.name, password, authzid, realm, SERVICE, HOST)
    return authenticate(server, ClientExchange(find(mechanism), credentials))


@pytest.fixture(scope="module")
def settings() -> Iterator[Path]:
    """Return the directory of libsasl's settings, and of its database."""
    with short_directory("sc-") as directory:
        for name, password in EVERYBODY:
            subprocess.run(
                ["saslpasswd2", "-c", "-p", "-f", directory / "db", "-u", REALM, name],
                input=os.fsencode(password),
                check=True,
                timeout=DEADLINE,
            )
        (directory / "sample.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {directory}/db\n"
            f"mech_list: {' '.join(MECHANISMS)} EXTERNAL\n"
        )
        yield directory


@pytest.fixture(
    scope="module",
    params=[0, SASL_SUCCESS_DATA],
    ids=["proof-before-success", "proof-beside-success"],
)
def libsasl(request: pytest.FixtureRequest, settings: Path) -> Iterator[SaslServer]:
    arguments = (settings, REALM, str(request.param))
    server = ServerProcess("tests.helpers.libsasl_server", *arguments)
    yield server
    server.end()


@pytest.mark.interop("saslpasswd2")
class TestLibsasl:
    @pairs(MECHANISMS, EVERYBODY)
    def test_a_right_password_lets_in(
        self, libsasl: SaslServer, mechanism: str, user: User
    ) -> None:
        reply = log_in(libsasl, mechanism, user)

        assert (reply.is_success, reply.user) == (True, user.login)

    @pairs(MECHANISMS, [JOE, ZOE, KIRA])
    def test_a_wrong_password_does_not(
        self, libsasl: SaslServer, mechanism: str, user: User
    ) -> None:
        assert log_in(libsasl, mechanism, user._replace(password="wrong")) == Reply()

    @pairs(MECHANISMS, [User("nobody", "right")])
    def test_an_unknown_user_is_refused(
        self, libsasl: SaslServer, mechanism: str, user: User
    ) -> None:
        assert log_in(libsasl, mechanism, user) == Reply()

    @pairs([*SCRAM, "DIGEST-MD5", "PLAIN"], [JOE, ZOE, QUOTED])
    def test_a_user_acts_as_another(self, libsasl: SaslServer, mechanism: str, user: User) -> None:
        reply = log_in(libsasl, mechanism, user, authzid=BOSS)

        assert (reply.is_success, reply.user) == (True, f"{BOSS}@{REALM}")

    @pairs([*SCRAM, "DIGEST-MD5", "PLAIN"], [JOE])
    def test_who_acts_as_another_needs_the_right_password(
        self, libsasl: SaslServer, mechanism: str, user: User
    ) -> None:
        reply = log_in(libsasl, mechanism, user._replace(password="wrong"), authzid=BOSS)

        assert reply == Reply()

    @pytest.mark.parametrize(("authzid", "user"), [("", BY_CERTIFICATE), (BOSS, BOSS)])
    def test_a_certificate_lets_in(self, libsasl: SaslServer, authzid: str, user: str) -> None:
        reply = authenticate(
            libsasl, ClientExchange(find("EXTERNAL"), Credentials(authzid=authzid))
        )

        assert (reply.is_success, reply.user) == (True, f"{user}@{REALM}")

    @pytest.mark.parametrize("realm", [REALM, ""], ids=["by-name", "the-servers-own"])
    def test_a_realm_is_chosen(self, libsasl: SaslServer, realm: str) -> None:
        assert log_in(libsasl, "DIGEST-MD5", JOE, realm=realm).is_success

    def test_a_user_of_another_realm_is_refused(self, libsasl: SaslServer) -> None:
        assert log_in(libsasl, "DIGEST-MD5", JOE, realm="elsewhere.example") == Reply()

    @pytest.mark.parametrize("mechanism", SCRAM)
    def test_a_password_is_typed_in_any_way_that_saslprep_makes_the_kept_one(
        self, libsasl: SaslServer, mechanism: str
    ) -> None:
        typed = PREPARED._replace(password="\u2168\u00a0\u00aa")

        assert log_in(libsasl, mechanism, typed).is_success

    @pytest.mark.parametrize("mechanism", ["DIGEST-MD5", "CRAM-MD5", "PLAIN"])
    def test_only_scram_prepares_a_password(self, libsasl: SaslServer, mechanism: str) -> None:
        typed = PREPARED._replace(password="\u2168\u00a0\u00aa")

        assert log_in(libsasl, mechanism, typed) == Reply()


@pytest.fixture(scope="module")
def gsasl() -> Iterator[SaslServer]:
    server = ServerProcess("tests.helpers.gsasl_server", REALM, json.dumps(EVERYBODY))
    yield server
    server.end()


@pytest.mark.interop("gsasl")
class TestGnuSasl:
    # It has no SCRAM-SHA-512; it prepares passwords for PLAIN and CRAM-MD5, so that these must
    # be UTF-8; it hashes names for DIGEST-MD5 in UTF-8 whatever their characters are, and
    # takes no quotes in them.
    OWN_WAYS = (
        *(("PLAIN", LATIN), ("CRAM-MD5", LATIN)),
        *(("DIGEST-MD5", ZOE), ("DIGEST-MD5", CAFE), ("DIGEST-MD5", QUOTED)),
    )
    MECHANISMS = ("SCRAM-SHA-1", "SCRAM-SHA-256", "DIGEST-MD5", "CRAM-MD5", "PLAIN")

    @pairs([*MECHANISMS], EVERYBODY, *OWN_WAYS)
    def test_a_right_password_lets_in(self, gsasl: SaslServer, mechanism: str, user: User) -> None:
        reply = log_in(gsasl, mechanism, user)

        assert (reply.is_success, reply.user) == (True, user.name)

    @pairs([*MECHANISMS], [JOE, KIRA, User("nobody", "right")])
    def test_a_wrong_password_does_not(self, gsasl: SaslServer, mechanism: str, user: User) -> None:
        assert log_in(gsasl, mechanism, user._replace(password="wrong")) == Reply()

    @pairs(["SCRAM-SHA-1", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN"], [JOE, KIRA])
    def test_a_user_acts_as_another(self, gsasl: SaslServer, mechanism: str, user: User) -> None:
        reply = log_in(gsasl, mechanism, user, authzid=BOSS)

        assert (reply.is_success, reply.user) == (True, BOSS)

    @pytest.mark.parametrize("authzid", ["", BOSS], ids=["none", "another"])
    def test_a_certificate_lets_in(self, gsasl: SaslServer, authzid: str) -> None:
        reply = authenticate(gsasl, ClientExchange(find("EXTERNAL"), Credentials(authzid=authzid)))

        assert (reply.is_success, reply.user or "") == (True, authzid)

    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
    def test_a_password_is_typed_in_any_way_that_saslprep_makes_the_kept_one(
        self, gsasl: SaslServer, mechanism: str
    ) -> None:
        typed = PREPARED._replace(password="\u2168\u00a0\u00aa")

        assert log_in(gsasl, mechanism, typed).is_success


IN_A, IN_B = User("ann", "right in a"), User("ann", "right in b")
REALMS = ["a.example", "b.example"]


@pytest.fixture(
    scope="module", params=[False, True], ids=["proof-before-success", "proof-beside-success"]
)
def dovecot_server(request: pytest.FixtureRequest, dovecot_path: Path) -> Iterator[SaslServer]:
    server = DovecotServer(dovecot_path, final_beside_success=request.param)
    yield server
    server.end()


@pytest.fixture(scope="module")
def dovecot_path(as_root: None) -> Iterator[Path]:
    of_realms = {"ann@a.example": IN_A.password, "ann@b.example": IN_B.password}
    with (
        short_directory("dv-") as directory,
        dovecot(directory, dict(EVERYBODY) | of_realms, REALMS) as path,
    ):
        yield path


@pytest.mark.interop("dovecot")
class TestDovecot:
    # It has no SCRAM-SHA-512; its file of users cannot have quotes and backslashes in names;
    # and it hashes for DIGEST-MD5 in UTF-8 whatever the characters are.
    MECHANISMS = ("SCRAM-SHA-1", "SCRAM-SHA-256", "DIGEST-MD5", "CRAM-MD5", "PLAIN")
    USERS = (JOE, ZOE, CAFE, KIRA, LATIN, LONG, SPACED)
    OWN_WAYS = (("DIGEST-MD5", ZOE), ("DIGEST-MD5", CAFE))

    @pairs([*MECHANISMS], [*USERS], *OWN_WAYS)
    def test_a_right_password_lets_in(
        self, dovecot_server: SaslServer, mechanism: str, user: User
    ) -> None:
        reply = log_in(dovecot_server, mechanism, user, realm="")

        assert (reply.is_success, reply.user) == (True, user.name)

    @pairs([*MECHANISMS], [JOE])
    def test_a_wrong_password_does_not(
        self, dovecot_server: SaslServer, mechanism: str, user: User
    ) -> None:
        wrong = user._replace(password="wrong")

        assert log_in(dovecot_server, mechanism, wrong, realm="") == Reply()

    @pytest.mark.parametrize(
        ("user", "realm", "name"),
        [
            pytest.param(IN_A, None, "ann@a.example", id="the-first"),
            pytest.param(IN_A, "a.example", "ann@a.example", id="the-first-by-name"),
            pytest.param(IN_B, "b.example", "ann@b.example", id="the-second-by-name"),
        ],
    )
    def test_a_realm_is_chosen_of_several(
        self, dovecot_server: SaslServer, user: User, realm: str | None, name: str
    ) -> None:
        reply = log_in(dovecot_server, "DIGEST-MD5", user, realm=realm)

        assert (reply.is_success, reply.user) == (True, name)

    def test_a_password_of_another_realm_is_refused(self, dovecot_server: SaslServer) -> None:
        assert log_in(dovecot_server, "DIGEST-MD5", IN_A, realm="b.example") == Reply()

    def test_a_certificate_lets_in(self, dovecot_server: SaslServer) -> None:
        reply = authenticate(dovecot_server, ClientExchange(find("EXTERNAL"), Credentials()))

        assert (reply.is_success, reply.user) == (True, BY_CERTIFICATE)


@pytest.fixture(scope="module")
def libgsasl() -> ctypes.CDLL:
    library = ctypes.CDLL("libgsasl.so.18")
    library.gsasl_free.argtypes = (ctypes.c_void_p,)
    return library


def theirs(libgsasl: ctypes.CDLL, text: str) -> tuple[str | None, str | None]:
    """Return *text* as a query and as a stored string, as GNU's libidn prepares it."""
    prepared: list[str | None] = []
    # The flag is named for what it does not do: with it, unassigned characters are refused.
    for flags in (0, 1):
        out, error = ctypes.c_void_p(), ctypes.c_int()
        if libgsasl.gsasl_saslprep(text.encode(), flags, ctypes.byref(out), ctypes.byref(error)):
            prepared.append(None)
        else:
            prepared.append(ctypes.string_at(out.value or 0).decode())
            libgsasl.gsasl_free(out)
    query, stored = prepared
    return query, stored


def ours(text: str) -> tuple[str | None, str | None]:
    """Return the same, as we prepare it."""
    prepared: list[str | None] = []
    for prepare in (prepare_query, prepare_stored):
        try:
            prepared.append(prepare(text))
        except NotPreparable:
            prepared.append(None)
    query, stored = prepared
    return query, stored


@pytest.mark.interop("gsasl")
class TestSaslprep:
    # All that Unicode has had characters in, but for its private planes.
    @pytest.mark.parametrize(
        ("first", "after"),
        [
            (0x1, 0xD800),
            (0xE000, 0x14000),
            (0x1D000, 0x20000),
            (0x2F800, 0x30000),
            (0xE0000, 0xE0200),
        ],
        ids=hex,
    )
    def test_a_character_is_prepared_the_same(
        self, libgsasl: ctypes.CDLL, first: int, after: int
    ) -> None:
        characters = map(chr, range(first, after))

        assert [c for c in characters if ours(c) != theirs(libgsasl, c)] == []

    @given(
        text=st.text(
            st.characters(codec="utf-8", exclude_characters="\0")
            | st.sampled_from("a1 \u00ad\u00aa\u0301\u0627\u0628\u05d0\u2168\u1100\u1161\u11a8")
        )
    )
    def test_a_text_is_prepared_the_same(self, libgsasl: ctypes.CDLL, text: str) -> None:
        assert ours(text) == theirs(libgsasl, text)
