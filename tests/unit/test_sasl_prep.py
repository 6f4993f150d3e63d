from collections.abc import Callable

import pytest

from pysaslauthd.sasl.prep import NotPreparable, prepare_query, prepare_stored

Prepare = Callable[[str], str]

PROHIBITED = "has a character that SASLprep prohibits"

either = pytest.mark.parametrize("prepare", [prepare_query, prepare_stored])


@either
@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        pytest.param("I\u00adX", "IX", id="rfc-4013-1-soft-hyphen"),
        pytest.param("user", "user", id="rfc-4013-2-nothing-to-do"),
        pytest.param("USER", "USER", id="rfc-4013-3-case-is-kept"),
        pytest.param("\u00aa", "a", id="rfc-4013-4-compatibility"),
        pytest.param("\u2168", "IX", id="rfc-4013-5-compatibility"),
        pytest.param("", "", id="nothing"),
        pytest.param("\u00ad", "", id="nothing-left"),
        pytest.param("a b", "a b", id="space"),
        pytest.param("a\u00a0b\u3000c", "a b c", id="spaces-beyond-ascii"),
        pytest.param("a\u200bb", "a b", id="zero-width-space-is-a-space"),
        pytest.param("e\u0301", "é", id="composition"),
        pytest.param("\u212b", "Å", id="singleton"),
        pytest.param("\ufb01", "fi", id="ligature"),
        pytest.param("ß", "ß", id="no-case-folding"),
        pytest.param("\u0627", "\u0627", id="one-letter-from-the-right"),
        pytest.param("\u06271\u0628", "\u06271\u0628", id="a-digit-between-letters-from-the-right"),
        pytest.param("1\u0301", "1\u0301", id="mark-without-a-composition"),
    ],
)
def test_a_string_is_prepared(prepare: Prepare, text: str, prepared: str) -> None:
    assert prepare(text) == prepared


@either
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("\u0007", PROHIBITED, id="rfc-4013-6-control-character"),
        pytest.param(
            "\u06271", "is written from the right, but not at both ends", id="rfc-4013-7-digit-last"
        ),
        pytest.param(
            "1\u0627", "is written from the right, but not at both ends", id="digit-first"
        ),
        pytest.param(
            "\u0627a\u0628", "mixes writing from the right with writing from the left", id="mixture"
        ),
        pytest.param("a\0", PROHIBITED, id="nul"),
        pytest.param("a\x7f", PROHIBITED, id="delete"),
        pytest.param("a\u0085", PROHIBITED, id="control-character-beyond-ascii"),
        pytest.param("\ue000", PROHIBITED, id="private-use"),
        pytest.param("\U0010fffd", PROHIBITED, id="private-use-plane"),
        pytest.param("\ufffe", PROHIBITED, id="no-character"),
        pytest.param("\udce9", PROHIBITED, id="surrogate"),
        pytest.param("\ufffd", PROHIBITED, id="replacement-character"),
        pytest.param("\u2ff0", PROHIBITED, id="ideographic-description"),
        pytest.param("\u200e", PROHIBITED, id="left-to-right-mark"),
        pytest.param("\U000e0041", PROHIBITED, id="tag"),
    ],
)
def test_a_string_is_refused(prepare: Prepare, text: str, problem: str) -> None:
    with pytest.raises(NotPreparable, match=f"^{problem}$"):
        prepare(text)


@pytest.mark.parametrize("text", ["\u0221", "\U0001f600", "a\u20bf"], ids=["d", "smile", "bitcoin"])
def test_what_unicode_has_added_is_looked_for_but_not_kept(text: str) -> None:
    assert prepare_query(text) == text
    with pytest.raises(NotPreparable, match=r"^has a character that Unicode 3\.2 does not know$"):
        prepare_stored(text)
