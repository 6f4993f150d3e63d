"""Templates as the C daemon fills them, seen by a server that it asks, beside ours."""

from collections.abc import Iterator

import pytest

from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.wire.ldap_filter import FilterProblem
from tests.helpers.ber import Tree, tree
from tests.helpers.ldap_recorder import BIND, COMPARE, SEARCH
from tests.helpers.ldap_twin import Login, Twin, twin

pytestmark = pytest.mark.interop("saslauthd")


FILTER = (
    "(|(u=%u)(U=%U)(d=%d)(a=%1)(b=%2)(c=%3)(i=%9)(s=%s)(r=%r)(R=%R)(D=%D)(p=%%)(x=%x)"
    r"(m=a%u*%ub*)(e>=%u\2a%s)(n:dn:1.2:=<%u>)(!(t=%%u%x%0)))"
)
BASE = "u=%u,U=%U,d=%d,a=%1,b=%2,i=%9,s=%s,r=%r,R=%R,D=%D,p=%%,x=%x"


@pytest.fixture(scope="module")
def whole(as_root: None) -> Iterator[Twin]:
    with twin(f"ldap_filter: {FILTER}", f"ldap_search_base: {BASE}") as made:
        yield made


def our_filter(template: str, login: Login) -> Tree:
    return tree(Template(template).parse_filter().encode(Subject(*login).value))


PLAIN = [
    Login("joe"),
    Login("joe", "imap", "example.org"),
    Login("joe@mail.example.org"),
    Login("joe@mail.example.org", "smtp", "realm"),
    Login("joe@", "imap", "a.b"),
    Login("@a.b", "imap"),
    Login("a@b@c.d"),
    Login("joe", "", "a.b.c.d.e.f.g.h.i.j"),
    Login("joe@a.b.c.d.e.f.g.h.i"),
    Login("joe", "imap", "a.b."),
    Login("zoë", "名前", "é.ü"),
    Login("o'neil-smith_2.x", "a/b", "EXAMPLE.org"),
]
HOSTILE = [
    "*",
    "a*b",
    "(",
    ")",
    "a)(uid=*",
    "*)(|(uid=*",
    "\\",
    "\\2a",
    "\\5c",
    "%",
    "%u%s%%",
    "&|!=<>~:",
    'a,b+c="d";#',
    " a ",
    "a\nb\rc\td",
    "\x01\x7f",
    "\u2028\ufeff",
]


@pytest.mark.parametrize("login", PLAIN, ids=repr)
def test_plain_values_make_the_same_search(whole: Twin, login: Login) -> None:
    theirs = whole.search(login)

    assert our_filter(FILTER, login) == theirs.filter
    assert Template(BASE).as_dn(Subject(*login)) == theirs.base


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize(
    "login",
    [Login("{}"), Login("joe", "{}"), Login("joe", "", "{}"), Login("{}@{}", "{}", "{}.{}")],
    ids=["user", "service", "realm", "all"],
)
def test_hostile_values_make_the_same_filter(whole: Twin, login: Login, value: str) -> None:
    filled = Login(*(field.replace("{}", value) for field in login))

    theirs = whole.search(filled)

    assert our_filter(FILTER, filled) == theirs.filter


def test_the_default_realm_is_that_of_users_who_name_none(as_root: None) -> None:
    with twin("ldap_filter: (a=%r%R%1)", "ldap_default_realm: a.b") as made:
        without, with_one = made.search(Login("joe")), made.search(Login("joe", "", "c.d"))

    assert without.filter == our_filter("(a=%r%R%1)", Login("joe", "", "a.b"))
    assert with_one.filter == our_filter("(a=%r%R%1)", Login("joe", "", "c.d"))


@pytest.mark.parametrize("template", ["(%s=x)", "(a=*%d*)", "(a=*%s*)"])
@pytest.mark.parametrize("service", ["", "imap", "im ap", "*", "a)(b"])
def test_what_makes_no_filter_makes_none_for_either(
    as_root: None, template: str, service: str
) -> None:
    login = Login("joe@a", service)
    with twin(f"ldap_filter: {template}") as made:
        theirs = [content[6] for content in made.asked(login, SEARCH)]

    try:
        ours = [our_filter(template, login)]
    except FilterProblem:
        ours = []
    assert ours == theirs


