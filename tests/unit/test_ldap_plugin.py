"""The backend `-a ldap` from its settings: where servers are, what is refused, with which words."""

import time
from pathlib import Path

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import AuthRequest, Origin, Secret, Unavailable
from pysaslauthd.plugins.ldap import DEFAULT_SOCKET, LDAP, parse_server
from pysaslauthd.remote.endpoint import Endpoint, Security
from tests.contract.verifier import settled
from tests.helpers.ber import Tree
from tests.helpers.ldap_recorder import COMPARE, SEARCH, Recorder, Search, recorder
from tests.helpers.workers import serving

NONE, STARTTLS, TLS = Security.NONE, Security.STARTTLS, Security.TLS


def settings(*allowed: str, **table: object) -> Settings:
    return Settings(
        mechanism="ldap",
        allow_cleartext=allowed,
        ldap=Ldap(**table),  # type: ignore[arg-type]  # each has its setting's type
    )


def check(*allowed: str, **table: object) -> None:
    LDAP.check(settings(*allowed, **table))


def refusal(*allowed: str, **table: object) -> tuple[str, ...]:
    """Return the lines that say why these settings are refused."""
    with pytest.raises(StartupError) as refused:
        check(*allowed, **table)
    return refused.value.lines


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("ldap://a.example", Endpoint("a.example", 389, NONE)),
        ("ldap://a.example/", Endpoint("a.example", 389, NONE)),
        ("ldap://a.example:3890/", Endpoint("a.example", 3890, NONE)),
        ("ldap://a.example:/", Endpoint("a.example", 389, NONE)),
        ("LDAP://a.example/", Endpoint("a.example", 389, NONE)),
        ("ldap://a.example/dc=e?uid?sub?(a=b)", Endpoint("a.example", 389, NONE)),
        ("ldap://a.example?dc=e:1/2", Endpoint("a.example", 389, NONE)),
        ("ldap://192.0.2.1:1/", Endpoint("192.0.2.1", 1, NONE)),
        ("ldap://[2001:db8::1]/", Endpoint("2001:db8::1", 389, NONE)),
        ("ldap://[2001:db8::1]:3890/", Endpoint("2001:db8::1", 3890, NONE)),
        ("ldap://[fe80::1%25eth0]/", Endpoint("fe80::1%eth0", 389, NONE)),
        ("ldap://", Endpoint("localhost", 389, NONE)),
        ("ldap:///", Endpoint("localhost", 389, NONE)),
        ("ldap:///dc=e", Endpoint("localhost", 389, NONE)),
        ("ldap://:3890/", Endpoint("localhost", 3890, NONE)),
        ("ldap://a%2Eexample/", Endpoint("a.example", 389, NONE)),
        ("ldaps://a.example/", Endpoint("a.example", 636, TLS)),
        ("ldaps://a.example:1/", Endpoint("a.example", 1, TLS)),
        ("ldaps:///", Endpoint("localhost", 636, TLS)),
        ("ldapi://", Endpoint("localhost", 0, NONE, DEFAULT_SOCKET)),
        ("ldapi:///", Endpoint("localhost", 0, NONE, DEFAULT_SOCKET)),
        ("ldapi://%2Frun%2Fa%20b%3Ac/", Endpoint("localhost", 0, NONE, "/run/a b:c")),
        ("ldapi://%2Frun%2fldapi/????x", Endpoint("localhost", 0, NONE, "/run/ldapi")),
    ],
)
def test_a_uri_leads_to_a_server(uri: str, endpoint: Endpoint) -> None:
    assert parse_server(uri, start_tls=False) == endpoint


def test_with_start_tls_there_is_tls() -> None:
    assert parse_server("ldap://a/", start_tls=True) == Endpoint("a", 389, STARTTLS)


def test_a_socket_needs_no_tls() -> None:
    assert parse_server("ldapi:///", start_tls=True).security is NONE


