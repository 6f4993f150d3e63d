r"""Search filters: from text to what LDAP sends (RFC 4515, RFC 4511 section 4.5.1.7).

A filter is parsed once, with holes in it, and the values that fill them go into
what was parsed: no value can become syntax. Laxer than the RFC where libldap
is: the outermost parentheses may be missing, blanks may stand between filters
and behind an opening parenthesis, and a backslash may stand before one of
``()*\`` itself.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pysaslauthd.wire import ber

AND, OR, NOT = 0xA0, 0xA1, 0xA2
COMPARISONS = {"": 0xA3, ">": 0xA5, "<": 0xA6, "~": 0xA8}  # by what stands before the equals sign
SUBSTRINGS, PRESENT, EXTENSIBLE = 0xA4, 0x87, 0xA9
INITIAL, ANY, FINAL = 0x80, 0x81, 0x82
RULE, TYPE, VALUE, DN_TOO = 0x81, 0x82, 0x83, 0x84
DEEPEST = 32  # filters in each other
BLANKS = " \t\r\n"
ANY_ENTRY = ber.encode(PRESENT, b"objectClass")
NOTHING_BETWEEN = "nothing stands between two asterisks"

# Lone surrogates, which stand in no text from outside, stand for what is no syntax.
HOLES, BYTES = 0xD800, 0xDC00
HOLE = re.compile("([\ud800-\ud8ff])")
ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{2})|([()*\\]))")
NAME = r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)"
RULE_NAME = re.compile(NAME)
DESCRIPTION = re.compile(rf"{NAME}(?:;[A-Za-z0-9-]+)*")
ITEM = re.compile(r"([^=<>~:()]+)([<>~]?)=([^()]*)", re.DOTALL)
EXTENSIBLE_ITEM = re.compile(r"([^=<>~:()]*)(:(?i:dn))?(?::([^=<>~:()]+))?:=([^()]*)", re.DOTALL)

Fill = Callable[[str], bytes]
"""Returns the value for the hole of that name."""


class FilterProblem(ValueError):
    """A text that is no filter, or becomes none by its values; the text is safe to show."""


class Filter(Protocol):
    """A filter that has been parsed."""

    def encode(self, fill: Fill, /) -> bytes:
        """Return it as LDAP sends it, its holes filled; FilterProblem where that makes none."""
        ...


def hole(name: str) -> str:
    """Return what stands in a text for a value that is not known yet; *name* is one character."""
    return chr(HOLES + ord(name))


class Text(NamedTuple):
    """A value or an attribute's description: bytes, and the names of the holes between them."""

    parts: tuple[bytes | str, ...]

    def fill(self, fill: Fill) -> bytes:
        """Return it with its holes filled."""
        if len(self.parts) == 1:
            (part,) = self.parts
            return part if isinstance(part, bytes) else fill(part)
        return b"".join(part if isinstance(part, bytes) else fill(part) for part in self.parts)

    def fill_description(self, fill: Fill) -> bytes:
        """Return the description of an attribute that it is; FilterProblem where it is none."""
        filled = self.fill(fill)
        if len(self.parts) > 1 or isinstance(self.parts[0], str):
            _check_name(filled.decode(errors="replace"), DESCRIPTION)
        return filled


class Group(NamedTuple):
    """All of several filters, any of them, or not this one."""

    tag: int
    inner: tuple[Filter, ...]

    def encode(self, fill: Fill, /) -> bytes:
        """Return it as LDAP sends it."""
        return ber.encode(self.tag, b"".join([one.encode(fill) for one in self.inner]))


class Comparison(NamedTuple):
    """An attribute that equals, resembles, is at least or at most a value."""

    tag: int
    attribute: Text
    value: Text

    def encode(self, fill: Fill, /) -> bytes:
        """Return it as LDAP sends it."""
        value = ber.octets(self.value.fill(fill))
        return ber.encode(self.tag, ber.octets(self.attribute.fill_description(fill)) + value)


class Substrings(NamedTuple):
    """An attribute with a value that begins, goes on and ends so; begin and end may be anything."""

    attribute: Text
    pieces: tuple[tuple[int, Text], ...]

    def encode(self, fill: Fill, /) -> bytes:
        """Return it as LDAP sends it; FilterProblem where nothing stands between two asterisks."""
        attribute = self.attribute.fill_description(fill)
        pieces = b"".join(_piece(tag, piece.fill(fill)) for tag, piece in self.pieces)
        if not pieces:
            return ber.encode(PRESENT, attribute)
        return ber.encode(SUBSTRINGS, ber.octets(attribute) + ber.encode(ber.SEQUENCE, pieces))


