"""What must hold at the Dovecot door for any bytes whatever."""

import asyncio
import base64
import re

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.backends.static import Static
from pysaslauthd.engine.library import exchanges
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Secret
from pysaslauthd.sasl.server.mechanism import Surroundings
from pysaslauthd.sasl.server.registry import BY_NAME
from pysaslauthd.server.conversation import Conversation, Rules
from pysaslauthd.wire.dovecot import Decoder, Message, encode_failure, encode_success

HELLO = b"VERSION\t1\t2\nCPID\t7\n"
HERE = Surroundings("mail.test.example", Secret(b"the key of this process"))
NAMES = [name for name in BY_NAME if not name.startswith(("SCRAM", "ANON"))]
RIGHT, WRONG = base64.b64encode(b"\0joe\0pw"), base64.b64encode(b"\0joe\0no")
WORDS = [
    *(b"AUTH", b"CONT", b"CANCEL", b"VERSION", b"CPID", b"\t", b"\n", b"\r", b"\0", b"\x01"),
    *(b"0", b"1", b"2", b"4294967296", b"=", b"resp=", b"service=smtp", b"secured", b"nodelay"),
    *(b"valid-client-cert", b"cert_username=ann", b"final-resp-ok", b"rip=192.0.2.7"),
    *(name.encode() for name in NAMES),
    *(RIGHT, WRONG, b"am9l", b"cHc="),
    *(b"AUTH\t1\tPLAIN\tservice=smtp\n", b"CONT\t1\t", b"AUTH\t1\tLOGIN\tservice=smtp\n"),
    b"AUTH\t1\tPLAIN\tservice=smtp\tresp=",
]
streams = st.lists(st.sampled_from(WORDS) | st.binary(max_size=4), max_size=30).map(b"".join)
ANSWER = re.compile(
    rb"OK\t\d+\tuser=(joe|ann)(\tresp=[\w+/=]*)?|CONT\t\d+\t[\w+/=]*|FAIL\t\d+(\t\w+=[^\t]+)*"
)


class Noting(Static):
    """Joe's password; *accepted* is who was let in."""

    def __init__(self) -> None:
        super().__init__({"joe": Secret(b"pw")})
        self.accepted = 0

    def verify(self, request: AuthRequest, /) -> AuthResult:
        result = super().verify(request)
        self.accepted += isinstance(result, Accepted)
        return result


def decoded(pieces: list[bytes]) -> tuple[list[Message], bool]:
    """Return the messages, and whether the stream is malformed after them."""
    decoder, found = Decoder(), []
    try:
        for piece in pieces:
            for message in decoder.feed(piece):
                found.append(message)  # noqa: PERF402 (those before an error count)
    except MalformedMessage:
        return found, True
    return found, False


@given(st.binary(max_size=200) | streams, st.booleans(), st.data())
def test_the_pieces_in_which_bytes_come_make_no_difference(
    data: bytes,
    greets: bool,  # noqa: FBT001 (hypothesis chooses)
    cuts: st.DataObject,
) -> None:
    stream = HELLO + data if greets else data
    at = cuts.draw(st.integers(0, len(stream)))

    assert decoded([stream[:at], stream[at:]]) == decoded([stream])


@given(streams, st.data())
def test_nobody_is_let_in_but_by_the_backend_or_a_certificate(
    data: bytes, cuts: st.DataObject
) -> None:
    async def converse() -> tuple[bytes, int]:
        backend = Noting()
        source = exchanges(backend, "test.example")
        offered = {name: BY_NAME[name] for name in NAMES}
        rules = Rules(source, HERE, offered, 0.0)
        conversation = Conversation(asyncio.get_running_loop(), rules, set(), lambda: None)
        at = cuts.draw(st.integers(0, len(data)))
        try:
            for piece in (HELLO, data[:at], data[at:]):
                conversation.hear(piece, 0.0)
        except MalformedMessage:
            pass
        return b"".join(conversation.replies), backend.accepted

    said, accepted = asyncio.run(converse())

    lines = said.splitlines()
    assert [line for line in lines if not ANSWER.fullmatch(line)] == []
    assert sum(line.startswith(b"OK\t") and b"user=joe" in line for line in lines) <= accepted
    assert all(b"valid-client-cert" in data for line in lines if b"\tuser=ann" in line)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_name_ends_its_field_or_its_line(name: str) -> None:
    for line in (encode_success(1, name), encode_failure(1, user=name or "x", code="c")):
        assert line.count(b"\n") == 1
        assert b"\0" not in line
    assert encode_success(1, name).count(b"\t") == 2