class TestWhatDiffers:
    @pytest.mark.parametrize(
        ("user", "theirs", "ours"),
        [
            ("a,ou=b", b"a,ou=b", rb"a\2cou\3db"),
            ("a+b", b"a+b", rb"a\2bb"),
            ('"a"', b'"a"', rb"\22a\22"),
            ("#a;<b>", b"#a;<b>", rb"\23a\3b\3cb\3e"),
            (" a ", b" a ", rb"\20a\20"),
            ("a\\b", rb"a\5cb", rb"a\5cb"),
            ("a*(b)", rb"a\2a\28b\29", b"a*(b)"),
        ],
    )
    def test_values_in_names_are_escaped_for_names(
        self, as_root: None, user: str, theirs: bytes, ours: bytes
    ) -> None:
        template = Template("uid=%u,dc=e")
        with (
            twin("ldap_search_base: uid=%u,dc=e", "ldap_filter: (a=b)") as searching,
            twin("ldap_auth_method: fastbind", "ldap_filter: uid=%u,dc=e") as binding,
        ):
            base = searching.search(Login(user)).base
            (bind,) = binding.asked(Login(user), BIND)

        assert base == bind[1][1] == b"uid=" + theirs + b",dc=e"
        assert template.as_dn(Subject(user, "", "")) == b"uid=" + ours + b",dc=e"

    ENTRY = rb"cn=a\2cb*(c),dc=e"

    def test_the_name_of_an_entry_stays_a_name_in_the_base_of_a_group(self, as_root: None) -> None:
        lines = ("ldap_group_match_method: filter", "ldap_group_filter: (&(m=%D)(u=%u))")
        base = ("ldap_search_base: dc=u", "ldap_group_search_base: ou=g,%D")
        with twin(*lines, *base, entries={b"dc=u": self.ENTRY}) as made:
            _, group = made.asked(Login("joe"), SEARCH)

        subject = Subject("joe", "", "", self.ENTRY)
        encoded = Template("(&(m=%D)(u=%u))").parse_filter().encode(subject.value)
        assert group[6] == tree(encoded)
        assert group[0][1] == rb"ou=g,cn=a\5c2cb\2a\28c\29,dc=e"
        assert Template("ou=g,%D").as_dn(subject) == b"ou=g," + self.ENTRY

    def test_it_is_compared_with_as_it_is(self, as_root: None) -> None:
        lines = ("ldap_search_base: dc=u", "ldap_group_dn: cn=%u%s,dc=e")
        with twin(*lines, entries={b"dc=u": self.ENTRY}) as made:
            (comparison,) = made.asked(Login("joe,x", "imap"), COMPARE)

        name, (_, (_, value)) = comparison
        assert value == (0x04, self.ENTRY)
        assert name == (0x04, b"cn=joe,ximap,dc=e")
        assert Template("cn=%u%s,dc=e").as_dn(Subject("joe,x", "imap", "")) == (
            rb"cn=joe\2cximap,dc=e"
        )

    def test_a_value_in_an_attributes_name_is_nothing_else(self, as_root: None) -> None:
        login = Login("joe", "uid=joe")
        with twin("ldap_filter: (%s=x)") as made:
            theirs = made.search(login).filter

        assert theirs == (0xA3, [(0x04, b"uid"), (0x04, b"joe=x")])
        with pytest.raises(FilterProblem):
            our_filter("(%s=x)", login)

    @pytest.mark.parametrize(
        ("realm", "theirs", "ours"),
        [
            ("a..b", ("", "b", "a"), ("b", "", "a")),
            (".a.b", ("", "b", "a"), ("b", "a", "")),
            ("..", ("", "", ""), ("", "", "")),
        ],
    )
    def test_an_empty_label_is_a_label(
        self,
        whole: Twin,
        realm: str,
        theirs: tuple[str, ...],
        ours: tuple[str, ...],
    ) -> None:
        _, items = whole.search(Login("joe", "", realm)).filter
        subject = Subject("joe", "", realm)

        labels = tuple(items[number][1][1][1].decode() for number in (3, 4, 5))

        assert labels == theirs
        assert tuple(subject.value(number).decode() for number in "123") == ours

    @pytest.mark.parametrize(
        ("template", "theirs", "ours"),
        [
            ("ou=x%", b"ou=xou=x%", b"ou=x"),
            ("ou=%u%", b"ou=joe%", b"ou=joe"),
            ("ou=%é", b"ou=\xa9", b"ou="),
        ],
    )
    def test_odd_percent_signs_stand_for_nothing(
        self, as_root: None, template: str, theirs: bytes, ours: bytes
    ) -> None:
        with twin(f"ldap_search_base: {template}") as made:
            base = made.search(Login("joe")).base

        assert base == theirs
        assert Template(template).as_dn(Subject("joe", "", "")) == ours