class Extensible(NamedTuple):
    """A value that fits by a matching *rule*; *dn_too*: one of the entry's name will do."""

    attribute: Text | None
    rule: str
    dn_too: bool
    value: Text

    def encode(self, fill: Fill, /) -> bytes:
        """Return it as LDAP sends it."""
        made = ber.encode(RULE, self.rule.encode()) if self.rule else b""
        if self.attribute is not None:
            made += ber.encode(TYPE, self.attribute.fill_description(fill))
        made += ber.encode(VALUE, self.value.fill(fill))
        return ber.encode(EXTENSIBLE, made + (ber.encode(DN_TOO, b"\xff") if self.dn_too else b""))


def parse(text: str) -> Filter:
    """Return the filter that *text* is; FilterProblem says what is wrong with it."""
    marked = ESCAPE.sub(_mark, text)
    if "\\" in marked:
        raise FilterProblem("a backslash before neither two hexadecimal digits nor one of ()*\\")
    inside = marked.lstrip(BLANKS)
    if not inside.startswith("("):
        return _parse_item(marked)
    found, rest = _parse_filter(inside, DEEPEST)
    if rest:
        raise FilterProblem("there is more behind its last parenthesis")
    return found


def _mark(escape: re.Match[str]) -> str:
    digits, character = escape.groups()
    return chr(BYTES + (int(digits, 16) if digits else ord(character)))


def _parse_filter(text: str, depth: int) -> tuple[Filter, str]:
    """Return the filter at the start of *text*, in parentheses, and what stands behind it."""
    if not depth:
        raise FilterProblem(f"more than {DEEPEST} filters in each other")
    inside = text[1:].lstrip(BLANKS)
    tag = {"&": AND, "|": OR, "!": NOT}.get(inside[:1])
    if tag is None:
        item, closed, rest = inside.partition(")")
        if not closed:
            raise FilterProblem("a closing parenthesis is missing")
        return _parse_item(item), rest.lstrip(BLANKS)
    inner = []
    rest = inside[1:].lstrip(BLANKS)
    while rest.startswith("("):
        one, rest = _parse_filter(rest, depth - 1)
        inner.append(one)
    if not rest:
        raise FilterProblem("a closing parenthesis is missing")
    if not rest.startswith(")"):
        raise FilterProblem("behind & | ! stand filters in parentheses")
    if tag == NOT and len(inner) != 1:
        raise FilterProblem("behind ! stands one filter")
    return Group(tag, tuple(inner)), rest[1:].lstrip(BLANKS)


def _parse_item(text: str) -> Filter:
    if found := EXTENSIBLE_ITEM.fullmatch(text):
        return _parse_extensible(*found.groups(default=""))
    found = ITEM.fullmatch(text)
    if found is None:
        raise FilterProblem("no attribute, operator and value between parentheses")
    attribute = _description(found[1])
    if found[2] or "*" not in found[3]:
        return Comparison(COMPARISONS[found[2]], attribute, _value(found[3]))
    first, *others, last = found[3].split("*")
    if "" in others:
        raise FilterProblem(NOTHING_BETWEEN)
    middle = ((ANY, _text(one)) for one in others)
    return Substrings(attribute, ((INITIAL, _text(first)), *middle, (FINAL, _text(last))))


def _parse_extensible(name: str, dn_too: str, rule: str, value: str) -> Filter:
    if not name and not rule:
        raise FilterProblem("an extensible match has an attribute or a rule")
    if rule:
        _check_name(rule, RULE_NAME)
    attribute = _description(name) if name else None
    return Extensible(attribute, rule, bool(dn_too), _value(value))


def _piece(tag: int, content: bytes) -> bytes:
    if not content and tag == ANY:
        raise FilterProblem(NOTHING_BETWEEN)
    return ber.encode(tag, content) if content else b""


def _value(text: str) -> Text:
    if "*" in text:
        raise FilterProblem("an asterisk where none has a meaning: \\2a stands for itself")
    return _text(text)


def _description(text: str) -> Text:
    found = _text(text)
    if all(isinstance(part, bytes) for part in found.parts):
        _check_name(text, DESCRIPTION)
    return found


def _check_name(text: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(text):
        raise FilterProblem(f"no name of an attribute or rule: {text[:64]!a}")


def _text(marked: str) -> Text:
    pieces = HOLE.split(marked)  # every second one is a hole
    parts = (
        chr(ord(piece) - HOLES) if number % 2 else _unmark(piece)
        for number, piece in enumerate(pieces)
    )
    return Text(tuple(part for part in parts if part) or (b"",))


def _unmark(text: str) -> bytes:
    return b"".join(
        bytes([ord(one) - BYTES]) if BYTES <= ord(one) < BYTES + 0x100 else one.encode()
        for one in text
    )
