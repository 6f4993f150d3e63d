"""The C daemon's LDAP settings: every key, what its value may be, what is said of the others."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import msgspec
import pytest

from pysaslauthd.config.classic import Line
from pysaslauthd.config.ldap import Found, read_file
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret

DIRECTORY = "/run/x"


class File:
    """A file in the C daemon's form."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *lines: str | bytes, libldap: Mapping[str, str] | None = None) -> Found:
        """Return what these lines make, with what libldap would take, as from ldap.conf."""
        self.path.write_bytes(b"\n".join(_bytes(line) for line in lines) + b"\n")
        options = {
            option: Line("ldap.conf: line 3", option, value.encode())
            for option, value in (libldap or {}).items()
        }
        return read_file(str(self.path), options, DIRECTORY)

    def line(self, number: int) -> str:
        return f"{self.path}: line {number}"


def _bytes(line: str | bytes) -> bytes:
    return line.encode() if isinstance(line, str) else line


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "saslauthd.conf")


def test_an_empty_file_is_the_defaults(file: File) -> None:
    assert file.read() == Found(Ldap(), [], {})


DEFAULTS = [
    # protocols/backends.md section 9
    ("servers", ("ldap://localhost/",)),
    ("bind_dn", ""),
    ("password", None),
    ("search_base", ""),
    ("filter", "(uid=%u)"),
    ("password_attr", "userPassword"),
    ("auth_method", "bind"),
    ("scope", "sub"),
    ("group_dn", ""),
    ("group_attr", "uniqueMember"),
    ("group_match_method", "attr"),
    ("group_filter", ""),
    ("group_search_base", ""),
    ("group_scope", "sub"),
    ("default_realm", ""),
    ("timeout", 5.0),
    ("time_limit", 5),
    ("size_limit", 1),
    ("deref", "never"),
    ("use_sasl", False),
    ("id", ""),
    ("authz_id", ""),
    ("mech", ""),
    ("realm", ""),
    ("start_tls", False),
    ("tls_check_peer", True),  # unset, which leaves it to libldap: demand
    ("tls_cacert_file", None),
    ("tls_cacert_dir", None),
    ("tls_ciphers", None),
    ("tls_cert", None),
    ("tls_key", None),
]


@pytest.mark.parametrize(("setting", "value"), DEFAULTS)
def test_defaults_are_the_c_daemons(setting: str, value: object) -> None:
    assert getattr(Ldap(), setting) == value


def test_no_setting_has_been_forgotten() -> None:
    own = {"connections", "tls_identity", "tls_minimum"}

    assert {setting for setting, _ in DEFAULTS} | own == set(Ldap.__struct_fields__)


