"""What must hold between front and workers for any values and any bytes whatever."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.workers.frames import (
    decode,
    decode_answer,
    decode_question,
    encode,
    encode_answer,
    encode_question,
)

names = st.text(st.characters(codec="utf-8"), max_size=20)
origins = st.tuples(names, names).map(lambda told: Origin(*told))  # workers know no more
requests = st.builds(
    AuthRequest, names, st.builds(Secret, st.binary(max_size=40)), names, origins, st.just(0.0)
)
delays = st.integers(0, 60_000).map(lambda milliseconds: milliseconds / 1000)
results = st.one_of(
    st.builds(Accepted, st.just("joe"), st.just("pam"), names),
    st.builds(Rejected, st.sampled_from(Reason), st.just("pam"), names, delays),
    st.builds(Unavailable, names, st.just("pam")),
)
# Random bytes hardly ever are counted fields: most packets are made of some.
packets = st.binary(max_size=100) | st.lists(
    st.sampled_from([b"yes", b"no", b"unavailable", b"DENIED", b"0"]) | st.binary(max_size=9),
    max_size=6,
).map(encode)


@given(requests)
def test_a_question_arrives_as_it_was_asked(request: AuthRequest) -> None:
    assert decode_question(encode_question(request)) == request


@given(results)
def test_an_answer_arrives_as_it_was_given(result: AuthResult) -> None:
    found = decode_answer(encode_answer(result), "joe", "pam")

    assert found[:3] == result[:3]
    # A delay is told in whole milliseconds.
    assert abs(getattr(found, "delay", 0.0) - getattr(result, "delay", 0.0)) <= 0.0011


@given(packets)
def test_no_bytes_raise_anything_but_a_malformed_message(packet: bytes) -> None:
    with suppress(MalformedMessage):
        decode_question(packet)
    with suppress(MalformedMessage):
        decode_answer(packet, "joe", "pam")


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6), st.data())
def test_fields_that_are_cut_or_continued_are_refused(
    fields: list[bytes], data: st.DataObject
) -> None:
    packet = encode(fields)
    cut = packet[: data.draw(st.integers(0, len(packet) - 1))]
    continued = packet + data.draw(st.binary(min_size=1, max_size=5))

    for other in (cut, continued):
        with suppress(MalformedMessage):
            decode(other, len(fields))
            raise AssertionError(f"{other!r} was taken for {len(fields)} fields")


@given(results, st.data())
def test_no_changed_byte_makes_a_refusal_a_yes(result: AuthResult, data: st.DataObject) -> None:
    packet = bytearray(encode_answer(result))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))

    with suppress(MalformedMessage):
        found = decode_answer(bytes(packet), "joe", "pam")
        assert isinstance(found, Accepted) <= isinstance(result, Accepted)