SCHEMES = "it begins with ldap://, ldaps:// or ldapi://"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", SCHEMES),
        ("a.example", SCHEMES),
        ("a.example:389", SCHEMES),
        ("dc=example", SCHEMES),
        ("ldap", SCHEMES),
        ("ldap:a.example", SCHEMES),
        ("http://a.example/", SCHEMES),
        ("cldap://a.example/", SCHEMES),
        ("ldap://a.example:x/", "not a port: 'x'"),
        ("ldap://a.example:0/", "not a port: '0'"),
        ("ldap://a.example:65536/", "not a port: '65536'"),
        ("ldap://[2001:db8::1/", "not a host: '[2001:db8::1'"),
        ("ldap://[::1]x/", "not a host: '[::1]x'"),
        ("ldap://[]/", "no host in '[]'"),
        ("ldap://:/", "no host in ':'"),
        ("ldapi://run/ldapi", "a socket's path begins with /, which is %2F in a URI"),
    ],
)
def test_a_uri_that_leads_nowhere_is_refused(uri: str, problem: str) -> None:
    with pytest.raises(StartupError) as refused:
        parse_server(uri, start_tls=False)

    assert str(refused.value) == f"ldap_servers: {uri}: {problem}"


def test_start_tls_is_not_for_what_has_tls_already() -> None:
    lines = refusal(servers=("ldap://a/", "ldaps://b/"), start_tls=True)

    assert lines == ("ldap_servers: ldaps://b/: ldap_start_tls is for ldap:// only",)


def test_the_defaults_are_checked_without_complaint() -> None:
    LDAP.check(Settings(mechanism="ldap"))


def test_no_server_is_too_few() -> None:
    assert refusal(servers=()) == ("ldap_servers: there is none",)


class TestCleartext:
    def test_it_is_refused_with_its_cures(self) -> None:
        assert refusal(servers=("ldap://localhost/", "ldap://a.example/")) == (
            "ldap_servers: passwords would go unencrypted to a.example",
            "use ldaps:// or ldap_start_tls: yes; or allow it: --allow-cleartext a.example"
            " (allow_cleartext in the configuration file)",
        )

    @pytest.mark.parametrize(
        "uri",
        [
            "ldap:///",
            "ldap://localhost/",
            "ldap://127.0.0.1/",
            "ldap://[::1]/",
            "ldapi:///",
            "ldaps://a.example/",
        ],
    )
    def test_a_private_way_needs_no_permission(self, uri: str) -> None:
        check(servers=(uri,))

    def test_start_tls_is_a_private_way(self) -> None:
        check(servers=("ldap://a.example/",), start_tls=True)

    def test_it_can_be_allowed(self) -> None:
        check("a.example", servers=("ldap://a.example/",))

    def test_what_is_allowed_is_one_host(self) -> None:
        lines = refusal("a.example", servers=("ldap://b.example/",))

        assert "unencrypted to b.example" in lines[0]

    # Where none is named, PLAIN is only taken if nobody reads along.
    @pytest.mark.parametrize("mech", ["DIGEST-MD5", "digest-md5", "CRAM-MD5", "SCRAM-SHA-256", ""])
    def test_some_mechanisms_send_no_password(self, mech: str) -> None:
        check(servers=("ldap://a.example/",), use_sasl=True, auth_method="fastbind", mech=mech)

    @pytest.mark.parametrize("mech", ["PLAIN", "plain"])
    def test_one_does(self, mech: str) -> None:
        lines = refusal(
            servers=("ldap://a.example/",), use_sasl=True, auth_method="fastbind", mech=mech
        )

        assert "unencrypted to a.example" in lines[0]

    def test_hashes_are_not_for_others_either(self) -> None:
        lines = refusal(
            servers=("ldap://a.example/",), use_sasl=True, auth_method="custom", mech="DIGEST-MD5"
        )

        assert "unencrypted to a.example" in lines[0]


class TestTls:
    MISSING = "/nonexistent/ca.pem"

    def test_what_it_lacks_is_named(self) -> None:
        lines = refusal(servers=("ldaps://a/",), tls_cacert_file=self.MISSING)

        assert lines[0].startswith(f"ldap: {self.MISSING}: No such file")

    @pytest.mark.parametrize("uri", ["ldap://localhost/", "ldapi:///"])
    async def test_where_there_is_none_it_lacks_nothing(self, uri: str) -> None:
        """For /etc/ldap/ldap.conf may name a file that is not there, and that harms nobody."""
        subject = settings(servers=(uri,), tls_cacert_file=self.MISSING)

        LDAP.check(subject)
        made = LDAP.make(subject, serving())
        await made.close()


