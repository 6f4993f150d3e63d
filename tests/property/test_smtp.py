"""What must hold for any client that says anything after AUTH."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.model import Accepted, Reason, Rejected, Unavailable
from pysaslauthd.sasl.server.mechanism import Challenge, Finished
from pysaslauthd.sasl.server.plain import PLAIN
from pysaslauthd.smtp.dialogue import Connection, Dialogue, Reply, Respond, Start, Tries
from pysaslauthd.smtp.options import KNOWN, SecurityOptions, UnknownOption

anything = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(base64.b64encode),
    st.sampled_from([b"", b"*", b"=", b"PLAIN", b"PLAIN =", b"plain *", b"FOO", b"A" * 12289]),
)
connections = st.builds(Connection, st.booleans(), st.booleans(), st.booleans())
results = st.sampled_from(
    [Rejected(Reason.WRONG_PASSWORD, "x"), Rejected(Reason.MALFORMED, "x"), Unavailable("x", "x")]
)
no_successes = st.one_of(
    st.binary(max_size=20).map(Challenge),
    st.builds(
        lambda result, data: Finished(result, "joe", data=data), results, st.none() | st.just(b"x")
    ),
)
turns = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), anything, connections, st.sampled_from([[], [PLAIN]])),
        st.tuples(st.just("hear"), anything),
        st.tuples(st.just("tell"), no_successes),
    ),
    max_size=12,
)


def fresh() -> Dialogue:
    return Dialogue("mail.test.example", Tries(most=4))


@given(turns)
def test_no_client_raises_anything_or_is_let_in_without_a_verdict(
    turns: list[tuple[object, ...]],
) -> None:
    subject = fresh()

    for method, *arguments in turns:
        said = getattr(subject, str(method))(*arguments)
        assert isinstance(said, Start | Respond | Reply)
        assert not isinstance(said, Reply) or not said.lines[0].startswith("235")

    assert subject.accepted is None


@given(st.lists(anything, max_size=5), anything)
def test_only_an_empty_line_takes_the_servers_last_word(lines: list[bytes], last: bytes) -> None:
    subject = fresh()
    for line in lines:
        subject.hear(line)
    subject.tell(Finished(Accepted("joe", "x"), "joe", data=b"v"))

    subject.hear(last)

    assert (subject.accepted is not None) == (last == b"")


@given(st.binary(max_size=9000))
def test_what_a_client_encodes_is_what_the_exchange_gets(response: bytes) -> None:
    encoded = base64.b64encode(response)

    assert fresh().hear(encoded) == Respond(response)
    assert fresh().begin(b"PLAIN " + (encoded or b"="), Connection(), [PLAIN]) == Start(
        PLAIN, response
    )


@given(st.lists(anything), st.integers(1, 9))
def test_no_client_fails_more_often_than_it_may(lines: list[bytes], most: int) -> None:
    subject = Dialogue("mail.test.example", Tries(most=most))
    failures = 0
    for line in lines:
        said = subject.hear(line)
        failures += isinstance(said, Reply) and said.lines[0].startswith("535")
        assert not isinstance(said, Reply) or said.closes == (
            said.lines[0].startswith("535") and failures >= most
        )


@given(st.text() | st.lists(st.sampled_from([*KNOWN, ",", " ", "noplain"])).map(" ".join))
def test_any_text_is_options_or_unknown(text: str) -> None:
    try:
        options = SecurityOptions.parse(text)
    except UnknownOption:
        return
    assert set(options.demanded) <= set(KNOWN)
