"""User and password as an IMAP server is told them, and as the log is not."""

import base64

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.wire.imap_credentials import NOT_SHOWN, Credentials
from pysaslauthd.wire.imap_responses import Capabilities, parse_capabilities

NOTHING = parse_capabilities(b"IMAP4rev1")
FREE = parse_capabilities(b"IMAP4rev1 LITERAL+")
SMALL_FREE = parse_capabilities(b"IMAP4rev1 LITERAL-")
NO_LOGIN = parse_capabilities(b"IMAP4rev1 LOGINDISABLED AUTH=PLAIN")
NO_LOGIN_AT_ONCE = NO_LOGIN | {b"SASL-IR"}


def pieces(password: bytes, capabilities: Capabilities = NOTHING, user: str = "joe") -> list[bytes]:
    """Return the pieces of the command that asks."""
    asking = Credentials(user, Secret(password)).encode(capabilities)
    assert asking is not None
    return asking.pieces


@pytest.mark.parametrize(
    ("user", "password", "command"),
    [
        pytest.param("joe", b"pw", b'"joe" "pw"', id="plain"),
        pytest.param("ann lee", b"two words ", b'"ann lee" "two words "', id="spaces"),
        pytest.param('a"b', b"\\", b'"a\\"b" "\\\\"', id="escaped"),
        pytest.param("joe", b"{3}", b'"joe" "{3}"', id="looks-like-a-literal"),
        pytest.param("", b"", b'"" ""', id="empty"),
        pytest.param("joe@example.org", b"%*(){", b'"joe@example.org" "%*(){"', id="marks"),
    ],
)
def test_what_prints_is_quoted_as_by_the_c_daemon(
    user: str, password: bytes, command: bytes
) -> None:
    assert pieces(password, user=user) == [b"saslauthd LOGIN %b\r\n" % command]


AWKWARD = [b"a\r\nb LOGOUT", b"\xe4", "pässwörd €".encode(), b"\t", b"\x7f", b"\x01", b"\n"]


@pytest.mark.parametrize("password", AWKWARD, ids=repr)
def test_what_does_not_print_is_a_literal_that_waits(password: bytes) -> None:
    first = b'saslauthd LOGIN "joe" {%d}\r\n' % len(password)

    assert pieces(password) == [first, password + b"\r\n"]


@pytest.mark.parametrize("password", AWKWARD, ids=repr)
@pytest.mark.parametrize("capabilities", [FREE, SMALL_FREE], ids=["LITERAL+", "LITERAL-"])
def test_a_literal_need_not_wait_where_the_server_says_so(
    password: bytes, capabilities: Capabilities
) -> None:
    command = b'saslauthd LOGIN "joe" {%d+}\r\n%b\r\n' % (len(password), password)

    assert pieces(password, capabilities) == [command]


def test_two_literals_wait_twice() -> None:
    made = pieces(b"\xff\xfe", user="zoë")

    assert made == [b"saslauthd LOGIN {4}\r\n", b"zo\xc3\xab {2}\r\n", b"\xff\xfe\r\n"]


def test_two_literals_need_not_wait() -> None:
    made = pieces(b"\xff\xfe", FREE, user="zoë")

    assert made == [b"saslauthd LOGIN {4+}\r\nzo\xc3\xab {2+}\r\n\xff\xfe\r\n"]


@pytest.mark.parametrize(
    ("capabilities", "size", "waits"),
    [
        pytest.param(FREE, 4097, False, id="LITERAL+"),
        pytest.param(SMALL_FREE, 4096, False, id="LITERAL-"),
        pytest.param(SMALL_FREE, 4097, True, id="LITERAL- over 4096"),
    ],
)
def test_a_long_literal_waits_where_only_short_ones_need_not(
    capabilities: Capabilities, size: int, *, waits: bool
) -> None:
    made = pieces(b"\xff" * size, capabilities)

    assert (len(made) == 2) == waits