@pytest.mark.parametrize(
    ("line", "setting", "value"),
    [
        ("ldap_servers: ldap://a/ ldaps://b/", "servers", ("ldap://a/", "ldaps://b/")),
        ("ldap_bind_dn: cn=a b,dc=c", "bind_dn", "cn=a b,dc=c"),
        ("ldap_bind_pw: s3cret", "password", Secret(b"s3cret")),
        ("ldap_password: s3cret # \t", "password", Secret(b"s3cret # \t")),
        (b"ldap_password: \xe4", "password", Secret(b"\xe4")),
        ("ldap_search_base: ou=%s,dc=é", "search_base", "ou=%s,dc=é"),
        ("ldap_filter: (mail=%u@%r)", "filter", "(mail=%u@%r)"),
        ("ldap_password_attr: pw", "password_attr", "pw"),
        ("ldap_auth_method: custom", "auth_method", "custom"),
        ("ldap_auth_method: FastBind", "auth_method", "fastbind"),
        ("ldap_auth_method: bind", "auth_method", "bind"),
        ("ldap_scope: one", "scope", "one"),
        ("ldap_scope: BASE", "scope", "base"),
        ("ldap_scope: sub", "scope", "sub"),
        ("ldap_group_dn: cn=%s,dc=e", "group_dn", "cn=%s,dc=e"),
        ("ldap_group_attr: member", "group_attr", "member"),
        ("ldap_group_match_method: Filter", "group_match_method", "filter"),
        ("ldap_group_match_method: attr", "group_match_method", "attr"),
        ("ldap_group_filter: (member=%D)", "group_filter", "(member=%D)"),
        ("ldap_group_search_base: ou=groups", "group_search_base", "ou=groups"),
        ("ldap_group_scope: one", "group_scope", "one"),
        ("ldap_default_realm: example.org", "default_realm", "example.org"),
        ("ldap_default_domain: example.org", "default_realm", "example.org"),
        ("ldap_timeout: 7", "timeout", 7.0),
        ("ldap_timeout: 7s", "timeout", 7.0),
        ("ldap_time_limit: 0", "time_limit", 0),
        ("ldap_size_limit: 2147483647", "size_limit", 2147483647),
        ("ldap_deref: search", "deref", "search"),
        ("ldap_deref: FIND", "deref", "find"),
        ("ldap_deref: always", "deref", "always"),
        ("ldap_deref: never", "deref", "never"),
        ("ldap_id: u", "id", "u"),
        ("ldap_sasl_authc_id: u", "id", "u"),
        ("ldap_authz_id: u", "authz_id", "u"),
        ("ldap_sasl_authz_id: u", "authz_id", "u"),
        ("ldap_mech: DIGEST-MD5", "mech", "DIGEST-MD5"),
        ("ldap_sasl_mech: DIGEST-MD5", "mech", "DIGEST-MD5"),
        ("ldap_realm: r", "realm", "r"),
        ("ldap_sasl_realm: r", "realm", "r"),
        ("ldap_start_tls: yes", "start_tls", True),
        ("ldap_start_tls: no", "start_tls", False),
        ("ldap_tls_check_peer: 0", "tls_check_peer", False),
        ("ldap_tls_check_peer: on", "tls_check_peer", True),
        ("ldap_tls_cacert_file: /a", "tls_cacert_file", "/a"),
        ("ldap_tls_cacert_file: a/b", "tls_cacert_file", "/run/x/a/b"),
        ("ldap_tls_cacert_dir: certs", "tls_cacert_dir", "/run/x/certs"),
        ("ldap_tls_ciphers: HIGH", "tls_ciphers", "HIGH"),
        ("ldap_tls_cert: /a b", "tls_cert", "/a b"),
        ("ldap_tls_key: ../k", "tls_key", "/run/x/../k"),
        ("ldap_tls_minimum: 1.3", "tls_minimum", "1.3"),
        ("ldap_connections: 10000", "connections", 10000),
        ("LDAP_Filter: (A=b)", "filter", "(A=b)"),
    ],
)
def test_each_key_is_a_setting(file: File, line: str | bytes, setting: str, value: object) -> None:
    found = file.read("", line)

    assert getattr(found.table, setting) == value
    assert found.warnings == []
    assert found.places == {setting: f"{file.line(2)}: {_key(line)}"}


def _key(line: str | bytes) -> str:
    return _bytes(line).partition(b":")[0].decode().lower()


def test_servers_stand_between_blanks_or_commas(file: File) -> None:
    found = file.read("ldap_servers: ldap://a/  ldaps://b/,ldapi:///\t, ldap://c")

    assert found.table.servers == ("ldap://a/", "ldaps://b/", "ldapi:///", "ldap://c")


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        pytest.param(
            ["ldap_filter: (a=b)", "ldap_filter: (c=d)"], {"filter": "(c=d)"}, id="the-same-key"
        ),
        pytest.param(
            ["ldap_bind_pw: a", "ldap_password: b"], {"password": Secret(b"b")}, id="an-alias"
        ),
        pytest.param(["ldap_scope: one", "ldap_scope: sub"], {}, id="back-to-the-default"),
        pytest.param(["ldap_scope: one", "ldap_scope: all"], {"scope": "one"}, id="bad-word-last"),
        pytest.param(
            ["ldap_timeout: 3", "ldap_timeout: x"], {"timeout": 3.0}, id="bad-number-last"
        ),
    ],
)
def test_the_last_line_that_has_a_meaning_counts(
    file: File, lines: list[str], settings: dict[str, object]
) -> None:
    assert file.read(*lines).table == msgspec.structs.replace(Ldap(), **settings)


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("ldap_colour: green", "ldap_colour: ignored: there is no such key"),
        ("ldap_: x", "ldap_: ignored: there is no such key"),
        ("ldap_tls_identity: x", "ldap_tls_identity: ignored: there is no such key"),
        ("servers: x", "servers: ignored: there is no such key"),
        ("ldap-servers: x", "ldap-servers: ignored: there is no such key"),
        ("ldap_uri: x", "ldap_uri: ignored: there is no such key"),
        ("ldap_tls_reqcert: never", "ldap_tls_reqcert: ignored: there is no such key"),
        ("ldap_scope: all", "ldap_scope: ignored: 'all' is none of sub, one, base"),
        ("ldap_scope: one ", "ldap_scope: ignored: 'one ' is none of sub, one, base"),
        (
            "ldap_auth_method: compare",
            "ldap_auth_method: ignored: 'compare' is none of bind, custom, fastbind",
        ),
        ("ldap_deref: yes", "ldap_deref: ignored: 'yes' is none of never, search, find, always"),
        (
            "ldap_group_match_method: dn",
            "ldap_group_match_method: ignored: 'dn' is none of attr, filter",
        ),
        ("ldap_group_scope: x", "ldap_group_scope: ignored: 'x' is none of sub, one, base"),
        ("ldap_tls_minimum: 1.1", "ldap_tls_minimum: ignored: '1.1' is none of 1.2, 1.3"),
        ("ldap_timeout: 0", "ldap_timeout: ignored: it is a number from 1 to 3600"),
        ("ldap_timeout: 3601", "ldap_timeout: ignored: it is a number from 1 to 3600"),
        ("ldap_timeout: five", "ldap_timeout: ignored: it is a number from 1 to 3600"),
        ("ldap_time_limit: -1", "ldap_time_limit: ignored: it is a number from 0 to 2147483647"),
        (
            "ldap_size_limit: 2147483648",
            "ldap_size_limit: ignored: it is a number from 0 to 2147483647",
        ),
        (
            "ldap_size_limit: " + "9" * 4000,
            "ldap_size_limit: ignored: it is a number from 0 to 2147483647",
        ),
        ("ldap_connections: 0", "ldap_connections: ignored: it is a number from 1 to 10000"),
        (
            "ldap_debug: 0",
            "ldap_debug: ignored: there is no libldap that could show its work: use -V",
        ),
        ("ldap_referrals: yes", "ldap_referrals: ignored: a password never follows a referral"),
        (
            "ldap_sasl_secprops: none",
            "ldap_sasl_secprops: ignored: SASL is only used without layers of its own",
        ),
        ("ldap_version: 2", "ldap_version: ignored: only version 3 is spoken"),
        ("ldap_version: three", "ldap_version: ignored: only version 3 is spoken"),
    ],
)
def test_a_line_without_effect_is_named(file: File, line: str, warning: str) -> None:
    found = file.read("# comment", line)

    assert found == Found(Ldap(), [f"{file.line(2)}: {warning}"], {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *product(["ldap_start_tls", "ldap_use_sasl"], ["Yes", "TRUE", "o", "2"]),
        *product(["ldap_tls_check_peer"], ["No", "FALSE", "Off"]),
    ],
)
def test_what_is_neither_yes_nor_no_counts_as_no(file: File, key: str, value: str) -> None:
    found = file.read(f"{key}: {value}")

    assert getattr(found.table, key.removeprefix("ldap_")) is False
    assert found.warnings == [
        f"{file.line(1)}: {key}: neither yes nor no, which counts as no",
    ]


