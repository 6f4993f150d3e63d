"""Search filters: texts and their bytes (RFC 4515 section 4, RFC 4526), holes, and what is none."""

from collections.abc import Callable

import pytest

from pysaslauthd.wire.ldap_filter import (
    ANY_ENTRY,
    DEEPEST,
    Fill,
    FilterProblem,
    hole,
    parse,
)
from tests.helpers.ber import Tree, tree
from tests.helpers.filters import (
    AND,
    ANY,
    AT_LEAST,
    EXTENSIBLE,
    FINAL,
    INITIAL,
    NOT,
    ONLY_OURS,
    OR,
    PRESENT,
    RFC_4515,
    RULE,
    TEXTS,
    TYPE,
    VALUE,
    compared,
    equal,
    substrings,
)


def no_holes(name: str) -> bytes:
    raise AssertionError(f"a hole {name!r} where there is none")


def parsed(text: str, fill: Fill = no_holes) -> Tree:
    return tree(parse(text).encode(fill))


@pytest.mark.parametrize(("text", "encoded"), RFC_4515 + TEXTS + ONLY_OURS)
def test_a_text_is_a_filter(text: str, encoded: Tree) -> None:
    assert parsed(text) == encoded


def test_a_filter_may_be_long() -> None:
    value = "x" * 300

    assert parsed(f"(|(a={value})(b=c))") == (OR, [equal(b"a", value.encode()), equal(b"b", b"c")])


def test_what_every_entry_fits_is_a_filter() -> None:
    assert tree(ANY_ENTRY) == (PRESENT, b"objectClass")


NO_ITEM = "no attribute, operator and value between parentheses"
NO_NAME = "no name of an attribute or rule: "
UNCLOSED = "a closing parenthesis is missing"
MORE = "there is more behind its last parenthesis"
NO_FILTERS = "behind & | ! stand filters in parentheses"
ONE_FILTER = "behind ! stands one filter"
BACKSLASH = "a backslash before neither two hexadecimal digits nor one of ()*\\"
ASTERISK = "an asterisk where none has a meaning: \\2a stands for itself"
BETWEEN = "nothing stands between two asterisks"
NOTHING_MATCHED = "an extensible match has an attribute or a rule"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", NO_ITEM),
        (" ", NO_ITEM),
        ("()", NO_ITEM),
        ("(a)", NO_ITEM),
        ("(=a)", NO_ITEM),
        ("(a>b)", NO_ITEM),
        ("(a:b=c)", NO_ITEM),
        ("(a::=c)", NO_ITEM),
        ("((a=b))", NO_ITEM),
        ("(a=(b)", NO_ITEM),
        ("a=b)", NO_ITEM),
        ("(a", UNCLOSED),
        ("(a=b", UNCLOSED),
        ("(&(a=b)", UNCLOSED),
        ("(&(a=b", UNCLOSED),
        (r"(a=b\)", UNCLOSED),
        ("(a=b))", MORE),
        ("(a=b)(c=d)", MORE),
        ("(a=b) x", MORE),
        ("(a=b))(", MORE),
        ("(&a=b)", NO_FILTERS),
        ("(&(a=b)c)", NO_FILTERS),
        ("(!a=b)", NO_FILTERS),
        ("(&&(a=b))", NO_FILTERS),
        ("(!)", ONE_FILTER),
        ("(!(a=b)(c=d))", ONE_FILTER),
        (r"(a=\zz)", BACKSLASH),
        (r"(a=\2)", BACKSLASH),
        (r"(a=\a)", BACKSLASH),
        ("(a=\\", BACKSLASH),
        ("(a>=x*)", ASTERISK),
        ("(a~=*)", ASTERISK),
        ("(a:r:=x*)", ASTERISK),
        ("(a=**)", BETWEEN),
        ("(a=x**y)", BETWEEN),
        ("(:=a)", NOTHING_MATCHED),
        ("(:dn:=a)", NOTHING_MATCHED),
        ("(a b=c)", NO_NAME + "'a b'"),
        ("(a =c)", NO_NAME + "'a '"),
        ("(a_b=c)", NO_NAME + "'a_b'"),
        ("(-a=c)", NO_NAME + "'-a'"),
        ("(a;=c)", NO_NAME + "'a;'"),
        ("(1.=c)", NO_NAME + "'1.'"),
        ("(1a=c)", NO_NAME + "'1a'"),
        ("(ä=c)", NO_NAME + r"'\xe4'"),
        ("(a\n=c)", NO_NAME + r"'a\n'"),
        (r"(\61=c)", NO_NAME + r"'\udc61'"),
        ("(a:r_s:=c)", NO_NAME + "'r_s'"),
        ("(a:r;x:=c)", NO_NAME + "'r;x'"),
        ("(" + "x" * 99 + "_=c)", NO_NAME + repr("x" * 64)),
    ],
)
def test_a_text_that_is_no_filter_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(FilterProblem) as refused:
        parse(text)

    assert str(refused.value) == problem


def test_filters_may_stand_in_each_other() -> None:
    text = "(!" * (DEEPEST - 1) + "(a=b)" + ")" * (DEEPEST - 1)

    assert parsed(text)[0] == NOT


@pytest.mark.parametrize("deep", [DEEPEST, 100_000])
def test_too_many_in_each_other_are_refused(deep: int) -> None:
    with pytest.raises(FilterProblem, match="more than 32 filters in each other"):
        parse("(!" * deep + "(a=b)" + ")" * deep)


