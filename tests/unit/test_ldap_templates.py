"""Tokens: what each stands for, and how its value is written into names and filters."""

import pytest

from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.wire.ldap_filter import FilterProblem
from tests.helpers.ber import elements, tree

ANN = Subject("ann@mail.example.org", "imap", "realm.test", b"uid=ann,dc=e")
JOE = Subject("joe", "", "")


def text(template: str, subject: Subject) -> str:
    return Template(template).as_filter_text(subject)


def value(template: str, subject: Subject) -> bytes:
    """Return the value in the filter `(a=TEMPLATE)`."""
    (comparison,) = elements(Template(f"(a={template})").parse_filter().encode(subject.value))
    _, (_, found) = elements(comparison[1])
    return found


@pytest.mark.parametrize(
    ("token", "there", "missing"),
    [
        ("%%", "%", "%"),
        ("%u", "ann@mail.example.org", "joe"),
        ("%U", "ann", "joe"),
        ("%d", "mail.example.org", ""),
        ("%1", "org", ""),
        ("%2", "example", ""),
        ("%3", "mail", ""),
        ("%4", "", ""),
        ("%9", "", ""),
        ("%s", "imap", ""),
        ("%r", "realm.test", ""),
        ("%R", "@realm.test", ""),
        ("%D", "uid=ann,dc=e", ""),
        ("%x", "", ""),
        ("%0", "", ""),
        ("%é", "", ""),
        ("% ", "", ""),
        ("%\n", "", ""),
        ("%", "", ""),
        ("%%u", "%u", "%u"),
        ("%%%u", "%ann@mail.example.org", "%joe"),
        ("%x%u", "ann@mail.example.org", "joe"),
        ("a%u.%sb%", "aann@mail.example.org.imapb", "ajoe.b"),
        ("none", "none", "none"),
    ],
)
def test_each_token_has_its_value(token: str, there: str, missing: str) -> None:
    assert text(token, ANN) == there
    assert text(token, JOE) == missing


@pytest.mark.parametrize(
    ("user", "realm", "parts"),
    [
        pytest.param("joe", "example.org", "joe|||org|example", id="labels-of-the-realm"),
        pytest.param("joe@", "example.org", "joe|||org|example", id="empty-domain"),
        pytest.param("joe@a.b", "example.org", "joe|a.b||b|a", id="domain-before-realm"),
        pytest.param("joe@a@b.c", "", "joe|a@b.c||c|a@b", id="two-at-signs"),
        pytest.param("@a.b", "", "|a.b||b|a", id="no-local-part"),
        pytest.param("joe", "a", "joe|||a|", id="one-label"),
        pytest.param("joe", "", "joe||||", id="no-label"),
        pytest.param("joe", "a..b", "joe|||b|", id="empty-label"),
        pytest.param("joe", "a.b.", "joe||||b", id="dot-at-the-end"),
        pytest.param("joe", "a.b.c.d.e.f.g.h.i.j", "joe||b|j|i", id="more-than-nine"),
    ],
)
def test_a_name_has_parts(user: str, realm: str, parts: str) -> None:
    subject = Subject(user, "", realm)

    assert text("%U|%d|%9|%1|%2", subject) == parts


HOSTILE = [
    pytest.param("a,b", "a,b", r"a\2cb", id="comma"),
    pytest.param("a+b", "a+b", r"a\2bb", id="plus"),
    pytest.param('a"b', 'a"b', r"a\22b", id="quote"),
    pytest.param("a\\b", r"a\5cb", r"a\5cb", id="backslash"),
    pytest.param("a<b>", "a<b>", r"a\3cb\3e", id="angles"),
    pytest.param("a;b", "a;b", r"a\3bb", id="semicolon"),
    pytest.param("a=b", "a=b", r"a\3db", id="equals"),
    pytest.param("#a", "#a", r"\23a", id="hash"),
    pytest.param(" a ", " a ", r"\20a\20", id="blanks"),
    pytest.param("a\0b", r"a\00b", r"a\00b", id="nul"),
    pytest.param("a\nb", r"a\0ab", r"a\0ab", id="line"),
    pytest.param("a\x7f", r"a\7f", r"a\7f", id="delete"),
    pytest.param("*", r"\2a", "*", id="asterisk"),
    pytest.param("a)(b=*", r"a\29\28b=\2a", r"a)(b\3d*", id="parentheses"),
    pytest.param("%u%s", "%u%s", "%u%s", id="tokens"),
    pytest.param("zoë", "zoë", "zoë", id="letters"),
    pytest.param("名", "名", "名", id="other-letters"),
]


