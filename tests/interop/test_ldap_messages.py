"""Our requests beside those of OpenLDAP's tools, byte for byte, as they come to a server."""

import subprocess
from collections.abc import Iterator

import pytest

from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import SearchRules
from pysaslauthd.wire.ldap_filter import parse
from tests.helpers.ldap_recorder import Recorder, recorder
from tests.helpers.processes import DEADLINE

pytestmark = pytest.mark.interop("ldapsearch", "ldapcompare", "ldapwhoami")

BIND = ldap.message(1, ldap.simple_bind(b"cn=a,dc=e", "pässword".encode()))
AS_ANN = ("-x", "-D", "cn=a,dc=e", "-w", "pässword")


@pytest.fixture
def server() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


def run(server: Recorder, *argv: str) -> list[bytes]:
    """Return what a tool sends; whether it likes the answers does not matter."""
    subprocess.run(
        [argv[0], "-H", server.uri, *argv[1:]],
        capture_output=True,
        check=False,
        timeout=DEADLINE,
        env={"LDAPNOINIT": "", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    server.wait_for_clients()
    return server.messages


@pytest.mark.parametrize(
    ("flags", "base", "rules", "filter_", "wanted"),
    [
        pytest.param([], "", SearchRules(), "(objectClass=*)", "1.1", id="defaults"),
        pytest.param(
            ["-s", "one", "-a", "always", "-z", "1", "-l", "300"],
            "ou=a,dc=é",
            SearchRules("one", "always", 1, 300),
            "(&(uid=zoë)(|(mail=a*b*c)(!(x>=1)))(cn:dn:2.4.6:=y))",
            "userPassword",
            id="all-else",
        ),
        pytest.param(
            ["-s", "base", "-a", "find", "-z", "2147483647"],
            "dc=" + "e" * 300,
            SearchRules("base", "find", 2147483647),
            "(uid=" + "x" * 200 + ")",
            "cn",
            id="long",
        ),
        pytest.param(["-a", "search"], "", SearchRules(deref="search"), "(a=b)", "cn", id="deref"),
    ],
)
def test_a_search_is_the_same(
    server: Recorder, flags: list[str], base: str, rules: SearchRules, filter_: str, wanted: str
) -> None:
    theirs = run(server, "ldapsearch", *AS_ANN, "-b", base, *flags, filter_, wanted)

    encoded = parse(filter_).encode(lambda _: b"")
    search = ldap.search(base.encode(), rules, encoded, (wanted.encode(),))
    assert theirs == [BIND, ldap.message(2, search), ldap.message(3, ldap.UNBIND)]


def test_a_comparison_is_the_same(server: Recorder) -> None:
    theirs = run(server, "ldapcompare", *AS_ANN, "cn=g,dc=e", "member:uid=zoë,dc=e")

    comparison = ldap.compare(b"cn=g,dc=e", b"member", "uid=zoë,dc=e".encode())
    assert theirs == [BIND, ldap.message(2, comparison), ldap.message(3, ldap.UNBIND)]


def test_the_question_who_one_is_is_the_same(server: Recorder) -> None:
    theirs = run(server, "ldapwhoami", *AS_ANN)

    assert theirs[:2] == [BIND, ldap.message(2, ldap.extended(ldap.WHO_AM_I_OID))]


def test_the_wish_for_tls_is_the_same(server: Recorder) -> None:
    theirs = run(server, "ldapwhoami", "-x", "-ZZ")

    assert theirs[0] == ldap.message(1, ldap.extended(ldap.START_TLS_OID))


def test_the_question_for_the_password_policy_is_the_same(server: Recorder) -> None:
    theirs = run(server, "ldapwhoami", *AS_ANN, "-e", "ppolicy")

    bind = ldap.simple_bind(b"cn=a,dc=e", "pässword".encode())
    assert theirs[0] == ldap.message(1, bind, ldap.PASSWORD_POLICY_REQUEST)


@pytest.mark.parametrize(
    ("mechanism", "credentials"),
    [
        pytest.param("DIGEST-MD5", None, id="server-first"),
        pytest.param("PLAIN", b"\0ann\0pw", id="client-first"),
    ],
)
def test_a_sasl_bind_is_the_same(
    server: Recorder, mechanism: str, credentials: bytes | None
) -> None:
    flags = ("-Q", "-Y", mechanism, "-U", "ann", "-w", "pw", "-O", "none")

    theirs = run(server, "ldapwhoami", *flags)

    assert theirs[0] == ldap.message(1, ldap.sasl_bind(mechanism, credentials))