class TestTheServicesIdentity:
    @pytest.mark.parametrize("password", [None, Secret(b"")], ids=["none", "empty"])
    def test_a_name_without_a_password_is_refused(self, password: Secret | None) -> None:
        assert refusal(bind_dn="cn=s", password=password) == (
            "ldap_bind_dn: there is no password for it, and without one it is nobody",
            "set ldap_password; or leave ldap_bind_dn away, to ask as nobody",
        )

    def test_a_name_with_a_password_is_taken(self) -> None:
        check(bind_dn="cn=s", password=Secret(b"pw"))

    @pytest.mark.parametrize("name", ["", " "])
    def test_without_a_name_it_is_nobody(self, name: str) -> None:
        check(bind_dn=name, password=Secret(b"pw"))


class TestFilters:
    def test_one_that_is_none_is_named(self) -> None:
        assert refusal(filter="(uid=%u") == (
            "ldap_filter: (uid=%u: a closing parenthesis is missing",
        )

    def test_so_is_one_for_groups(self) -> None:
        lines = refusal(group_match_method="filter", group_filter="(member=%D)x")

        assert lines == (
            "ldap_group_filter: (member=%D)x: there is more behind its last parenthesis",
        )

    @pytest.mark.parametrize("filter_", ["(uid=%u)", "uid=%u", "(&(uid=%U)(o=%s))"])
    @pytest.mark.parametrize("method", ["bind", "custom"])
    def test_a_filter_is_for_a_search(self, method: str, filter_: str) -> None:
        check(auth_method=method, filter=filter_)

    def test_a_filter_is_no_name(self) -> None:
        assert refusal(auth_method="fastbind") == (
            "ldap_filter: (uid=%u): ldap_auth_method: fastbind wants the name of the entry there,"
            " such as uid=%u,ou=people,dc=example,dc=org",
        )

    def test_a_name_is_one(self) -> None:
        check(auth_method="fastbind", filter="uid=%u,dc=e")

    def test_a_sasl_bind_needs_no_name(self) -> None:
        check(auth_method="fastbind", use_sasl=True)


class TestGroups:
    def test_a_filter_needs_its_method(self) -> None:
        assert refusal(group_filter="(a=%u)") == (
            "ldap_group_filter: it needs ldap_group_match_method: filter",
        )

    def test_the_method_needs_a_filter(self) -> None:
        assert refusal(group_dn="cn=g", group_match_method="filter") == (
            "ldap_group_match_method: filter needs an ldap_group_filter",
        )

    def test_a_group_by_its_members_is_taken(self) -> None:
        check(group_dn="cn=%s,dc=e", group_attr="member")

    def test_a_group_by_a_filter_is_taken(self) -> None:
        check(group_match_method="filter", group_filter="(&(cn=%s)(member=%D))")

    def test_a_group_is_asked_for_where_both_are_set(self) -> None:
        check(group_dn="cn=g", group_filter="nonsense")


JOE = AuthRequest("joe", Secret(b"pw"), "", Origin("imap"), time.monotonic())
ENTRY = b"uid=joe,dc=e"


async def asked(**table: object) -> Recorder:
    """Return what a server is asked about a user whose entry, below dc=u, is ENTRY."""
    with recorder({b"dc=u": ENTRY}) as server:
        subject = settings(servers=(server.uri,), **table)
        LDAP.check(subject)
        made = LDAP.make(subject, serving())
        await settled(made.verify(JOE))
        await made.close()
    return server


def joe(attribute: bytes, value: bytes = b"joe") -> Tree:
    return (0xA3, [(0x04, attribute), (0x04, value)])


