import pytest

from pysaslauthd.model import Accepted, AuthRequest, Origin, Reason, Rejected, Secret, Unavailable
from pysaslauthd.wire.mux import (
    OUTAGE_REPLY,
    Limits,
    RefusedRequest,
    awaits_address,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    encode_result,
)

LIMITS = Limits()
FOUR = encode_request(b"joe", b"pw", b"imap", b"example.org")
FIVE = encode_request(b"joe", b"pw", b"imap", b"example.org", b"192.0.2.7;51234")


def request_of(data: bytes, *, final: bool = False) -> AuthRequest | None:
    return decode_request(data, 1.5, LIMITS, final=final)


def refusal_of(data: bytes, limits: Limits = LIMITS) -> RefusedRequest:
    with pytest.raises(RefusedRequest) as caught:
        decode_request(data, 0.0, limits)
    return caught.value


def test_four_fields_are_a_request() -> None:
    request = request_of(FOUR)

    assert request == AuthRequest("joe", Secret(b"pw"), "example.org", Origin("imap"), 1.5)


def test_the_bytes_of_testsaslauthd_are_a_request() -> None:
    request = request_of(b"\0\3joe\0\2pw\0\4imap\0\0")

    assert request == AuthRequest("joe", Secret(b"pw"), "", Origin("imap"), 1.5)


def test_a_fifth_field_is_the_clients_address() -> None:
    request = request_of(FIVE)

    assert request is not None
    assert request.origin == Origin("imap", "192.0.2.7;51234")


def test_an_empty_fifth_field_is_no_address() -> None:
    request = request_of(FOUR + b"\0\0")

    assert request is not None
    assert request.origin.remote == ""


def test_bytes_after_the_fifth_field_are_ignored() -> None:
    assert request_of(FIVE + b"more") == request_of(FIVE)


@pytest.mark.parametrize("cut", range(len(FOUR)))
def test_a_request_cut_anywhere_is_incomplete(cut: int) -> None:
    assert request_of(FOUR[:cut]) is None


@pytest.mark.parametrize("cut", range(len(FOUR)))
def test_a_request_that_ends_early_is_none(cut: int) -> None:
    assert request_of(FOUR[:cut], final=True) is None


@pytest.mark.parametrize("cut", range(len(FOUR) + 1, len(FIVE)))
def test_an_announced_fifth_field_is_awaited(cut: int) -> None:
    assert request_of(FIVE[:cut]) is None
    assert awaits_address(FIVE[:cut], LIMITS)


@pytest.mark.parametrize("cut", range(len(FOUR) + 1, len(FIVE)))
def test_a_fifth_field_that_never_comes_costs_only_the_address(cut: int) -> None:
    assert request_of(FIVE[:cut], final=True) == request_of(FOUR)


@pytest.mark.parametrize("data", [b"", FOUR[:9], FOUR, FIVE], ids=["none", "some", "four", "five"])
def test_nothing_else_awaits_an_address(data: bytes) -> None:
    assert not awaits_address(data, LIMITS)


@pytest.mark.parametrize(
    ("fields", "name", "limit"),
    [
        pytest.param((b"u" * 1025, b"p", b"s", b"r"), "login", 1024, id="login"),
        pytest.param((b"u", b"p" * 8193, b"s", b"r"), "password", 8192, id="password"),
        pytest.param((b"u", b"p", b"s" * 1025, b"r"), "service", 1024, id="service"),
        pytest.param((b"u", b"p", b"s", b"r" * 1025), "realm", 1024, id="realm"),
        pytest.param((b"u", b"p", b"s", b"r", b"a" * 1025), "client address", 1024, id="address"),
    ],
)
def test_a_field_over_its_limit_is_refused_as_by_the_c_daemon(
    fields: tuple[bytes, ...], name: str, limit: int
) -> None:
    refusal = refusal_of(encode_request(*fields))

    assert str(refusal) == f"{name} exceeded MAX_REQ_LEN: {limit}"
    assert refusal.reply == b"\0\3NO "


def test_a_field_at_its_limit_is_taken() -> None:
    request = request_of(encode_request(b"u" * 1024, b"p" * 8192, b"s", b"r"))

    assert request is not None


def test_a_count_over_its_limit_is_refused_before_its_bytes_come() -> None:
    refusal = refusal_of(b"\0\3joe\x20\x01")

    assert refusal.reply == b"\0\3NO "


