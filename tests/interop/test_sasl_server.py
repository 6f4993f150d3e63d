"""Our server halves, at the clients of Cyrus SASL, GNU SASL and Perl's Authen::SASL."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from pysaslauthd.sasl.server.mechanism import ChannelBinding
from tests.helpers.sasl_clients import ClientProcess, ClientRefuses, SaslClient, Wish, log_in
from tests.helpers.sasl_own_server import HERE, WRONG_PASSWORD, OwnServer
from tests.helpers.sasl_servers import HOST, ROOT, SERVICE
from tests.interop.test_sasl_client import BOSS, CAFE, EVERYBODY, KIRA, QUOTED, SCRAM, pairs
from tests.interop.users import JOE, LATIN, LONG, REALM, ZOE, User

USERS = dict(EVERYBODY) | {"joe@elsewhere.example": "right elsewhere"}
IN_REALM = HERE._replace(realm=REALM, external="joe")
NOBODY = User("nobody", "right")
PLAINTEXT = ["PLAIN", "LOGIN"]
UNIQUE = ChannelBinding("tls-unique", b"\0unique\xff")
END_POINT = ChannelBinding("tls-server-end-point", b"\0end point\xff")
EXPORTER = ChannelBinding("tls-exporter", b"\0exported\xff")


@pytest.fixture
def server() -> OwnServer:
    return OwnServer(USERS, IN_REALM)


def accepts(server: OwnServer, client: SaslClient, wish: Wish) -> str | None:
    """Return the user whom both sides call authenticated; None if the server refuses."""
    return log_in(server, client, wish).user


def is_refused(server: OwnServer, client: SaslClient, wish: Wish) -> bool:
    """Say whether the server refuses for what the client has proven, and not for its messages."""
    accepts(server, client, wish)
    assert server.malformed is None
    assert server.finished is not None
    return server.finished.result == WRONG_PASSWORD


def bound(channel: ChannelBinding) -> OwnServer:
    return OwnServer(USERS, IN_REALM._replace(channel_binding=channel))


@pytest.fixture(scope="module")
def libsasl() -> Iterator[SaslClient]:
    client = ClientProcess(sys.executable, "-m", "tests.helpers.libsasl_login")
    yield client
    client.end()


@pytest.mark.interop("saslpasswd2")
class TestLibsasl:
    MECHANISMS = (*SCRAM, "DIGEST-MD5", "CRAM-MD5", *PLAINTEXT)

    @pairs([*MECHANISMS], EVERYBODY)
    def test_a_right_password_lets_in(
        self, libsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, libsasl, Wish(mechanism, *user)) == user.name

    @pairs([*MECHANISMS], [JOE, ZOE, KIRA])
    def test_a_wrong_password_does_not(
        self, libsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert is_refused(server, libsasl, Wish(mechanism, user.name, "wrong"))

    @pairs([*MECHANISMS], [NOBODY])
    def test_an_unknown_user_is_refused(
        self, libsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, libsasl, Wish(mechanism, *user)) is None

    @pairs([*SCRAM, "DIGEST-MD5", "PLAIN"], [JOE, ZOE, QUOTED])
    def test_a_user_wants_to_act_as_another(
        self, libsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, libsasl, Wish(mechanism, *user, authzid=BOSS)) == user.name
        assert server.finished is not None
        assert server.finished.authzid == BOSS

    @pytest.mark.parametrize("mechanism", SCRAM)
    @pytest.mark.parametrize("channel", [END_POINT, UNIQUE, EXPORTER], ids=lambda c: c.type)
    def test_a_client_is_bound_to_its_channel(
        self, libsasl: SaslClient, mechanism: str, channel: ChannelBinding
    ) -> None:
        wish = Wish(f"{mechanism}-PLUS", *JOE, None, None, *channel)

        assert accepts(bound(channel), libsasl, wish) == "joe"

    def test_a_client_that_is_bound_to_another_channel_is_refused(
        self, libsasl: SaslClient
    ) -> None:
        server = bound(END_POINT)
        wish = Wish("SCRAM-SHA-1-PLUS", *JOE, None, None, END_POINT.type, b"another")

        assert accepts(server, libsasl, wish) is None
        assert server.malformed == "SCRAM: c= is not the gs2-header and the channel binding"

    def test_a_certificate_lets_in(self, libsasl: SaslClient, server: OwnServer) -> None:
        assert accepts(server, libsasl, Wish("EXTERNAL", "joe", "", authzid="joe")) == "joe"

    def test_anybody_is_anonymous(self, libsasl: SaslClient, server: OwnServer) -> None:
        assert accepts(server, libsasl, Wish("ANONYMOUS", "joe", "")) == "anonymous"

    @pytest.mark.parametrize("mechanism", [*SCRAM, "DIGEST-MD5"])
    def test_a_server_that_does_not_know_the_password_is_not_believed(
        self, libsasl: SaslClient, server: OwnServer, mechanism: str
    ) -> None:
        reply = server.start(mechanism, libsasl.begin(Wish(mechanism, *JOE)))
        final = server.answer(libsasl.respond(reply.data or b"")).data or b""
        forged = final[:-6] + final[-7:-2] + final[-1:]

        with pytest.raises(ClientRefuses):
            libsasl.respond(forged)


@pytest.fixture(scope="module")
def gsasl() -> Iterator[SaslClient]:
    client = ClientProcess(sys.executable, "-m", "tests.helpers.gsasl_login")
    yield client
    client.end()


@pytest.mark.interop("gsasl")
class TestGnuSasl:
    MECHANISMS = ("SCRAM-SHA-1", "SCRAM-SHA-256", "DIGEST-MD5", "CRAM-MD5", *PLAINTEXT)
    # It prepares passwords for CRAM-MD5, so that these must be UTF-8, and does not put a
    # backslash before quotes.
    OWN_WAYS = (("CRAM-MD5", LATIN), ("DIGEST-MD5", QUOTED))

    @pairs([*MECHANISMS], EVERYBODY, *OWN_WAYS)
    def test_a_right_password_lets_in(
        self, gsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, gsasl, Wish(mechanism, *user)) == user.name

    @pairs([*MECHANISMS], [JOE, KIRA])
    def test_a_wrong_password_does_not(
        self, gsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert is_refused(server, gsasl, Wish(mechanism, user.name, "wrong"))

    @pairs([*MECHANISMS], [NOBODY])
    def test_an_unknown_user_is_refused(
        self, gsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, gsasl, Wish(mechanism, *user)) is None

    @pairs(["SCRAM-SHA-1", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN"], [JOE, KIRA])
    def test_a_user_wants_to_act_as_another(
        self, gsasl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, gsasl, Wish(mechanism, *user, authzid=BOSS)) == user.name
        assert server.finished is not None
        assert server.finished.authzid == BOSS

    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
    @pytest.mark.parametrize("channel", [UNIQUE, EXPORTER], ids=lambda channel: channel.type)
    def test_a_client_is_bound_to_its_channel(
        self, gsasl: SaslClient, mechanism: str, channel: ChannelBinding
    ) -> None:
        assert accepts(bound(channel), gsasl, Wish(mechanism, *JOE, None, None, *channel)) == "joe"

    def test_a_certificate_lets_in(self, gsasl: SaslClient, server: OwnServer) -> None:
        assert accepts(server, gsasl, Wish("EXTERNAL", "joe", "")) == "joe"

    def test_anybody_is_anonymous(self, gsasl: SaslClient, server: OwnServer) -> None:
        assert accepts(server, gsasl, Wish("ANONYMOUS", "joe", "")) == "anonymous"


@pytest.fixture(scope="module")
def perl(lacking: Callable[[str], NoReturn]) -> Iterator[SaslClient]:
    if subprocess.run(["perl", "-MAuthen::SASL", "-e", "1"], check=False).returncode:
        lacking("needs Perl's Authen::SASL")
    script = ROOT / "tests" / "helpers" / "authen_sasl.pl"
    client = ClientProcess("perl", str(script), SERVICE, HOST)
    yield client
    client.end()


@pytest.mark.interop("perl")
class TestAuthenSasl:
    MECHANISMS = ("DIGEST-MD5", "CRAM-MD5", *PLAINTEXT)

    @pairs([*MECHANISMS], EVERYBODY)
    def test_a_right_password_lets_in(
        self, perl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, perl, Wish(mechanism, *user)) == user.name

    @pairs([*MECHANISMS], [JOE, ZOE, LATIN, LONG])
    def test_a_wrong_password_does_not(
        self, perl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert is_refused(server, perl, Wish(mechanism, user.name, "wrong"))

    @pairs(["DIGEST-MD5", "PLAIN"], [JOE, CAFE])
    def test_a_user_wants_to_act_as_another(
        self, perl: SaslClient, server: OwnServer, mechanism: str, user: User
    ) -> None:
        assert accepts(server, perl, Wish(mechanism, *user, authzid="boss")) == user.name
        assert server.finished is not None
        assert server.finished.authzid == "boss"

    def test_a_user_of_another_realm_is_looked_up_there(
        self, perl: SaslClient, server: OwnServer
    ) -> None:
        wish = Wish("DIGEST-MD5", "joe", "right elsewhere", realm="elsewhere.example")

        assert accepts(server, perl, wish) == "joe@elsewhere.example"
