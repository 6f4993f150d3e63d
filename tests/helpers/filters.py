"""Search filters as texts, and what they are in BER: RFC 4515 section 4, RFC 4526, and more."""

from tests.helpers.ber import Tree

AND, OR, NOT = 0xA0, 0xA1, 0xA2
EQUAL, SUBSTRINGS, AT_LEAST, AT_MOST = 0xA3, 0xA4, 0xA5, 0xA6
PRESENT, LIKE, EXTENSIBLE = 0x87, 0xA8, 0xA9
INITIAL, ANY, FINAL = 0x80, 0x81, 0x82
RULE, TYPE, VALUE, DN_TOO = 0x81, 0x82, 0x83, (0x84, b"\xff")


def octets(text: bytes) -> Tree:
    return (0x04, text)


def compared(tag: int, attribute: bytes, value: bytes) -> Tree:
    return (tag, [octets(attribute), octets(value)])


def equal(attribute: bytes, value: bytes) -> Tree:
    return compared(EQUAL, attribute, value)


def substrings(attribute: bytes, *pieces: Tree) -> Tree:
    return (SUBSTRINGS, [octets(attribute), (0x30, list(pieces))])


BABS = equal(b"cn", b"Babs Jensen")
RFC_4515: list[tuple[str, Tree]] = [
    ("(cn=Babs Jensen)", BABS),
    ("(!(cn=Tim Howes))", (NOT, [equal(b"cn", b"Tim Howes")])),
    (
        "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
        (
            AND,
            [
                equal(b"objectClass", b"Person"),
                (OR, [equal(b"sn", b"Jensen"), substrings(b"cn", (INITIAL, b"Babs J"))]),
            ],
        ),
    ),
    ("(o=univ*of*mich*)", substrings(b"o", (INITIAL, b"univ"), (ANY, b"of"), (ANY, b"mich"))),
    ("(seeAlso=)", equal(b"seeAlso", b"")),
    (
        "(cn:caseExactMatch:=Fred Flintstone)",
        (EXTENSIBLE, [(RULE, b"caseExactMatch"), (TYPE, b"cn"), (VALUE, b"Fred Flintstone")]),
    ),
    ("(cn:=Betty Rubble)", (EXTENSIBLE, [(TYPE, b"cn"), (VALUE, b"Betty Rubble")])),
    (
        "(sn:dn:2.4.6.8.10:=Barney Rubble)",
        (EXTENSIBLE, [(RULE, b"2.4.6.8.10"), (TYPE, b"sn"), (VALUE, b"Barney Rubble"), DN_TOO]),
    ),
    ("(o:dn:=Ace Industry)", (EXTENSIBLE, [(TYPE, b"o"), (VALUE, b"Ace Industry"), DN_TOO])),
    ("(:1.2.3:=Wilma Flintstone)", (EXTENSIBLE, [(RULE, b"1.2.3"), (VALUE, b"Wilma Flintstone")])),
    ("(:DN:2.4.6.8.10:=Dino)", (EXTENSIBLE, [(RULE, b"2.4.6.8.10"), (VALUE, b"Dino"), DN_TOO])),
    (
        r"(o=Parens R Us \28for all your parenthetical needs\29)",
        equal(b"o", b"Parens R Us (for all your parenthetical needs)"),
    ),
    (r"(cn=*\2A*)", substrings(b"cn", (ANY, b"*"))),
    (r"(filename=C:\5cMyFile)", equal(b"filename", b"C:\\MyFile")),
    (r"(bin=\00\00\00\04)", equal(b"bin", b"\0\0\0\4")),
    (r"(sn=Lu\c4\8di\c4\87)", equal(b"sn", "Lučić".encode())),
    (r"(1.3.6.1.4.1.1466.0=\04\02\48\69)", equal(b"1.3.6.1.4.1.1466.0", b"\4\2Hi")),
]
TEXTS: list[tuple[str, Tree]] = [
    ("(uid=)", equal(b"uid", b"")),
    ("(uid=a=b)", equal(b"uid", b"a=b")),
    ("(uid=<a>:~!&|)", equal(b"uid", b"<a>:~!&|")),
    ("(uid= a )", equal(b"uid", b" a ")),
    ("(sn=Lučić)", equal(b"sn", "Lučić".encode())),
    (r"(a=\*\(\)\\)", equal(b"a", b"*()\\")),
    (r"(a=\\2a)", equal(b"a", b"\\2a")),
    (r"(a=\Fe)", equal(b"a", b"\xfe")),
    ("(a>=1)", compared(AT_LEAST, b"a", b"1")),
    ("(a<=1)", compared(AT_MOST, b"a", b"1")),
    ("(a~=1)", compared(LIKE, b"a", b"1")),
    ("(a=*)", (PRESENT, b"a")),
    ("(a=*x)", substrings(b"a", (FINAL, b"x"))),
    ("(a=x*)", substrings(b"a", (INITIAL, b"x"))),
    ("(a=*x*)", substrings(b"a", (ANY, b"x"))),
    ("(a=x*y)", substrings(b"a", (INITIAL, b"x"), (FINAL, b"y"))),
    (r"(a=\2a*)", substrings(b"a", (INITIAL, b"*"))),
    ("(a;lang-en;x=b)", equal(b"a;lang-en;x", b"b")),
    ("(a;binary=*)", (PRESENT, b"a;binary")),
    ("(:dn:r:=)", (EXTENSIBLE, [(RULE, b"r"), (VALUE, b""), DN_TOO])),
    ("(&)", (AND, [])),  # RFC 4526: true, and false
    ("(|)", (OR, [])),
    ("(!(!(a=b)))", (NOT, [(NOT, [equal(b"a", b"b")])])),
    # What libldap takes too:
    ("uid=a", equal(b"uid", b"a")),
    ("(& (a=b)\t(c=d)\n )", (AND, [equal(b"a", b"b"), equal(b"c", b"d")])),
    ("( a=b)", equal(b"a", b"b")),
    ("(! (a=b))", (NOT, [equal(b"a", b"b")])),
]
ONLY_OURS: list[tuple[str, Tree]] = [
    # What libldap does not take: blanks outside, or behind the one of not; line ends of Windows.
    (" (a=b)", equal(b"a", b"b")),
    ("(a=b)\n", equal(b"a", b"b")),
    ("(!(a=b) )", (NOT, [equal(b"a", b"b")])),
    ("(&\r\n(a=b))", (AND, [equal(b"a", b"b")])),
    ("(a=b\0c)", equal(b"a", b"b\0c")),  # a text ends with NUL in C
]