def filled(value: bytes) -> Callable[[str], bytes]:
    return lambda name: {"u": value, "e": b""}[name]


U, E = hole("u"), hole("e")


class TestHoles:
    @pytest.mark.parametrize(
        ("text", "encoded"),
        [
            pytest.param(f"(a={U})", equal(b"a", b"V"), id="value"),
            pytest.param(f"(a=x{U}y{U})", equal(b"a", b"xVyV"), id="parts-of-a-value"),
            pytest.param(f"(a={U}{U})", equal(b"a", b"VV"), id="side-by-side"),
            pytest.param(f"(a={E})", equal(b"a", b""), id="empty"),
            pytest.param(rf"(a=\28{U}\29)", equal(b"a", b"(V)"), id="between-escapes"),
            pytest.param(f"(a>={U})", compared(AT_LEAST, b"a", b"V"), id="at-least"),
            pytest.param(f"({U}=b)", equal(b"V", b"b"), id="description"),
            pytest.param(f"({U};x=b)", equal(b"V;x", b"b"), id="part-of-a-description"),
            pytest.param(f"({U}=*)", (PRESENT, b"V"), id="present"),
            pytest.param(f"(a={U}*)", substrings(b"a", (INITIAL, b"V")), id="initial"),
            pytest.param(f"(a=*{U}*)", substrings(b"a", (ANY, b"V")), id="any"),
            pytest.param(f"(a=*{U})", substrings(b"a", (FINAL, b"V")), id="final"),
            pytest.param(f"(a={E}*x)", substrings(b"a", (FINAL, b"x")), id="empty-initial"),
            pytest.param(f"(a=x*{E})", substrings(b"a", (INITIAL, b"x")), id="empty-final"),
            pytest.param(f"(a=*{E})", (PRESENT, b"a"), id="nothing-but-an-asterisk"),
            pytest.param(
                f"({U}:r:={U})",
                (EXTENSIBLE, [(RULE, b"r"), (TYPE, b"V"), (VALUE, b"V")]),
                id="extensible",
            ),
        ],
    )
    def test_a_value_goes_into_one(self, text: str, encoded: Tree) -> None:
        assert parsed(text, filled(b"V")) == encoded

    @pytest.mark.parametrize(
        "value",
        [b"*", b"(", b")", b"\\", b"\\2a", b")(uid=*", b"*)(|(a=*", b"\0", b"\xff", b"%u", b"\n"],
        ids=repr,
    )
    def test_no_value_is_syntax(self, value: bytes) -> None:
        text = f"(&(a={U})(b=x*{U}*y)(c:r:={U}))"

        assert parsed(text, filled(value)) == (
            AND,
            [
                equal(b"a", value),
                substrings(b"b", (INITIAL, b"x"), (ANY, value), (FINAL, b"y")),
                (EXTENSIBLE, [(RULE, b"r"), (TYPE, b"c"), (VALUE, value)]),
            ],
        )

    def test_a_filter_can_be_filled_again(self) -> None:
        subject = parse(f"(a={U})")
        subject.encode(filled(b"one"))

        assert tree(subject.encode(filled(b"two"))) == equal(b"a", b"two")

    @pytest.mark.parametrize(
        "value", [b"", b"*", b"a=b)(c", b"a b", b"a:dn", b"\xff", b"a\n", b"1.", "ä".encode()]
    )
    @pytest.mark.parametrize("text", ["({}=x)", "({}=*)", "({}=x*y)", "({}:=x)", "({}>=x)"])
    def test_a_value_that_is_no_description_makes_no_filter(self, text: str, value: bytes) -> None:
        subject = parse(text.format(U))

        with pytest.raises(FilterProblem, match=NO_NAME):
            subject.encode(filled(value))

    @pytest.mark.parametrize("text", [f"(x{U}=b)", f"(x{E}{U}=b)"])
    def test_nor_does_one_that_makes_no_description_with_the_rest(self, text: str) -> None:
        subject = parse(text)

        with pytest.raises(FilterProblem, match=NO_NAME):
            subject.encode(filled(b" y"))

    def test_nothing_between_two_asterisks_makes_no_filter(self) -> None:
        subject = parse(f"(a=*{U}*)")

        with pytest.raises(FilterProblem, match=BETWEEN):
            subject.encode(filled(b""))

    @pytest.mark.parametrize("text", [rf"(a=\{U})", rf"(a=\2{U})"])
    def test_a_value_is_no_part_of_an_escape(self, text: str) -> None:
        with pytest.raises(FilterProblem, match="a backslash before neither"):
            parse(text)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            pytest.param(U, NO_ITEM, id="filter-without-parentheses"),
            pytest.param(f"({U})", NO_ITEM, id="filter"),
            pytest.param(f"(&{U}(a=b))", NO_FILTERS, id="one-of-several"),
            pytest.param(f"({U}(a=b))", NO_ITEM, id="operator"),
            pytest.param(f"(a{U}b)", NO_ITEM, id="equals-sign"),
            pytest.param(f"(a:{U}:=b)", NO_NAME, id="rule"),
        ],
    )
    def test_a_value_is_nothing_else(self, text: str, problem: str) -> None:
        with pytest.raises(FilterProblem, match=problem):
            parse(text)
