"""LDAP: what must hold for any bytes of a server, and any values in a template."""

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.wire import ber, ldap
from pysaslauthd.wire.ldap import Decoder, Received, SearchRules
from pysaslauthd.wire.ldap_filter import FilterProblem, parse
from tests.helpers.ber import Tree, tree, trees

TAGS = [0x01, 0x02, 0x04, 0x0A, 0x30, 0x31, 0x61, 0x64, 0x65, 0x6F, 0x73, 0x78, 0x79]
TAGS += [0x80, 0x81, 0x87, 0x8A, 0x8B, 0xA0, 0xA3]
SAID_BY_POLICY = (b"1.3.6.1.4.1.42.2.27.8.5.1", b"\x30\x03\x81\x01\x01")

small = st.integers(0, 300)
numbers = st.integers(0, 0x7FFFFFFF)
octets = st.binary(max_size=20)
names = st.text(st.characters(codec="utf-8"), max_size=12)


def element(tag: int, *inside: bytes) -> bytes:
    """Return an element with a length in the long form, as some servers write it."""
    content = b"".join(inside)
    return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content


def whatever(leaves: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return elements of tags that LDAP has, in each other in ways that it has not."""
    inside = st.lists(leaves, max_size=5)
    return st.builds(lambda tag, parts: element(tag, *parts), st.sampled_from(TAGS), inside)


leaf = st.builds(lambda tag, data: element(tag, data), st.sampled_from(TAGS), octets)
anything = st.recursive(leaf, whatever, max_leaves=12)
nearly_messages = st.builds(
    lambda number, rest: element(0x30, ber.integer(number), *rest), small, st.lists(anything)
)
results = st.builds(
    lambda number, kind, code, name, said, policy: element(
        0x30,
        ber.integer(number),
        element(kind, ber.integer(code, 0x0A), ber.octets(name), ber.octets(said)),
        element(0xA0, element(0x30, *map(ber.octets, SAID_BY_POLICY))) if policy else b"",
    ),
    numbers,
    st.sampled_from([0x61, 0x65, 0x6F, 0x78]),
    small,
    octets,
    octets,
    st.booleans(),
)
entries = st.builds(
    lambda number, name, attributes: element(
        0x30,
        ber.integer(number),
        element(
            0x64,
            ber.octets(name),
            element(
                0x30,
                *(
                    element(0x30, ber.octets(key), element(0x31, *map(ber.octets, values)))
                    for key, values in attributes.items()
                ),
            ),
        ),
    ),
    numbers,
    octets,
    st.dictionaries(octets, st.lists(octets, max_size=3), max_size=3),
)
streams = st.lists(results | entries, max_size=4).map(b"".join)


def outcome(pieces: Iterable[bytes]) -> tuple[list[Received], str]:
    """Return what a decoder makes of *pieces*, and what it calls malformed."""
    decoder = Decoder()
    found: list[Received] = []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
    except MalformedMessage as problem:
        return found, str(problem)
    return found, ""


def cut(data: bytes, places: Iterable[int]) -> Iterable[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[start:end] for start, end in itertools.pairwise(bounds))


@given(st.binary(max_size=60) | nearly_messages | streams)
def test_no_bytes_raise_anything_but_a_malformed_message(data: bytes) -> None:
    outcome([data])


@given(streams, st.lists(st.integers(0, 5000), max_size=12))
def test_messages_cut_anywhere_are_the_same(data: bytes, places: list[int]) -> None:
    whole, problem = outcome([data])

    assert outcome(cut(data, places)) == (whole, problem) == (whole, "")


@given(streams, st.integers(0, 5000), st.integers(1, 255), st.lists(st.integers(0, 5000)))
def test_a_changed_byte_is_judged_alike_however_it_comes(
    data: bytes, place: int, change: int, places: list[int]
) -> None:
    changed = bytearray(data)
    if changed:
        changed[place % len(changed)] ^= change

    whole, problem = outcome([bytes(changed)])
    found, same_problem = outcome(cut(bytes(changed), places))

    assert same_problem == problem
    assert found[: len(whole)] == whole  # of what is malformed further on, a part may come before


@given(numbers, octets, octets.filter(bool))
def test_a_bind_can_be_read(number: int, name: bytes, password: bytes) -> None:
    dn = b"x" + name
    made = ldap.message(number, ldap.simple_bind(dn, password), ldap.PASSWORD_POLICY_REQUEST)

    assert tree(made) == (
        0x30,
        [
            (0x02, ber.integer(number)[2:]),
            (0x60, [(0x02, b"\3"), (0x04, dn), (0x80, password)]),
            (0xA0, [(0x30, [(0x04, SAID_BY_POLICY[0])])]),
        ],
    )


@given(octets, st.sampled_from(sorted(ldap.SCOPES)), numbers, numbers, st.lists(octets, max_size=3))
def test_a_search_can_be_read(
    base: bytes, scope: str, size: int, seconds: int, wanted: list[bytes]
) -> None:
    rules = SearchRules(scope, "find", size, seconds)

    made = ldap.search(base, rules, parse("(a=b)").encode(lambda _: b""), tuple(wanted))

    _, fields = tree(made)
    assert [tag for tag, _ in fields] == [0x04, 0x0A, 0x0A, 0x02, 0x02, 0x01, 0xA3, 0x30]
    assert fields[0] == (0x04, base)
    assert fields[1:3] == [(0x0A, bytes([ldap.SCOPES[scope]])), (0x0A, b"\2")]
    assert [int.from_bytes(number, "big") for _, number in fields[3:5]] == [size, seconds]
    assert fields[7] == (0x30, [(0x04, one) for one in wanted])


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_a_comparison_can_be_read(dn: bytes, attribute: bytes, value: bytes) -> None:
    made = ldap.compare(dn, attribute, value)

    assert tree(made) == (0x6E, [(0x04, dn), (0x30, [(0x04, attribute), (0x04, value)])])


@given(st.text(st.sampled_from("(&|!)=*\\<>~: ;.ab1\n\ud875\ud844"), max_size=12) | st.text())
def test_no_text_raises_anything_but_a_filter_problem(text: str) -> None:
    try:
        encoded = parse(text).encode(lambda name: name.encode())
    except FilterProblem:
        return
    assert len(trees(encoded)) == 1


TEMPLATE = Template("(&(uid=%u)(|(mail=*%U*)(x>=%d)(y=%1%%%2)(z:r:=%s%R))(!(m=%D))(n=a*%r*b))")
FILTER = TEMPLATE.parse_filter()


def equal(attribute: bytes, value: bytes, tag: int = 0xA3) -> Tree:
    return (tag, [(0x04, attribute), (0x04, value)])


@given(names.filter(lambda name: name.partition("@")[0] != ""), names, names.filter(bool), octets)
def test_any_values_in_a_filter_come_back_as_values(
    user: str, service: str, realm: str, dn: bytes
) -> None:
    local, _, domain = user.partition("@")
    first, second = ([*reversed((domain or realm).split(".")), ""])[:2]

    made = tree(FILTER.encode(Subject(user, service, realm, dn).value))

    assert made == (
        0xA0,
        [
            equal(b"uid", user.encode()),
            (
                0xA1,
                [
                    (0xA4, [(0x04, b"mail"), (0x30, [(0x81, local.encode())])]),
                    equal(b"x", domain.encode(), 0xA5),
                    equal(b"y", f"{first}%{second}".encode()),
                    (
                        0xA9,
                        [(0x81, b"r"), (0x82, b"z"), (0x83, f"{service}@{realm}".encode())],
                    ),
                ],
            ),
            (0xA2, [equal(b"m", dn)]),
            (
                0xA4,
                [(0x04, b"n"), (0x30, [(0x80, b"a"), (0x81, realm.encode()), (0x82, b"b")])],
            ),
        ],
    )


@given(names, names, names)
def test_a_filter_for_people_is_the_same_filter(user: str, service: str, realm: str) -> None:
    subject = Subject(user, service, realm)
    template = Template("(&(uid=%u)(|(x>=%d)(y=%1%%%2)(z:r:=%s%R))(!(m=%U))(n=a*%r))")

    text = template.as_filter_text(subject)

    assert parse(text).encode(lambda _: b"") == template.parse_filter().encode(subject.value)
