"""SASLprep (RFC 4013): one spelling for what looks or is typed the same.

The tables are those of Unicode 3.2, as the RFC has it: Python keeps them for
this (`stringprep`). What SASLprep refuses is told without saying what it was,
for it may be part of a password.
"""

import stringprep
import unicodedata

# RFC 4013 section 2.3, without the spaces of table C.1.2: the mapping leaves none.
PROHIBITED = (
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # non-characters
    stringprep.in_table_c5,  # surrogates
    stringprep.in_table_c6,  # inappropriate for plain text
    stringprep.in_table_c7,  # inappropriate for canonical representation
    stringprep.in_table_c8,  # change display properties, or deprecated
    stringprep.in_table_c9,  # tagging
)


class NotPreparable(ValueError):
    """SASLprep refuses a string; the text says why, is safe to log, and fits behind "it"."""


def prepare_stored(text: str) -> str:
    """Return *text* as it is kept, or enters what is kept; NotPreparable where it must not be.

    Characters that Unicode 3.2 does not know are refused: a later version may
    give them another spelling (RFC 3454 section 7).
    """
    prepared = prepare_query(text)
    if any(map(stringprep.in_table_a1, prepared)):
        raise NotPreparable("has a character that Unicode 3.2 does not know")
    return prepared


def prepare_query(text: str) -> str:
    """Return *text* as it is looked for among what is kept; NotPreparable where it cannot be.

    Characters that Unicode 3.2 does not know stay as they are, and match
    nothing that was prepared to be kept.
    """
    mapped = "".join(map(_mapped, text))
    normalised = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(in_table(character) for character in normalised for in_table in PROHIBITED):
        raise NotPreparable("has a character that SASLprep prohibits")
    _check_direction(normalised)
    return normalised


def _mapped(character: str) -> str:
    """Return what *character* is mapped to (RFC 4013 section 2.1)."""
    if stringprep.in_table_c12(character):
        return " "
    return "" if stringprep.in_table_b1(character) else character


def _check_direction(text: str) -> None:
    """Refuse what two readers may read in two orders (RFC 3454 section 6)."""
    from_right = [stringprep.in_table_d1(character) for character in text]
    if not any(from_right):
        return
    if any(map(stringprep.in_table_d2, text)):
        raise NotPreparable("mixes writing from the right with writing from the left")
    if not (from_right[0] and from_right[-1]):
        raise NotPreparable("is written from the right, but not at both ends")