class TestWhatIsAsked:
    async def test_a_search_is_followed_by_a_bind(self) -> None:
        server = await asked(search_base="dc=u", scope="one", deref="find", time_limit=7)

        assert server.searches == [Search(b"dc=u", joe(b"uid"))]
        assert [content[1:5] for content in server.asked(SEARCH)] == [
            [(0x0A, b"\1"), (0x0A, b"\2"), (0x02, b"\1"), (0x02, b"\7")]
        ]
        assert server.binds == [ENTRY]

    async def test_a_fastbind_needs_no_search(self) -> None:
        server = await asked(auth_method="fastbind", filter="uid=%u,ou=%s")

        assert (server.searches, server.binds) == ([], [b"uid=joe,ou=imap"])

    async def test_a_password_is_searched_for_where_it_is_compared_here(self) -> None:
        server = await asked(search_base="dc=u", auth_method="custom", password_attr="pw")

        assert [content[7] for content in server.asked(SEARCH)] == [(0x30, [(0x04, b"pw")])]
        assert server.binds == []

    async def test_the_service_searches_by_its_name(self) -> None:
        server = await asked(search_base="dc=u", bind_dn="cn=s", password=Secret(b"pw"))

        assert server.binds == [b"cn=s", ENTRY]

    async def test_the_default_realm_is_a_value(self) -> None:
        server = await asked(search_base="dc=u", filter="(a=%r)", default_realm="e.org")

        assert server.searches == [Search(b"dc=u", joe(b"a", b"e.org"))]

    async def test_a_group_has_its_member_compared(self) -> None:
        server = await asked(search_base="dc=u", group_dn="cn=%s", group_attr="member")

        assert server.asked(COMPARE) == [[(0x04, b"cn=imap"), (0x30, joe(b"member", ENTRY)[1])]]

    @pytest.mark.parametrize(
        ("table", "base"),
        [({}, b"dc=u"), ({"group_search_base": "ou=%s"}, b"ou=imap")],
        ids=["as-users", "own"],
    )
    async def test_a_group_is_searched_for(self, table: dict[str, object], base: bytes) -> None:
        group = {"group_filter": "(m=%D)", "group_match_method": "filter", "group_scope": "base"}

        server = await asked(search_base="dc=u", size_limit=9, **group, **table)

        _, content = server.asked(SEARCH)
        assert server.searches[1] == Search(base, joe(b"m", ENTRY))
        assert content[1:5] == [(0x0A, b"\0"), (0x0A, b"\0"), (0x02, b"\1"), (0x02, b"\5")]


async def test_servers_are_asked_in_turn_and_named_as_they_are_set(tmp_path: Path) -> None:
    uri = f"ldapi://{str(tmp_path / 'none').replace('/', '%2F')}/"
    made = LDAP.make(settings(servers=(uri, "ldap://127.0.0.1:1/")), serving())

    result = await settled(made.verify(JOE))
    await made.close()

    assert isinstance(result, Unavailable)
    assert str(tmp_path / "none") in result.detail
    assert "127.0.0.1:1" in result.detail


class Place:
    """A run directory, with a file for `-O` in it, and what is logged."""

    def __init__(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.directory = directory
        self._caplog = caplog

    def configure(self, *lines: str, option: str | None = "file", **table: object) -> Ldap:
        """Return the table that these lines make in the file that `-O` names."""
        (self.directory / "file").write_text("\n".join(lines))
        made = LDAP.configure(
            Settings(
                mechanism="ldap",
                mechanism_option=option,
                run_directory=str(self.directory),
                ldap=Ldap(**table) if table else None,  # type: ignore[arg-type]  # as above
            )
        )
        assert made.ldap is not None
        return made.ldap

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self._caplog.records]


@pytest.fixture
def place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seen_logs: None,
) -> Place:
    monkeypatch.setenv("LDAPNOINIT", "")
    return Place(tmp_path, caplog)


SECURE = "ldap_servers: ldaps://a.example/"