def test_where_login_is_disabled_sasl_asks() -> None:
    asking = Credentials("joe", Secret(b"pw")).encode(NO_LOGIN)

    assert asking is not None
    assert asking.name == "AUTHENTICATE PLAIN"
    assert asking.pieces == [b"saslauthd AUTHENTICATE PLAIN\r\n", b"AGpvZQBwdw==\r\n"]


def test_sasl_asks_at_once_where_the_server_lets_it() -> None:
    assert pieces(b"pw", NO_LOGIN_AT_ONCE) == [b"saslauthd AUTHENTICATE PLAIN AGpvZQBwdw==\r\n"]


def test_a_command_with_a_long_response_does_not_ask_at_once() -> None:
    made = pieces(b"x" * 1000, NO_LOGIN_AT_ONCE)

    assert [len(piece) for piece in made] == [30, 1340 + 2]


def test_where_login_is_disabled_without_sasl_nothing_asks() -> None:
    capabilities = parse_capabilities(b"IMAP4rev1 LOGINDISABLED AUTH=GSSAPI")

    assert Credentials("joe", Secret(b"pw")).encode(capabilities) is None


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        pytest.param(b"AUTH=PLAIN", "AUTHENTICATE PLAIN", id="sasl"),
        pytest.param(b"AUTH=GSSAPI", "LOGIN", id="no-sasl"),
    ],
)
def test_what_is_too_long_for_login_goes_by_sasl_if_possible(
    capabilities: bytes, name: str
) -> None:
    credentials = Credentials("joe", Secret(b"x" * 1000))

    asking = credentials.encode(parse_capabilities(capabilities))

    assert asking is not None
    assert asking.name == name


@pytest.mark.parametrize(("user", "password"), [("j\0e", b"pw"), ("joe", b"p\0w")])
def test_nul_cannot_be_asked_about(user: str, password: bytes) -> None:
    with pytest.raises(ValueError, match="NUL"):
        Credentials(user, Secret(password))


PASSWORD = b'S3cr"et'


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b'saslauthd BAD LOGIN joe S3cr"et', id="plain"),
        pytest.param(b'saslauthd BAD LOGIN "joe" "S3cr\\"et"', id="quoted"),
        pytest.param(b"+ " + base64.b64encode(b"\0joe\0" + PASSWORD), id="base64"),
        pytest.param(b'BAD LOGIN JOE S3CR"ET', id="upper-case"),
        pytest.param(b"BAD login joe S3cr...", id="cut"),
        pytest.param(b"x" * 500 + PASSWORD, id="behind-what-is-shown"),
    ],
)
def test_what_repeats_a_password_is_not_shown(said: bytes) -> None:
    assert Credentials("joe", Secret(PASSWORD)).shown(said) == NOT_SHOWN


def test_what_repeats_a_short_password_is_not_shown() -> None:
    assert Credentials("joe", Secret(b"pw")).shown(b"BAD LOGIN joe pw") == NOT_SHOWN


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param(b"NO [ALERT] go away", "NO [ALERT] go away", id="text"),
        pytest.param("NO grüß Gott".encode(), "NO grüß Gott", id="utf-8"),
        pytest.param(b"NO gr\xfc\xdf", "NO gr\\xfc\\xdf", id="latin-1"),
        pytest.param(b"NO \x1b[31m\rred", "NO \\x1b[31m\\rred", id="terminal"),
        pytest.param(b"x" * 500, "x" * 200, id="long"),
        pytest.param(b"BAD LOGIN joe", "BAD LOGIN joe", id="user"),
    ],
)
def test_anything_else_is_shown_bounded_and_printable(said: bytes, shown: str) -> None:
    assert Credentials("joe", Secret(PASSWORD)).shown(said) == shown


def test_nothing_prints_the_password() -> None:
    credentials = Credentials("joe", Secret(PASSWORD))

    assert "S3cr" not in repr(credentials)
    assert "S3cr" not in repr(credentials.encode(NOTHING))