@pytest.mark.parametrize(("user", "in_filter", "in_name"), HOSTILE)
class TestHostileValues:
    def test_one_is_escaped_in_a_name(self, user: str, in_filter: str, in_name: str) -> None:
        subject = JOE._replace(user=user)

        assert Template("uid=%u,dc=e").as_dn(subject) == f"uid={in_name},dc=e".encode()

    def test_one_is_as_it_is_in_a_filter(self, user: str, in_filter: str, in_name: str) -> None:
        assert value("<%u>", JOE._replace(user=user)) == f"<{user}>".encode()

    def test_one_is_escaped_in_a_filter_for_people(
        self, user: str, in_filter: str, in_name: str
    ) -> None:
        assert text("(uid=%u)", JOE._replace(user=user)) == f"(uid={in_filter})"


@pytest.mark.parametrize("letter", "uUdsrR123456789")
def test_every_value_is_escaped_in_a_name(letter: str) -> None:
    domain = ".".join(["a,b"] * 9)
    subject = Subject(f"a,b@{domain}", "a,b", "a,b")

    made = Template(f"x=%{letter}").as_dn(subject)

    assert b"\\2c" in made
    assert b"," not in made


class TestTheUsersName:
    NAME = rb"cn=a\2cb+sn=c,dc=e"

    def test_it_stands_in_a_name_as_it_is(self) -> None:
        subject = JOE._replace(dn=self.NAME)

        assert Template("cn=x,%D").as_dn(subject) == b"cn=x," + self.NAME

    def test_it_is_a_value_in_a_filter(self) -> None:
        assert value("%D", JOE._replace(dn=self.NAME)) == self.NAME

    def test_it_may_be_any_bytes(self) -> None:
        subject = JOE._replace(dn=b"cn=\xff\xc3")

        assert Template("%D,dc=e").as_dn(subject) == b"cn=\xff\xc3,dc=e"
        assert value("%D", subject) == b"cn=\xff\xc3"
        assert text("%D", subject) == "cn=\\xff\\xc3"


def test_a_template_without_tokens_is_a_name_as_it_stands() -> None:
    assert Template(r"cn=a\, b,dc=é").as_dn(ANN) == r"cn=a\, b,dc=é".encode()


def test_percent_signs_may_stand_in_a_name() -> None:
    assert Template("cn=100%%,ou=%s").as_dn(ANN) == b"cn=100%,ou=imap"


@pytest.mark.parametrize(
    ("template", "tokens"),
    [
        ("ou=people", set()),
        ("100%%", set()),
        ("%x%", set()),
        ("(&(uid=%u)(x=%1)(y=%u))", {"u", "1"}),
    ],
)
def test_a_template_knows_its_tokens(template: str, tokens: set[str]) -> None:
    assert Template(template).tokens == tokens


def test_a_value_may_be_an_attributes_description() -> None:
    made = Template("(%s=x)").parse_filter().encode(ANN.value)

    assert tree(made) == (0xA3, [(0x04, b"imap"), (0x04, b"x")])


@pytest.mark.parametrize("service", ["", "*", "imap)(uid", "im ap", "imap:dn"])
def test_a_value_that_is_no_description_makes_no_filter(service: str) -> None:
    subject = JOE._replace(service=service)

    with pytest.raises(FilterProblem):
        Template("(%s=x)").parse_filter().encode(subject.value)


@pytest.mark.parametrize("template", ["(uid=%u", "uid", "(uid=\\%u)", "(a:%s:=x)", "%u"])
def test_a_template_that_is_no_filter_is_refused(template: str) -> None:
    with pytest.raises(FilterProblem):
        Template(template).parse_filter()
