"""The form of `-a httpform`, and what is shown of an answer's words."""

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.wire.form import LONGEST_PHRASE, Form, encode, presentable

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS = b"0123456789"
SECRET = Secret("h&nter ä+2%".encode())


@pytest.mark.parametrize("byte", LETTERS + DIGITS, ids=chr)
def test_letters_and_digits_stay(byte: int) -> None:
    assert encode(bytes([byte])) == bytes([byte])


@pytest.mark.parametrize(
    "byte", sorted(set(range(256)) - set(LETTERS + DIGITS)), ids="{:02x}".format
)
def test_every_other_byte_becomes_its_number_in_upper_case(byte: int) -> None:
    assert encode(bytes([byte])) == f"%{byte:02X}".encode()


def test_bytes_are_encoded_and_not_characters() -> None:
    assert encode("ä €".encode()) == b"%C3%A4%20%E2%82%AC"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        pytest.param(
            "user=%u&password=%p&realm=%r", b"user=j%2Ej&password=p%26w&realm=r", id="all"
        ),
        pytest.param("%u%u", b"j%2Ejj%2Ej", id="twice"),
        pytest.param("a=b", b"a=b", id="none"),
        pytest.param("", b"", id="empty"),
        pytest.param("%%u%%%u", b"%u%j%2Ej", id="percent-signs"),
        pytest.param("%U %s %\u00e4", "%U %s %ä".encode(), id="unknown-tokens"),
        pytest.param("100%", b"100%", id="percent-sign-at-the-end"),
        pytest.param('{"n": "%u"}\r\n', b'{"n": "j%2Ej"}\r\n', id="no-form-at-all"),
    ],
)
def test_tokens_are_replaced_and_the_rest_stays(template: str, form: bytes) -> None:
    assert Form(template).fill("j.j", b"p&w", "r") == form


def test_a_value_that_looks_like_a_token_is_none() -> None:
    assert Form("%u&%p&%r").fill("%p", b"%r", "%u") == b"%25p&%25r&%25u"


def test_no_realm_is_an_empty_one() -> None:
    assert Form("realm=%r").fill("joe", b"pw", "") == b"realm="


def test_a_long_form_is_not_cut() -> None:
    assert Form("p=%p").fill("joe", b"&" * 8192, "") == b"p=" + b"%26" * 8192


@pytest.mark.parametrize(
    ("phrase", "shown"),
    [
        pytest.param(b"User unknown", "User unknown", id="plain"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"  gone  ", "gone", id="blanks-around"),
        pytest.param("Zugriff verwehrt, Jürgen".encode(), "Zugriff verwehrt, Jürgen", id="utf8"),
        pytest.param(b"J\xfcrgen", "J\ufffdrgen", id="not-utf8"),
        pytest.param(b"a\x1b[2Jb\tc\x7f", "a?[2Jb?c?", id="control-characters"),
        pytest.param("a\u202eb".encode(), "a?b", id="other-direction"),
        pytest.param(b"x" * 9999, "x" * LONGEST_PHRASE, id="long"),
    ],
)
def test_a_phrase_is_made_fit_to_be_shown(phrase: bytes, shown: str) -> None:
    assert presentable(phrase, SECRET) == shown


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param("h&nter ä+2%", id="plain"),
        pytest.param("h%26nter%20%C3%A4%2B2%25", id="as-it-was-sent"),
        pytest.param("h%26nter%20%c3%a4%2b2%25", id="lower-case"),
        pytest.param("h%26nter+%C3%A4%2B2%25", id="plus-for-a-blank"),
        pytest.param("h&nter%20%C3%A4+2%25", id="as-browsers-encode-a-link"),
        pytest.param("h%26nter%20%E4%2B2%25", id="encoded-in-latin-1"),
    ],
)
def test_a_phrase_that_repeats_the_password_is_not_shown(echo: str) -> None:
    assert presentable(f"no {echo}!".encode(), SECRET) == ""
    assert presentable(f"no {echo}!".encode("latin-1"), SECRET) == ""


def test_a_password_in_latin_1_that_is_repeated_in_utf8_is_not_shown() -> None:
    assert presentable("no pässword".encode(), Secret(b"p\xe4ssword")) == ""


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(b"h&nter \xc3\xa4+2", id="cut"),
        pytest.param(b"user=joe&password=h%26nter%20%C3", id="cut-as-it-was-sent"),
        pytest.param(b"H&NTER", id="upper-case"),
    ],
)
def test_a_phrase_that_repeats_some_of_the_password_is_not_shown(echo: bytes) -> None:
    assert presentable(b"no " + echo, SECRET) == ""


def test_a_phrase_is_looked_at_before_it_is_cut() -> None:
    phrase = b"x" * (LONGEST_PHRASE - 2) + b"h&nter \xc3\xa4+2%"

    assert presentable(phrase, SECRET) == ""