@pytest.mark.parametrize("value", ["Yes", "TRUE", "On", "o", "2"])
def test_certificates_are_checked_unless_they_are_clearly_not_to_be(file: File, value: str) -> None:
    found = file.read(f"ldap_tls_check_peer: {value}")

    assert found.table.tls_check_peer is True
    assert found.warnings == [
        f"{file.line(1)}: ldap_tls_check_peer: neither yes nor no, which counts as yes",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "ldap_referrals: no",
        "ldap_referrals: No",
        "ldap_restart: no",
        "ldap_restart: yes",
        "ldap_version: 3",
        "httpform_host: x",
        "krb5_keytab: x",
    ],
)
def test_what_needs_no_effect_is_not_named(file: File, line: str) -> None:
    assert file.read(line) == Found(Ldap(), [], {})


def test_every_line_is_named(file: File) -> None:
    found = file.read("ldap_a: b", "ldap_filter: (a=b)", "ldap_a: c")

    assert [warning.partition(": ignored")[0] for warning in found.warnings] == [
        f"{file.line(1)}: ldap_a",
        f"{file.line(3)}: ldap_a",
    ]


@pytest.mark.parametrize(
    ("lines", "method"),
    [
        pytest.param(["ldap_use_sasl: yes"], "fastbind", id="by-default"),
        pytest.param(["ldap_auth_method: bind", "ldap_use_sasl: yes"], "fastbind", id="bind"),
        pytest.param(["ldap_use_sasl: yes", "ldap_auth_method: bind"], "fastbind", id="bind-last"),
        pytest.param(["ldap_auth_method: custom", "ldap_use_sasl: yes"], "custom", id="custom"),
        pytest.param(["ldap_use_sasl: no"], "bind", id="no"),
    ],
)
def test_sasl_makes_a_fastbind_of_bind(file: File, lines: list[str], method: str) -> None:
    assert file.read(*lines).table.auth_method == method


