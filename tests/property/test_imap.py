"""What must hold for any bytes of an IMAP server, and for any user and password."""

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Secret
from pysaslauthd.wire.imap import Login, Yes
from pysaslauthd.wire.imap_credentials import Credentials
from pysaslauthd.wire.imap_responses import parse_capabilities

OK_TO_LOGIN = b"saslauthd ok"

users = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
passwords = st.binary(max_size=60).filter(lambda password: b"\0" not in password)
awkward = st.text('a"\\{}+ \r\n\t\x7f9ä', max_size=12).map(str.encode)
capabilities = st.sets(
    st.sampled_from([b"LITERAL+", b"LITERAL-", b"IMAP4REV1", b"AUTH=GSSAPI"])
).map(lambda words: parse_capabilities(b" ".join(words)))

OK, GO_ON = b"saslauthd OK\r\n", b"+ ok\r\n"
TLS_OK, CAPABILITY_OK = b"saslauthd1 OK\r\n", b"saslauthd2 OK\r\n"
# A dialogue that goes well, with some of it replaced by what may or may not make sense.
dialogues = st.sampled_from(
    [
        [b"* OK [CAPABILITY IMAP4rev1] ready\r\n", OK],
        [b"* OK ready\r\n", CAPABILITY_OK, OK],
        [b"* OK ready\r\n", CAPABILITY_OK, GO_ON, OK],
        [b"* OK ready\r\n", TLS_OK, CAPABILITY_OK, OK],
        [b"* OK [CAPABILITY LOGINDISABLED AUTH=PLAIN] ready\r\n", GO_ON, OK],
    ]
)
data = st.sampled_from([b"* X {3}\r\n\r\n\r\n", b"* CAPABILITY LITERAL+\r\n", b"* OK x\r\n", b""])
answers = st.sampled_from(
    [
        *(OK, TLS_OK, CAPABILITY_OK, GO_ON),
        *(b"saslauthd ok x\r\n", b"saslauthd NO\r\n", b"a1 OK\r\n", b"* BYE\r\n"),
        *(b"saslauthd NO [UNAVAILABLE] x\r\n", b"saslauthd OKAY\r\n", b"saslauthd BAD\r\n"),
    ]
)
sensible = st.builds(lambda *parts: b"".join(parts), data, answers)
lines = st.lists(sensible | st.binary(max_size=40), max_size=3).map(b"".join)


@st.composite
def dialogues_with_faults(draw: st.DrawFn) -> list[bytes]:
    """Return what a server says, one thing after the other."""
    said = list(draw(dialogues))
    for place, instead in draw(st.dictionaries(st.integers(0, 3), lines, max_size=2)).items():
        said[place : place + 1] = [instead]
    return said


chunks = dialogues_with_faults()


class Talk:
    """A login that has heard *said*: what it said each time, and whether it is over."""

    def __init__(self, said: Sequence[bytes], password: bytes, *, starts_tls: bool) -> None:
        self.login = Login(Credentials("joe", Secret(password)), starts_tls=starts_tls)
        self.replies: list[bytes] = []
        self.after_asking: list[bytes] = []
        self.failed = False
        for data in said:
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        if self.login.has_asked:
            self.after_asking.append(data)
        try:
            self.replies.append(self.login.receive(data))
        except MalformedMessage:
            self.failed = True
        if self.login.wants_tls and not self.failed:
            self.replies.append(self.login.go_on())


@given(chunks, passwords, st.booleans())
def test_no_bytes_raise_anything_but_a_malformed_message(
    said: list[bytes],
    password: bytes,
    starts_tls: bool,  # noqa: FBT001
) -> None:
    Talk(said, password, starts_tls=starts_tls)


@given(chunks, passwords, st.booleans())
def test_nobody_is_let_in_without_an_ok_that_follows_the_question(
    said: list[bytes],
    password: bytes,
    starts_tls: bool,  # noqa: FBT001
) -> None:
    talk = Talk(said, password, starts_tls=starts_tls)

    if isinstance(talk.login.outcome, Yes):
        assert not talk.failed
        assert OK_TO_LOGIN in b"".join(talk.after_asking).lower()
        assert any(b" LOGIN " in reply or b"AUTHENTICATE" in reply for reply in talk.replies)


@given(lines, st.integers(0, 200))
def test_an_answer_that_is_cut_means_the_same(answer: bytes, cut: int) -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1] x\r\n"

    whole = Talk([greeting, answer], b"pw", starts_tls=False)
    parts = Talk([greeting, answer[:cut], answer[cut:]], b"pw", starts_tls=False)

    assert parts.login.outcome == whole.login.outcome
    assert parts.failed == whole.failed


@given(users | awkward.map(bytes.decode), passwords | awkward, capabilities)
def test_any_user_and_password_arrive_in_one_command(
    user: str, password: bytes, offered: frozenset[bytes]
) -> None:
    asking = Credentials(user, Secret(password)).encode(offered)

    assert asking is not None
    assert list(commands(b"".join(asking.pieces))) == [
        (b"saslauthd", b"LOGIN", user.encode(), password)
    ]


@given(users, passwords)
def test_a_piece_ends_where_the_server_is_asked(user: str, password: bytes) -> None:
    asking = Credentials(user, Secret(password)).encode(parse_capabilities(b"IMAP4rev1"))

    assert asking is not None
    assert all(piece.endswith(b"}\r\n") for piece in asking.pieces[:-1])
    assert b"+}" not in b"".join(piece[-4:] for piece in asking.pieces[:-1])


def commands(sent: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the commands in *sent* as lists of their words, read as RFC 3501's grammar has it."""
    at = 0
    found: list[bytes] = []
    while at < len(sent):
        word, at = argument(sent, at)
        found.append(word)
        if sent[at : at + 2] == b"\r\n":
            yield tuple(found)
            found = []
            at += 2
        else:
            assert sent[at : at + 1] == b" ", f"no space after {word!r}"
            at += 1
    assert not found, "a command without its end"


def argument(sent: bytes, at: int) -> tuple[bytes, int]:
    """Return the atom, quoted string or literal at *at*, and where it ends."""
    if sent[at : at + 1] == b'"':
        return quoted(sent, at + 1)
    if sent[at : at + 1] == b"{":
        size, end, _ = sent[at + 1 :].partition(b"}\r\n")
        assert end
        start = at + 1 + len(size) + len(end)
        count = int(size.removesuffix(b"+"))
        assert len(sent) >= start + count
        return sent[start : start + count], start + count
    end_of_atom = at
    while sent[end_of_atom : end_of_atom + 1].isalnum():
        end_of_atom += 1
    return sent[at:end_of_atom], end_of_atom


def quoted(sent: bytes, at: int) -> tuple[bytes, int]:
    """Return the quoted string whose first character is at *at*, and where it ends."""
    text = bytearray()
    while sent[at] != ord('"'):
        assert sent[at] not in b"\r\n\0"
        assert sent[at] < 0x80
        if sent[at] == ord("\\"):
            at += 1
            assert sent[at] in b'"\\'
        text.append(sent[at])
        at += 1
    return bytes(text), at + 1