class TestConfiguring:
    def test_the_file_of_an_option_is_read(self, place: Place) -> None:
        made = place.configure("ldap_filter: (a=%u)", option=str(place.directory / "file"))

        assert made == Ldap(filter="(a=%u)")
        assert place.said == []

    def test_it_is_relative_to_the_run_directory_as_the_c_daemons(self, place: Place) -> None:
        made = place.configure("ldap_tls_cacert_file: ca.pem", option="./file")

        assert made.tls_cacert_file == str(place.directory / "ca.pem")

    def test_it_wins_over_a_table(self, place: Place) -> None:
        assert place.configure("ldap_scope: one", scope="base").scope == "one"

    def test_a_table_wins_over_the_default_file(self, place: Place) -> None:
        assert place.configure("ldap_scope: one", option=None, scope="base") == Ldap(scope="base")

    def test_a_file_that_is_missing_is_named(self, place: Place) -> None:
        with pytest.raises(StartupError, match=f"cannot open {place.directory}/missing: No such"):
            place.configure(option="missing")

    def test_without_option_and_table_it_is_the_c_daemons_file(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        default = place.directory / "default"
        default.write_text("ldap_scope: one")
        monkeypatch.setattr("pysaslauthd.config.classic.DEFAULT_FILE", str(default))

        assert place.configure(option=None).scope == "one"

    def test_libldaps_settings_complete_it(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("LDAPNOINIT")
        monkeypatch.setenv("LDAPTLS_REQCERT", "never")
        monkeypatch.setenv("HOME", str(place.directory))
        (place.directory / "ldaprc").write_text("TLS_CACERT ca.pem")

        made = place.configure()

        assert made.tls_check_peer is False
        assert made.tls_cacert_file == str(place.directory / "ca.pem")

    def test_what_has_no_effect_is_logged(self, place: Place) -> None:
        place.configure("ldap_colour: green", "ldap_referrals: yes")

        assert place.said == [
            (
                "WARNING",
                f"{place.directory}/file: line 1: ldap_colour: ignored: there is no such key",
            ),
            (
                "WARNING",
                f"{place.directory}/file: line 2: ldap_referrals: ignored: a password never follows"
                " a referral",
            ),
        ]

    def test_certificate_and_key_are_read(self, place: Place) -> None:
        (place.directory / "cert").write_text("CERT")
        (place.directory / "key").write_text("KEY")

        made = place.configure(SECURE, "ldap_tls_cert: cert", "ldap_tls_key: key")

        assert made.tls_identity == Secret(b"CERT\nKEY\n")

    def test_one_of_the_two_is_refused(self, place: Place) -> None:
        with pytest.raises(StartupError, match="ldap: tls_cert and tls_key belong together"):
            place.configure(SECURE, "ldap_tls_cert: cert")

    def test_without_tls_they_do_not_count(self, place: Place) -> None:
        made = place.configure("ldap_tls_cert: cert")

        assert made.tls_identity is None


GNUTLS = ["NORMAL", "SECURE256:!AES-128-CBC", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "@SYSTEM"]


class TestCiphers:
    @pytest.mark.parametrize("ciphers", ["HIGH", "HIGH:!aNULL", "ECDHE-RSA-AES128-GCM-SHA256"])
    def test_openssls_are_heeded(self, place: Place, ciphers: str) -> None:
        assert place.configure(f"ldap_tls_ciphers: {ciphers}").tls_ciphers == ciphers
        assert place.said == []

    @pytest.mark.parametrize("ciphers", GNUTLS)
    def test_gnutlss_are_named_with_their_line_and_ignored(
        self, place: Place, ciphers: str
    ) -> None:
        made = place.configure("", f"ldap_tls_ciphers: {ciphers}")

        assert made.tls_ciphers is None
        assert place.said == [
            (
                "WARNING",
                f"{place.directory}/file: line 2: ldap_tls_ciphers: ignored: OpenSSL knows no"
                f" cipher by '{ciphers}'; GnuTLS is not used here",
            )
        ]

    def test_so_are_those_of_ldap_conf(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LDAPNOINIT")
        monkeypatch.setenv("HOME", str(place.directory))
        (place.directory / ".ldaprc").write_text("# mine\nTLS_CIPHER_SUITE SECURE128\n")

        made = place.configure()

        assert made.tls_ciphers is None
        assert place.said == [
            (
                "WARNING",
                f"{place.directory}/.ldaprc: line 2: TLS_CIPHER_SUITE: ignored: OpenSSL knows no"
                " cipher by 'SECURE128'; GnuTLS is not used here",
            )
        ]

    def test_in_a_table_of_our_own_they_are_refused(self) -> None:
        lines = refusal(servers=("ldaps://a/",), tls_ciphers="NORMAL")

        assert lines == ("ldap: tls_ciphers: OpenSSL knows no cipher by 'NORMAL'",)


def test_no_password_is_shown_by_the_settings(place: Place) -> None:
    made = place.configure("ldap_bind_dn: cn=s", "ldap_password: s3cret")

    assert made.password == Secret(b"s3cret")
    assert "s3cret" not in repr(made)