def test_a_limit_is_a_setting() -> None:
    refusal = refusal_of(FOUR, Limits(password=1))

    assert str(refusal) == "password exceeded MAX_REQ_LEN: 1"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param((b"", b"p", b"s", b"r"), "NULL login received", id="empty-login"),
        pytest.param((b"u", b"", b"s", b"r"), "NULL password received", id="empty-password"),
        pytest.param((b"", b"", b"s", b"r"), "NULL login received", id="both-empty"),
        pytest.param((b"u\0x", b"p", b"s", b"r"), "NUL byte in login", id="nul-login"),
        pytest.param((b"u", b"p\0x", b"s", b"r"), "NUL byte in password", id="nul-password"),
        pytest.param((b"u", b"p", b"s\0x", b"r"), "NUL byte in service", id="nul-service"),
        pytest.param((b"u", b"p", b"s", b"r\0x"), "NUL byte in realm", id="nul-realm"),
        pytest.param((b"u", b"p", b"s", b"r", b"\0"), "NUL byte in client address", id="nul-addr"),
        pytest.param((b"u\r", b"p", b"s", b"r"), "CR in login", id="cr-login"),
        pytest.param((b"u\n", b"p", b"s", b"r"), "LF in login", id="lf-login"),
        pytest.param((b"u\t", b"p", b"s", b"r"), "TAB in login", id="tab-login"),
        pytest.param((b"u", b"p", b"s", b"\rr"), "CR in realm", id="cr-realm"),
        pytest.param((b"u", b"p", b"s", b"\nr"), "LF in realm", id="lf-realm"),
        pytest.param((b"u", b"p", b"s", b"\tr"), "TAB in realm", id="tab-realm"),
        pytest.param((b"\xff", b"p", b"s", b"r"), "login is not UTF-8", id="latin1-login"),
        pytest.param((b"u", b"p", b"\xff", b"r"), "service is not UTF-8", id="latin1-service"),
        pytest.param((b"u", b"p", b"s", b"\xff"), "realm is not UTF-8", id="latin1-realm"),
    ],
)
def test_a_bad_field_is_refused_with_its_fault(fields: tuple[bytes, ...], text: str) -> None:
    refusal = refusal_of(encode_request(*fields))

    assert str(refusal) == text
    assert refusal.reply == encode_reply(f"NO {text}")


@pytest.mark.parametrize(
    "password", [b"\xe4\xf6", b" ", b"a\r\n\tb", "pässwörd".encode()], ids=repr
)
def test_a_password_may_be_any_bytes_but_nul(password: bytes) -> None:
    request = request_of(encode_request(b"u", password, b"", b""))

    assert request is not None
    assert request.password == Secret(password)


@pytest.mark.parametrize("login", ["ann lee", "jörg", "o'neil@example.org", "a\u00a0b", "名前"])
def test_a_name_may_be_any_text(login: str) -> None:
    request = request_of(encode_request(login.encode(), b"p", b"", b""))

    assert request is not None
    assert request.user == login


def test_the_login_is_not_split_at_an_at_sign() -> None:
    request = request_of(encode_request(b"ann@example.org", b"p", b"", b""))

    assert request is not None
    assert (request.user, request.realm) == ("ann@example.org", "")


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        pytest.param(Accepted("joe", "sasldb"), b"\0\2OK", id="yes"),
        pytest.param(Accepted("joe", "rimap", "remote"), b"\0\x09OK remote", id="yes-with-text"),
        pytest.param(Rejected(Reason.NO_SUCH_USER, "sasldb"), b"\0\2NO", id="no"),
        pytest.param(Rejected(Reason.WRONG_PASSWORD, "pam", "why"), b"\0\6NO why", id="no-why"),
        pytest.param(Unavailable("down", "ldap"), OUTAGE_REPLY, id="outage"),
    ],
)
def test_each_verdict_has_its_reply(
    result: Accepted | Rejected | Unavailable, reply: bytes
) -> None:
    assert encode_result(result, OUTAGE_REPLY) == reply


def test_a_reply_is_cut_to_what_clients_read() -> None:
    reply = encode_reply("NO " + "x" * 2000)

    assert reply[:2] == b"\x03\xff"
    assert len(reply) == 2 + 1023


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\3OK", b"\0\2O"])
def test_an_unfinished_reply_is_none(data: bytes) -> None:
    assert decode_reply(data) is None


@pytest.mark.parametrize(
    ("data", "text"), [(b"\0\2OK", b"OK"), (b"\0\0", b""), (b"\0\2OKmore", b"OK")]
)
def test_a_reply_is_its_text(data: bytes, text: bytes) -> None:
    assert decode_reply(data) == text


def test_a_field_that_no_count_can_tell_is_an_error() -> None:
    with pytest.raises(ValueError, match="65535"):
        encode_request(b"u", b"x" * 65536, b"", b"")
