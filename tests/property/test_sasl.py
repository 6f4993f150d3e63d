"""What must hold for any server and any name (style.md: the four properties)."""

import re
from contextlib import suppress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl import digest_md5, scram
from pysaslauthd.sasl.client import ClientExchange
from pysaslauthd.sasl.prep import NotPreparable, prepare_query, prepare_stored
from tests.helpers.sasl_dialogues import Dialogue, good

DIALOGUES = {dialogue.name: dialogue for dialogue in good()}
SCRAM = [d for d in DIALOGUES.values() if d.mechanism.startswith("SCRAM")]
DIGEST_MD5 = [d for d in DIALOGUES.values() if d.mechanism == "DIGEST-MD5"]
RESPONSE = re.compile(rb"response=[0-9a-f]{32},")

# Random bytes hardly ever are a message: most are made of what messages are made of.
pieces = st.sampled_from(
    [
        *(b"r=", b"s=", b"i=", b"v=", b"e=", b"m=", b"x=", b"=", b",", b'"', b"\\", b" ", b"\0"),
        *(b"fyko+d2lbbFgONRv9qkxdawL", b"QSXCR+Q6sek8bf92", b"4096", b"99999999", b"QQ=="),
        *(b"nonce=", b"realm=", b"qop=", b"auth", b"algorithm=md5-sess", b"charset=utf-8"),
        *(b"rspauth=", b"stale=true", b"maxbuf=", b"\xc3\xab", b"\xff", b"invalid-proof"),
    ]
)
messages = st.one_of(
    st.binary(max_size=60),
    st.lists(pieces | st.binary(max_size=5), max_size=30).map(b"".join),
    st.sampled_from([message for dialogue in DIALOGUES.values() for message in dialogue.server]),
)
turns = st.lists(st.tuples(st.sampled_from(["respond", "finish"]), messages), max_size=5)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=lambda d: d.name)
@given(turns)
def test_no_server_raises_anything_but_a_malformed_message(
    dialogue: Dialogue, turns: list[tuple[str, bytes]]
) -> None:
    exchange = dialogue.exchange()

    for method, message in turns:
        with suppress(MalformedMessage):
            getattr(exchange, method)(message)


@pytest.mark.parametrize("dialogue", SCRAM + DIGEST_MD5, ids=lambda d: d.name)
@given(turns)
def test_no_server_that_does_not_know_the_password_is_believed(
    dialogue: Dialogue, turns: list[tuple[str, bytes]]
) -> None:
    assume(not {message for _, message in turns} & set(dialogue.server))
    exchange = dialogue.exchange()
    for method, message in turns:
        with suppress(MalformedMessage):
            getattr(exchange, method)(message)

    with pytest.raises(MalformedMessage):
        exchange.finish(None)


def with_a_byte_changed(dialogue: Dialogue, data: st.DataObject) -> list[bytes]:
    """Return what the server says, but for one byte of it."""
    server = list(dialogue.server)
    which = data.draw(st.integers(0, len(server) - 1), "message")
    message = bytearray(server[which])
    where = data.draw(st.integers(0, len(message) - 1), "place")
    message[where] ^= data.draw(st.integers(1, 255), "difference")
    return [*server[:which], bytes(message), *server[which + 1 :]]


def outcome(exchange: ClientExchange, server: list[bytes]) -> list[bytes] | None:
    """Return our responses in an exchange that succeeds; None where it fails."""
    with suppress(MalformedMessage):
        responses = [exchange.respond(message) for message in server]
        exchange.finish(None)
        return responses
    return None


@pytest.mark.parametrize("dialogue", SCRAM, ids=lambda d: d.name)
@given(st.data())
def test_no_changed_byte_of_scram_ends_in_success(dialogue: Dialogue, data: st.DataObject) -> None:
    server = with_a_byte_changed(dialogue, data)

    assert outcome(dialogue.exchange(), server) is None


@pytest.mark.parametrize("dialogue", DIGEST_MD5, ids=lambda d: d.name)
@given(st.data())
def test_a_changed_byte_of_digest_md5_ends_in_success_only_where_nothing_depends_on_it(
    dialogue: Dialogue, data: st.DataObject
) -> None:
    server = with_a_byte_changed(dialogue, data)

    responses = outcome(dialogue.exchange(), server)

    if responses is not None:
        assert server[1].lower() == dialogue.server[1]
        assert RESPONSE.findall(responses[0]) == RESPONSE.findall(dialogue.client[1] or b"")


@given(names)
@example("=2C,=3D=")
def test_an_escaped_name_is_found_again(name: str) -> None:
    escaped = scram.escape(name)

    assert "," not in escaped
    assert scram.unescape(escaped) == name


@given(st.text(st.sampled_from("=,23CDcd")))
def test_a_saslname_is_the_escape_of_the_name_it_stands_for(saslname: str) -> None:
    with suppress(MalformedMessage):
        assert scram.escape(scram.unescape(saslname)) == saslname


@given(st.binary())
def test_bytes_in_base64_are_found_again(value: bytes) -> None:
    assert scram.decode_base64(scram.encode_base64(value)) == value


@given(st.text(st.sampled_from("AQg+/=-\n"), max_size=9))
def test_base64_is_the_one_spelling_of_its_bytes(text: str) -> None:
    with suppress(MalformedMessage):
        assert scram.encode_base64(scram.decode_base64(text)) == text


values = st.binary(max_size=50).map(lambda value: re.sub(rb"[\0-\x08\n-\x1f\x7f]", b"", value))


@given(st.lists(st.tuples(st.sampled_from(["x", "Nonce", "digest-uri"]), values)))
def test_quoted_values_are_found_again(directives: list[tuple[str, bytes]]) -> None:
    message = b", ".join(b"%b=%b" % (k.encode(), digest_md5.quote(v)) for k, v in directives)

    found = digest_md5.parse_directives(message, 4096)

    assert found == {
        key.lower(): [value for other, value in directives if other == key] for key, _ in directives
    }


@given(st.text())
def test_a_prepared_string_stays_as_it_is(text: str) -> None:
    with suppress(NotPreparable):
        prepared = prepare_stored(text)
        assert prepare_stored(prepared) == prepared


@given(st.text())
def test_what_may_be_kept_is_what_is_looked_for(text: str) -> None:
    with suppress(NotPreparable):
        assert prepare_stored(text) == prepare_query(text)