def test_the_ends_of_lines_may_be_those_of_windows(file: File) -> None:
    found = file.read("ldap_scope: one\r", "\r", "# x\r", "ldap_password: x\r")

    assert (found.table.scope, found.table.password) == ("one", Secret(b"x"))
    assert found.warnings == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"ldap_filter: (cn=\xe4)", "ldap_filter is not UTF-8"),
        (b"ldap_scope: \xe4", "ldap_scope is not UTF-8"),
        (b"ldap_tls_key: /a\0b", "ldap_tls_key has a NUL byte"),
        (b"ldap_filter (a=b)", "no colon separator"),
        (b"ldap_filter:", "keyword ldap_filter: no value"),
    ],
)
def test_a_line_that_is_no_setting_is_refused(file: File, line: bytes, problem: str) -> None:
    with pytest.raises(StartupError) as refused:
        file.read("", line)

    assert str(refused.value) == f"{file.line(2)}: {problem}"


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(StartupError, match="cannot open /nonexistent: No such file"):
        read_file("/nonexistent", {}, DIRECTORY)


def test_no_password_is_shown(file: File) -> None:
    found = file.read("ldap_password: s3cret", "ldap_bind_pw: s3cret", "ldap_colour: x")

    assert "s3cret" not in repr(found)


class TestLibldap:
    @pytest.mark.parametrize(
        ("option", "said", "setting", "value"),
        [
            ("SASL_AUTHCID", "u", "id", "u"),
            ("SASL_AUTHZID", "u", "authz_id", "u"),
            ("SASL_MECH", "PLAIN", "mech", "PLAIN"),
            ("SASL_REALM", "r", "realm", "r"),
            ("TLS_CACERT", "/a", "tls_cacert_file", "/a"),
            ("TLS_CACERT", "a", "tls_cacert_file", "/run/x/a"),
            ("TLS_CACERTDIR", "/a", "tls_cacert_dir", "/a"),
            ("TLS_CERT", "/a", "tls_cert", "/a"),
            ("TLS_KEY", "/a", "tls_key", "/a"),
            ("TLS_CIPHER_SUITE", "HIGH", "tls_ciphers", "HIGH"),
            ("TLS_REQCERT", "never", "tls_check_peer", False),
            ("TLS_REQCERT", "Allow", "tls_check_peer", False),
            ("TLS_REQCERT", "try", "tls_check_peer", True),
            ("TLS_REQCERT", "demand", "tls_check_peer", True),
            ("TLS_REQCERT", "hard", "tls_check_peer", True),
            ("TLS_PROTOCOL_MIN", "3.4", "tls_minimum", "1.3"),
            ("TLS_PROTOCOL_MIN", "3.10", "tls_minimum", "1.3"),
            ("TLS_PROTOCOL_MIN", "4", "tls_minimum", "1.3"),
        ],
    )
    def test_each_option_is_a_setting(
        self, file: File, option: str, said: str, setting: str, value: object
    ) -> None:
        found = file.read(libldap={option: said})

        assert found == Found(
            msgspec.structs.replace(Ldap(), **{setting: value}),
            [],
            {setting: f"ldap.conf: line 3: {option}"},
        )

    @pytest.mark.parametrize("version", ["3", "3.0", "3.3", "2.9"])
    def test_old_tls_is_not_spoken_for_it(self, file: File, version: str) -> None:
        assert file.read(libldap={"TLS_PROTOCOL_MIN": version}) == Found(Ldap(), [], {})

    @pytest.mark.parametrize(
        ("line", "option", "said"),
        [
            ("ldap_tls_check_peer: yes", "TLS_REQCERT", "never"),
            ("ldap_tls_cacert_file: /b", "TLS_CACERT", "/a"),
            ("ldap_tls_ciphers: HIGH", "TLS_CIPHER_SUITE", "LOW"),
            ("ldap_mech: B", "SASL_MECH", "A"),
        ],
    )
    def test_the_file_wins(self, file: File, line: str, option: str, said: str) -> None:
        alone = file.read(line)

        assert file.read(line, libldap={option: said}) == alone

    @pytest.mark.parametrize(
        ("option", "said", "warning"),
        [
            ("TLS_CRLCHECK", "peer", "ignored: revocation lists are not read"),
            ("TLS_CRLFILE", "/x", "ignored: revocation lists are not read"),
            ("TLS_PROTOCOL_MIN", "TLSv1.3", "ignored: no version of TLS, such as 3.3"),
        ],
    )
    def test_an_option_without_effect_is_named(
        self, file: File, option: str, said: str, warning: str
    ) -> None:
        found = file.read(libldap={option: said})

        assert found == Found(Ldap(), [f"ldap.conf: line 3: {option}: {warning}"], {})

    def test_no_check_of_revocation_needs_no_word(self, file: File) -> None:
        assert file.read(libldap={"TLS_CRLCHECK": "None"}).warnings == []

    def test_a_demand_that_nobody_knows_is_named_and_certificates_are_checked(
        self, file: File
    ) -> None:
        found = file.read(libldap={"TLS_REQCERT": "never # x"})

        assert found.table.tls_check_peer is True
        assert found.warnings == [
            "ldap.conf: line 3: TLS_REQCERT: none of never, allow, try, demand, hard:"
            " certificates are checked"
        ]
