"""The C daemon's LDAP and ours: the same file, the same slapd, the same questions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Unavailable
from pysaslauthd.plugins.ldap import LDAP
from pysaslauthd.wire.mux import encode_result
from tests.helpers.backends import backend
from tests.helpers.cyrus import cyrus
from tests.helpers.processes import free_port
from tests.helpers.slapd import (
    GROUPS,
    PEOPLE,
    SERVICE,
    SERVICE_PASSWORD,
    SUFFIX,
    Slapd,
    group,
    person,
    slapd,
)

pytestmark = pytest.mark.interop("saslauthd", "slapd", "slapadd", "ldapwhoami")

OUTAGE = b"an outage"
ENTRIES = (
    person("joe", "pw", mail="joe@example.org", o="mail")
    + person("ann", "pw", mail="ann@example.org")
    + person("eve", "pw", mail="eve@sub.example.org")
    + person("tw1", "pw", mail="two@example.org")
    + person("tw2", "pw", mail="two@example.org")
    + person("a*b", "pw")
    + person("a(b)c", "pw")
    + person("back\\slash", "pw").replace("uid=back\\slash", "uid=back\\\\slash")
    + person("zoë", "pässword")
    + person("imap", "pw")
    + person("long", "x" * 126 + "yz")
    + person("sec", "pw", where=f"ou=secret,{SUFFIX}")
    + person("sha", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=")  # of password
    + person("stranger", "{STRANGE}x")
    + person("several", "first\nuserPassword: second")
    + group("attr", [f"uid=joe,{PEOPLE}"], "uniqueMember")
    + group("imap", [f"uid=joe,{PEOPLE}"])
    + group("hidden", [f"uid=joe,{PEOPLE}"]).replace(GROUPS, f"ou=secret,{SUFFIX}")
    + group("more", [f"uid=joe,{PEOPLE}", f"uid=ann,{PEOPLE}"])
)


class Question(NamedTuple):
    """What is asked, and for which service."""

    user: str
    password: str = "pw"
    realm: str = ""
    service: str = "imap"


Q = Question
JOE, WRONG, NOBODY = Q("joe"), Q("joe", "wrong"), Q("nobody")
USUAL = (JOE, WRONG, NOBODY, Q("ann"))


@pytest.fixture(scope="module")
def directory(as_root: None) -> Iterator[Slapd]:
    with slapd(ENTRIES) as running:
        yield running


SERVICE_LINES = (f"ldap_bind_dn: {SERVICE}", f"ldap_password: {SERVICE_PASSWORD}")
BASE = f"ldap_search_base: {SUFFIX}"


def case(name: str, *lines: str, asked: Sequence[Question] = USUAL, flags: str = "") -> object:
    return pytest.param(lines, asked, flags, id=name)


THE_SAME = [
    case("defaults", BASE),
    case("one-level", f"ldap_search_base: {PEOPLE}", "ldap_scope: one"),
    case("one-level-too-high", BASE, "ldap_scope: one"),
    case("base", f"ldap_search_base: uid=joe,{PEOPLE}", "ldap_scope: base"),
    case("service", BASE, *SERVICE_LINES, asked=[*USUAL, Q("sec"), Q("sec", "wrong")]),
    case("nobody-sees-secret", BASE, asked=[Q("sec")]),
    case("bind-pw", BASE, f"ldap_bind_dn: {SERVICE}", f"ldap_bind_pw: {SERVICE_PASSWORD}"),
    case("last-line-wins", "ldap_search_base: dc=none", BASE),
    case("upper-case-keys", f"LDAP_SEARCH_BASE: {SUFFIX}"),
    case("unknown-key", BASE, "ldap_colour: green"),
    case("bad-word", BASE, "ldap_scope: wide"),
    case("filter-without-parentheses", BASE, "ldap_filter: uid=%u"),
    case("filter-and", BASE, "ldap_filter: (&(uid=%u)(o=mail))"),
    case("filter-or", BASE, "ldap_filter: (|(uid=%u)(mail=%u@example.org))"),
    case("filter-not", BASE, "ldap_filter: (&(uid=%u)(!(o=mail)))"),
    case("filter-substring", BASE, "ldap_filter: (&(uid=%u)(mail=*@example.org))"),
    case("filter-escape", BASE, "ldap_filter: (uid=%u\\2a\\62)", asked=[Q("a"), JOE]),
    case(
        "filter-service",
        BASE,
        "ldap_filter: (&(uid=%u)(o=%s))",
        asked=[Q("joe", service="mail"), Q("joe", service="imap"), Q("joe", service="")],
    ),
    case(
        "filter-realm",
        BASE,
        "ldap_filter: (mail=%u@%r)",
        asked=[Q("joe", realm="example.org"), JOE, Q("eve", realm="sub.example.org")],
    ),
    case(
        "filter-at-realm",
        BASE,
        "ldap_filter: (mail=%u%R)",
        asked=[Q("joe", realm="example.org"), JOE, Q("joe@example.org")],
    ),
    case(
        "default-realm",
        BASE,
        "ldap_filter: (mail=%u@%r)",
        "ldap_default_realm: example.org",
        asked=[JOE, Q("eve", realm="sub.example.org"), Q("joe", realm="none")],
    ),
    case(
        "parts-of-a-name",
        BASE,
        "ldap_filter: (&(uid=%U)(mail=%U@%d))",
        asked=[Q("joe@example.org"), JOE, Q("joe", realm="example.org"), Q("joe@none")],
    ),
    case(
        "labels",
        BASE,
        "ldap_filter: (mail=%U@%3.%2.%1)",
        asked=[Q("eve@sub.example.org"), Q("eve", realm="sub.example.org"), Q("joe@example.org")],
    ),
    case("percent", BASE, "ldap_filter: (|(uid=%u)(uid=%%))"),
    case("unknown-token", BASE, "ldap_filter: (uid=%x%u%y)"),
    case(
        "token-in-base",
        "ldap_search_base: ou=%s,dc=example,dc=org",
        asked=[Q("joe", service="people"), Q("joe", service="groups"), Q("joe", service="none")],
    ),
    case(
        "special-characters",
        BASE,
        asked=[
            Q("a*b"),
            Q("a*"),
            Q("a(b)c"),
            Q("a(b"),
            Q("back\\slash"),
            Q("*"),
            Q("joe)(uid=*"),
            Q("zoë", "pässword"),
            Q("zoë", "password"),
            Q("ZOË", "pässword"),
            Q("JOE"),
            Q(" joe"),
        ],
    ),
    case(
        "combined",
        BASE,
        "ldap_filter: (mail=%u)",
        flags="-r",
        asked=[Q("joe", realm="example.org"), JOE, Q("joe@example.org")],
    ),
    case(
        "combined-with-realm",
        BASE,
        "ldap_filter: (&(mail=%u)(mail=*@%r))",
        flags="-r",
        asked=[Q("joe", realm="example.org"), Q("eve", realm="example.org")],
    ),
    case("two-entries", BASE, "ldap_filter: (mail=%u)", asked=[Q("two@example.org")]),
    case(
        "two-entries-seen",
        BASE,
        "ldap_filter: (mail=%u)",
        "ldap_size_limit: 5",
        asked=[Q("two@example.org"), Q("joe@example.org")],
    ),
    case("fastbind", "ldap_auth_method: fastbind", f"ldap_filter: uid=%u,{PEOPLE}"),
    case("fastbind-bad-name", "ldap_auth_method: fastbind", "ldap_filter: nonsense %u"),
    case(
        "custom",
        *(BASE, *SERVICE_LINES, "ldap_auth_method: custom"),
        asked=[*USUAL, Q("sha", "password"), Q("sha", "wrong")],
    ),
    case(
        "custom-attribute",
        *(BASE, *SERVICE_LINES, "ldap_auth_method: custom", "ldap_password_attr: mail"),
        asked=[Q("joe", "joe@example.org"), JOE],
    ),
    case(
        "sasl-digest-md5",
        *("ldap_use_sasl: yes", "ldap_mech: DIGEST-MD5"),
        asked=[JOE, WRONG, NOBODY, Q("joe", realm="localhost")],
    ),
    case("sasl-scram", "ldap_use_sasl: yes", "ldap_mech: SCRAM-SHA-256"),
    case("group-attribute", BASE, f"ldap_group_dn: cn=attr,{GROUPS}"),
    case("group-member", BASE, f"ldap_group_dn: cn=more,{GROUPS}", "ldap_group_attr: member"),
    case(
        "group-by-service",
        BASE,
        f"ldap_group_dn: cn=%s,{GROUPS}",
        "ldap_group_attr: member",
        asked=[JOE, Q("ann"), Q("joe", service="none"), WRONG],
    ),
    case(
        "group-filter",
        BASE,
        "ldap_group_match_method: filter",
        "ldap_group_filter: (&(cn=imap)(member=%D))",
    ),
    case(
        "group-filter-base",
        BASE,
        "ldap_group_match_method: filter",
        "ldap_group_filter: (member=%D)",
        f"ldap_group_search_base: cn=more,{GROUPS}",
    ),
    case(
        "group-filter-scope",
        BASE,
        "ldap_group_match_method: filter",
        "ldap_group_filter: (member=%D)",
        "ldap_group_scope: base",
    ),
    case(
        "group-with-custom",
        BASE,
        *SERVICE_LINES,
        "ldap_auth_method: custom",
        f"ldap_group_dn: cn=attr,{GROUPS}",
    ),
    case(
        "group-with-fastbind",
        "ldap_auth_method: fastbind",
        f"ldap_filter: uid=%u,{PEOPLE}",
        f"ldap_group_dn: cn=attr,{GROUPS}",
    ),
]


def write(path: Path, directory: Slapd, lines: Sequence[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in (f"ldap_servers: {directory.uri}", *lines)))
    return str(path)


async def ours(file: str, asked: Sequence[Question], *, combine: bool = False) -> list[bytes]:
    settings = Settings(mechanism="ldap", mechanism_option=file, combine_realm=combine)
    async with backend(settings) as subject:
        results = [await subject.ask(*question) for question in asked]
    return [
        OUTAGE if isinstance(one, Unavailable) else encode_result(one, b"")[2:] for one in results
    ]


class Other(NamedTuple):
    """What is answered otherwise, and how."""

    question: Question
    theirs: bytes
    ours: bytes


def other(name: str, *lines: str, differ: Sequence[Other]) -> object:
    return pytest.param(lines, differ, id=name)


CUSTOM = (BASE, *SERVICE_LINES, "ldap_auth_method: custom")
FASTBIND = "ldap_auth_method: fastbind"
NOT_THE_SAME = [
    other("no-base", differ=[Other(JOE, b"NO", OUTAGE)]),
    other("base-that-is-not-there", "ldap_search_base: dc=x", differ=[Other(JOE, b"NO", OUTAGE)]),
    other(
        "service-that-is-refused",
        *(BASE, f"ldap_bind_dn: {SERVICE}", "ldap_password: wrong"),
        differ=[Other(JOE, b"NO", OUTAGE)],
    ),
    other(
        "name-of-nobody",
        *(FASTBIND, "ldap_filter: %R"),
        differ=[Other(WRONG, b"OK", b"NO"), Other(NOBODY, b"OK", b"NO")],
    ),
    other(
        "name-that-leaves-its-place",
        *(FASTBIND, f"ldap_filter: uid=%u,{SUFFIX}"),
        differ=[Other(Q("joe,ou=people"), b"OK", b"NO")],
    ),
    other(
        "password-over-127-bytes", BASE, differ=[Other(Q("long", "x" * 126 + "yz"), b"NO", b"OK")]
    ),
    other(
        "member-of-several-groups",
        *(BASE, "ldap_group_match_method: filter", "ldap_group_filter: (member=%D)"),
        differ=[Other(JOE, b"NO", b"OK")],
    ),
    other(
        "group-that-is-not-there",
        *(BASE, f"ldap_group_dn: cn=none,{GROUPS}"),
        differ=[Other(JOE, b"NO", OUTAGE)],
    ),
    other(
        "group-that-the-user-may-not-see",
        *(FASTBIND, f"ldap_filter: uid=%u,{PEOPLE}", *SERVICE_LINES),
        *(f"ldap_group_dn: cn=hidden,ou=secret,{SUFFIX}", "ldap_group_attr: member"),
        differ=[Other(JOE, b"NO", b"OK")],
    ),
    other(
        "custom-unknown-scheme",
        *CUSTOM,
        differ=[Other(Q("stranger", "{STRANGE}x"), b"OK", OUTAGE)],
    ),
    other(
        "custom-several-values",
        *CUSTOM,
        differ=[Other(Q("several", "first"), b"NO", b"OK")],
    ),
    other(
        "custom-without-the-right-to-read",
        *(BASE, "ldap_auth_method: custom"),
        differ=[Other(JOE, b"NO", OUTAGE)],
    ),
]


@pytest.mark.parametrize(("lines", "asked", "flags"), THE_SAME)
async def test_the_same_replies(
    tmp_path: Path, directory: Slapd, lines: Sequence[str], asked: Sequence[Question], flags: str
) -> None:
    file = write(tmp_path / "ldap.conf", directory, lines)
    with cyrus("ldap", "-O", file, *flags.split()) as twin:
        theirs = [twin.ask(*question) for question in asked]

    assert await ours(file, asked, combine=flags == "-r") == theirs


@pytest.mark.parametrize(("lines", "differ"), NOT_THE_SAME)
async def test_what_is_answered_otherwise(
    tmp_path: Path, directory: Slapd, lines: Sequence[str], differ: Sequence[Other]
) -> None:
    file = write(tmp_path / "ldap.conf", directory, lines)
    with cyrus("ldap", "-O", file) as twin:
        theirs = [twin.ask(*one.question) for one in differ]

    assert theirs == [one.theirs for one in differ]
    assert await ours(file, [one.question for one in differ]) == [one.ours for one in differ]


async def test_a_directory_that_is_not_there_is_no_refusal_here(tmp_path: Path) -> None:
    file = tmp_path / "ldap.conf"
    file.write_text(f"ldap_servers: ldap://127.0.0.1:{free_port()}/\n{BASE}\n")
    with cyrus("ldap", "-O", str(file)) as twin:
        assert twin.ask(*JOE) == b"NO"

    assert await ours(str(file), [JOE]) == [OUTAGE]


def test_the_c_daemon_starts_with_settings_that_are_refused_here(tmp_path: Path) -> None:
    file = tmp_path / "ldap.conf"
    file.write_text("ldap_filter: (uid=%u\n")
    with cyrus("ldap", "-O", str(file)) as twin:
        assert twin.ask(*JOE) == b"NO"

    settings = Settings(mechanism="ldap", mechanism_option=str(file))
    with pytest.raises(StartupError, match=r"ldap_filter: .*a closing parenthesis is missing"):
        LDAP.check(LDAP.configure(settings))


def test_external_for_users_lets_everybody_in_and_is_refused_here(
    tmp_path: Path, directory: Slapd
) -> None:
    file = tmp_path / "ldap.conf"
    lines = (f"ldap_servers: {directory.socket_uri}", "ldap_use_sasl: yes", "ldap_mech: EXTERNAL")
    file.write_text("".join(f"{line}\n" for line in lines))
    with cyrus("ldap", "-O", str(file)) as twin:
        assert twin.ask(*WRONG) == b"OK"

    settings = Settings(mechanism="ldap", mechanism_option=str(file))
    with pytest.raises(StartupError, match="EXTERNAL asks nobody for a password"):
        LDAP.check(LDAP.configure(settings))


async def test_both_take_no_server_from_libldaps_own_settings(
    tmp_path: Path, directory: Slapd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LDAPURI", directory.uri)
    file = tmp_path / "ldap.conf"
    file.write_text(f"{BASE}\n")
    with cyrus("ldap", "-O", str(file)) as twin:
        assert twin.ask(*JOE) == b"NO"

    assert await ours(str(file), [JOE]) == [OUTAGE]
