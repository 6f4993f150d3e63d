"""What must hold for any bytes whatever (style.md: the four properties)."""

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import AuthRequest, Origin
from pysaslauthd.wire.mux import Limits, awaits_address, decode_request, encode_request

LIMITS = Limits(20, 30, 20, 20, 20)
names = st.text(st.characters(exclude_characters="\0\r\n\t", codec="utf-8"), max_size=5)
passwords = st.binary(min_size=1, max_size=30).filter(lambda p: b"\0" not in p)


def outcome(data: bytes, *, final: bool = False) -> AuthRequest | str | None:
    try:
        return decode_request(data, 0.0, LIMITS, final=final)
    except MalformedMessage as error:
        return str(error)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_but_a_malformed_message(data: bytes, final: bool) -> None:  # noqa: FBT001
    outcome(data, final=final)


@given(names.filter(bool), passwords, names, names, st.none() | names)
def test_a_request_decodes_to_what_was_encoded(
    login: str, password: bytes, service: str, realm: str, remote: str | None
) -> None:
    address = None if remote is None else remote.encode()
    data = encode_request(login.encode(), password, service.encode(), realm.encode(), address)

    request = decode_request(data, 0.0, LIMITS)

    assert request is not None
    assert (request.user, request.realm) == (login, realm)
    assert request.password.reveal() == password
    assert request.origin == Origin(service, remote or "")


@given(st.binary(max_size=120), st.data())
def test_more_bytes_never_change_a_refusal(data: bytes, more: st.DataObject) -> None:
    before = outcome(data)
    after = outcome(data + more.draw(st.binary(max_size=20)))

    if isinstance(before, str) and "exceeded" in before:
        assert after == before


@given(names.filter(bool), passwords, names, names, names, st.integers(0, 100))
def test_a_cut_request_is_incomplete_or_lacks_its_address(
    login: str, password: bytes, service: str, realm: str, remote: str, cut: int
) -> None:
    fields = (login.encode(), password, service.encode(), realm.encode())
    four = len(encode_request(*fields))
    data = encode_request(*fields, remote.encode())[:cut]

    found = outcome(data)

    complete = len(data) == four or cut >= four + 2 + len(remote.encode())
    assert isinstance(found, AuthRequest) == complete
    assert awaits_address(data, LIMITS) == (len(data) > four and not complete)
