"""What must hold of the form of `-a httpform` for whatever names and passwords."""

import re
from urllib.parse import parse_qsl, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.model import Secret
from pysaslauthd.wire.form import Form, encode, presentable

names = st.text(st.characters(codec="utf-8"), max_size=40)
# Mostly what would matter in a form.
passwords = st.binary(max_size=40) | st.text("%&=+;#? \r\n\0aup25", max_size=20).map(str.encode)


@given(names, passwords, names)
def test_a_parser_of_forms_finds_the_three_values(user: str, password: bytes, realm: str) -> None:
    form = Form("user=%u&password=%p&realm=%r&last=1").fill(user, password, realm)

    found = parse_qsl(
        form.decode(), keep_blank_values=True, strict_parsing=True, encoding="latin-1"
    )

    assert [(name, value.encode("latin-1")) for name, value in found] == [
        ("user", user.encode()),
        ("password", password),
        ("realm", realm.encode()),
        ("last", b"1"),
    ]


@given(names, passwords, names)
def test_nothing_gets_out_of_its_place(user: str, password: bytes, realm: str) -> None:
    before, *values, after = Form("<|%u|%p|%r|>").fill(user, password, realm).split(b"|")

    assert (before, after) == (b"<", b">")
    assert [unquote_to_bytes(value) for value in values] == [
        user.encode(),
        password,
        realm.encode(),
    ]


@given(st.text(st.characters(codec="utf-8", exclude_characters="%")), names, passwords)
def test_a_template_without_tokens_is_the_form(template: str, user: str, password: bytes) -> None:
    assert Form(template).fill(user, password, "") == template.encode()


@given(st.binary(), passwords.filter(bool), st.binary())
def test_no_phrase_shows_a_password(before: bytes, password: bytes, after: bytes) -> None:
    encoded = encode(password)
    lower = re.sub(b"%..", lambda found: found[0].lower(), encoded)

    for echo in (password, encoded, lower):
        assert presentable(before + b" " + echo + b" " + after, Secret(password)) == ""


@given(st.binary())
def test_any_phrase_can_be_shown(phrase: bytes) -> None:
    assert presentable(phrase, Secret(b"a password that is long enough")).isprintable()
