"""Our filters, names, URLs and settings beside those of libldap, which the C daemon asks with."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.config.classic import Line
from pysaslauthd.config.ldap import read_file
from pysaslauthd.config.libldap import read_options
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.ldap import DEFAULT_SOCKET, parse_server
from pysaslauthd.wire.ldap_filter import FilterProblem, parse
from tests.helpers import libldap
from tests.helpers.filters import ONLY_OURS, RFC_4515, TEXTS
from tests.helpers.libldap import Pair


@pytest.fixture(scope="module", autouse=True)
def library(lacking: Callable[[str], NoReturn]) -> None:
    try:
        libldap.load()
    except OSError:
        lacking("needs libldap")


def our_filter(text: str) -> bytes | None:
    try:
        return parse(text).encode(lambda _: b"")
    except FilterProblem:
        return None


class TestFilters:
    @pytest.mark.parametrize("text", [text for text, _ in RFC_4515 + TEXTS])
    def test_a_text_is_the_same_filter(self, text: str) -> None:
        assert our_filter(text) == libldap.encode_filter(text) is not None

    @pytest.mark.parametrize(
        "text",
        [
            *("(", ")", "()", "a", "(a)", "(=a)", "(a>b)", "(a:b=c)", "((a=b))", "(a=(b))"),
            *("(a=b", "(a=b))", "(a=b)(c=d)", "(a=b) x", "a=b)", "(&(a=b)", "(&(a=b)))"),
            *("(&a=b)", "(&(a=b)c)", "(!a=b)", "(&&(a=b))", "(!)", "(!(a=b)(c=d))"),
            *(r"(a=\zz)", r"(a=\2)", r"(a=\a)", "(a=\\", r"(a=b\)", "(a>=*)", "(a~=x*)"),
            *("(a:r:=x*)", "(a=**)", "(a=x**y)", "(a=*x**)", "(:=a)", "(:dn:=a)", "(a:r:dn:=x)"),
            *("(a b=c)", "(a =c)", " a=b", "(a_b=c)", "(-a=c)", "(a;=c)", "(1.=c)", "(1a=c)"),
            *("(ä=c)", "(a:r_s:=c)", "(a:r;x:=c)", "(a<b=c)", "(a~>=b)"),
        ],
    )
    def test_a_text_is_no_filter_for_either(self, text: str) -> None:
        assert our_filter(text) is None
        assert libldap.encode_filter(text) is None

    @pytest.mark.parametrize("text", [text for text, _ in ONLY_OURS])
    def test_what_only_ours_takes(self, text: str) -> None:
        assert our_filter(text) is not None
        assert libldap.encode_filter(text) is None

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="nothing"),  # of which it makes a search without a filter
            pytest.param("(a::=x)", id="empty-rule"),  # which RFC 4515 does not have
            pytest.param("(!" * 32 + "(a=b)" + ")" * 32, id="very-deep"),
        ],
    )
    def test_what_only_libldap_takes(self, text: str) -> None:
        assert our_filter(text) is None
        assert libldap.encode_filter(text) is not None

    PIECES = (
        *"()&|!=*\\<>~:; \nab",
        *(":=", "\\2a", "\\(", "dn", "1.2", "x-y", "é", "(!", "(&", "(|", "(a=b)", "(a=*b*)"),
    )

    @settings(max_examples=1000)
    @given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
    def test_any_text_is_the_same_filter_or_none(self, text: str) -> None:
        outside = text.strip() if text.strip().startswith("(") else text
        common = re.sub(r"\)\s+\)", "))", outside)
        assume(common.strip() and "::=" not in common)

        assert our_filter(common) == libldap.encode_filter(common)

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8))
    def test_any_value_is_the_same_in_the_filter_for_people(self, user: str) -> None:
        template = Template("(|(uid=%u)(mail=*%u))")
        subject = Subject(user, "", "")
        assume(user)

        theirs = libldap.encode_filter(template.as_filter_text(subject))

        assert theirs == template.parse_filter().encode(subject.value)


NAME = Template("cn=%u+sn=x%u,uid=%u@%r,ou=%s,dc=%2,dc=%1")
values = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.text(
    st.sampled_from('a,+"\\<>;=# \n\0*()/é'), min_size=1, max_size=8
)


class TestNames:
    @given(values, values, values)
    def test_any_values_leave_a_name_its_parts(self, user: str, service: str, realm: str) -> None:
        subject = Subject(user, service, realm)

        found = libldap.parse_name(NAME.as_dn(subject))

        local = user.encode()
        assert found is not None
        assert [[pair.attribute for pair in part] for part in found] == [
            [b"cn", b"sn"],
            [b"uid"],
            [b"ou"],
            [b"dc"],
            [b"dc"],
        ]
        assert found[0] == [Pair(b"cn", local), Pair(b"sn", b"x" + local)]
        assert found[1] == [Pair(b"uid", f"{user}@{realm}".encode())]
        assert found[2] == [Pair(b"ou", service.encode())]
        assert found[3] == [Pair(b"dc", subject.value("2"))]
        assert found[4] == [Pair(b"dc", subject.value("1"))]

    @given(values, values)
    def test_the_name_of_an_entry_is_the_end_of_one(self, user: str, service: str) -> None:
        entry = Template("uid=%u,dc=e").as_dn(Subject(user, "", ""))
        subject = Subject(user, service, "", entry)

        found = libldap.parse_name(Template("cn=%s,%D").as_dn(subject))

        assert found == [
            [Pair(b"cn", service.encode())],
            [Pair(b"uid", user.encode())],
            [Pair(b"dc", b"e")],
        ]


def our_server(uri: str) -> tuple[str, int] | None:
    try:
        found = parse_server(uri, start_tls=False)
    except StartupError:
        return None
    return found.path or found.host, found.port


class TestUrls:
    @pytest.mark.parametrize(
        "uri",
        [
            *("ldap://a.example", "ldap://a.example/", "ldap://a.example:3890/", "LDAP://A/"),
            *("ldap://192.0.2.1/", "ldap://[2001:db8::1]:3890/", "ldap://[fe80::1%25eth0]/"),
            *("ldap://a.example/dc=e?uid?sub?(a=b)", "ldap://a.example?uid", "ldap://a%2Eb/"),
            *("ldaps://a.example/", "ldaps://a.example:1/", "ldapi://%2Frun%2Fa%20b/????x"),
        ],
    )
    def test_one_leads_to_the_same_server(self, uri: str) -> None:
        theirs = libldap.parse_url(uri)

        assert theirs is not None
        assert our_server(uri) == theirs[1:]

    @pytest.mark.parametrize(
        ("uri", "ours"),
        [
            ("ldap://", ("localhost", 389)),
            ("ldap:///dc=e", ("localhost", 389)),
            ("ldap://:3890/", ("localhost", 3890)),
            ("ldaps:///", ("localhost", 636)),
            ("ldapi://", (DEFAULT_SOCKET, 0)),
            ("ldapi:///run/ldapi", (DEFAULT_SOCKET, 0)),
        ],
    )
    def test_one_without_a_host_leads_to_this_machine(
        self, uri: str, ours: tuple[str, int]
    ) -> None:
        theirs = libldap.parse_url(uri)

        assert theirs is not None
        assert theirs[1:] == ("", ours[1])
        assert our_server(uri) == ours

    @pytest.mark.parametrize("uri", ["", "a", "ldap:a", "cldap://a/", "http://a/", "ldap://a:x"])
    def test_one_leads_nowhere_for_either(self, uri: str) -> None:
        assert libldap.parse_url(uri) is None
        assert our_server(uri) is None

    @pytest.mark.parametrize("uri", ["ldap://a:/", "ldap://a/x?y?z?(a=b)?!x", "ldap://2001:db8::1"])
    def test_what_only_ours_takes(self, uri: str) -> None:
        assert libldap.parse_url(uri) is None
        assert our_server(uri) is not None

    @pytest.mark.parametrize(
        "uri",
        [
            *("ldap://a:0/", "ldap://a:65536/", "ldap://[::1]x/", "ldap://[]/", "<ldap://a/>"),
            *("URL:ldap://a/", "ldapi://run/ldapi"),
        ],
    )
    def test_what_only_libldap_takes(self, uri: str) -> None:
        assert libldap.parse_url(uri) is not None
        assert our_server(uri) is None


NUMBERS = ("TLS_REQCERT", "TLS_PROTOCOL_MIN")


class Place:
    """A home, a run directory and a system file (by `LDAPCONF`), for libldap and for us."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.run = root / "home", root / "run"
        self.home.mkdir()
        self.run.mkdir()

    def write(self, **files: str) -> None:
        """Write files; the first _ in a name is a /, a leading one of the rest a dot."""
        for name, content in files.items():
            directory, _, rest = name.partition("_")
            (self.root / directory / rest.replace("_", ".")).write_text(content)

    def texts(self, **variables: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return libldap's settings that are texts, and ours."""
        theirs, ours = self._read(variables)
        return (
            {name: str(value) for name, value in theirs.items() if name not in NUMBERS},
            {name: line.text for name, line in ours.items() if name not in NUMBERS},
        )

    def numbers(self, **variables: str) -> tuple[dict[str, str | int], Ldap]:
        """Return libldap's settings, and the table that ours make."""
        theirs, ours = self._read(variables)
        file = self.root / "saslauthd.conf"
        file.touch()
        return theirs, read_file(str(file), ours, str(self.run)).table

    def _read(self, variables: dict[str, str]) -> tuple[dict[str, str | int], dict[str, Line]]:
        environment = {"HOME": str(self.home), **variables}
        theirs = libldap.read_options(environment, self.run)
        return theirs, read_options(environment, str(self.run))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


ALL = """\
# comment
 # TLS_CACERT /wrong
TLS_CACERT /a b\t
  tls_cacertdir\t/d\r
TLS_CERT
TLS_CERT /{0}c
TLS_KEY /{0}k # no comment
TLS_CIPHER_SUITE "NORMAL"
SASL_MECH PLAIN
Sasl_Realm a realm
SASL_AUTHCID {0}u
SASL_AUTHZID {0}z
TLS_KEY=/wrong
URI ldap://other/
"""


class TestSettings:
    @pytest.mark.parametrize(
        ("files", "variables"),
        [
            pytest.param({}, {}, id="the-systems"),
            pytest.param({"home_ldaprc": ALL}, {}, id="home"),
            pytest.param({"home__ldaprc": ALL}, {}, id="home-dot"),
            pytest.param({"run_ldaprc": ALL}, {}, id="run-directory"),
            pytest.param({"run_conf": ALL}, {"LDAPCONF": "conf"}, id="LDAPCONF"),
            pytest.param({"home_mine": ALL}, {"LDAPRC": "mine"}, id="LDAPRC-home"),
            pytest.param({"home__mine": ALL}, {"LDAPRC": "mine"}, id="LDAPRC-home-dot"),
            pytest.param({"run_mine": ALL}, {"LDAPRC": "mine"}, id="LDAPRC-run-directory"),
            pytest.param({"home_ldaprc": ALL}, {"LDAPNOINIT": ""}, id="LDAPNOINIT"),
            pytest.param({"home_ldaprc": ALL}, {"LDAPTLS_CERT": "/v"}, id="variable"),
            pytest.param({"home_ldaprc": ALL}, {"LDAPTLS_CERT": ""}, id="empty-variable"),
            pytest.param({}, {"LDAPCONF": "missing", "LDAPRC": ""}, id="missing"),
            pytest.param(
                {
                    "home_ldaprc": "TLS_CACERT /1\nTLS_CERT /1\nTLS_KEY /1\nSASL_MECH 1",
                    "home__ldaprc": "TLS_CACERT /2\nTLS_CERT /2\nTLS_KEY /2",
                    "run_ldaprc": "TLS_CACERT /3\nTLS_CERT /3",
                    "run_conf": "TLS_CACERT /4\nTLS_CERT /4",
                    "home_mine": "SASL_REALM 5\nTLS_CACERTDIR /5",
                    "home__mine": "SASL_REALM 6\nTLS_CACERTDIR /6",
                    "run_mine": "SASL_REALM 7",
                },
                {"LDAPCONF": "conf", "LDAPRC": "mine", "LDAPSASL_AUTHCID": "8"},
                id="all",
            ),
        ],
    )
    def test_the_same_settings_count(
        self, place: Place, files: dict[str, str], variables: dict[str, str]
    ) -> None:
        place.write(**files)

        theirs, ours = place.texts(**variables)

        assert ours == theirs

    @pytest.mark.parametrize(
        "demand",
        ["never", "allow", "try", "demand", "hard", "NEVER", "Allow", "nonsense", "never # x"],
    )
    def test_certificates_are_checked_on_the_same_demands(self, place: Place, demand: str) -> None:
        never, allow = 0, 3  # LDAP_OPT_X_TLS_...: ldap.h

        theirs, ours = place.numbers(LDAPTLS_REQCERT=demand)

        assert ours.tls_check_peer == (theirs["TLS_REQCERT"] not in (never, allow))

    @pytest.mark.parametrize("version", ["3", "3.0", "3.3", "3.4", "3.10", "4", "x", "3.x", "3.4x"])
    def test_new_tls_is_wanted_by_the_same_versions(self, place: Place, version: str) -> None:
        tls_1_3 = 0x304

        theirs, ours = place.numbers(LDAPTLS_PROTOCOL_MIN=version)

        assert (ours.tls_minimum == "1.3") == (int(theirs["TLS_PROTOCOL_MIN"]) >= tls_1_3)
