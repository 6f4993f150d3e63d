"""What front and workers say to each other: its bounds, and what is refused."""

import pytest

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
    LARGEST_ANSWER,
    LARGEST_FIELD,
    LARGEST_QUESTION,
    LARGEST_TEXT,
    LONGEST_DELAY,
    decode,
    decode_answer,
    decode_question,
    encode,
    encode_answer,
    encode_question,
)

PASSWORD = b"sesame"


def question(user: str = "joe", password: bytes = PASSWORD, realm: str = "r") -> AuthRequest:
    return AuthRequest(user, Secret(password), realm, Origin("imap", "192.0.2.1;25"), 0.0)


def told(result: AuthResult) -> AuthResult:
    """Return what the front makes of a worker's *result*."""
    return decode_answer(encode_answer(result), "joe", "pam")


class TestFields:
    def test_each_stands_behind_its_count(self) -> None:
        assert encode([b"ab", b"", b"c"]) == b"\0\2ab\0\0\0\1c"

    def test_one_of_65535_bytes_passes(self) -> None:
        longest = b"x" * LARGEST_FIELD

        assert decode(encode([longest]), 1) == [longest]

    def test_one_that_is_longer_is_refused_without_being_shown(self) -> None:
        with pytest.raises(ValueError, match=r"^a field is longer than 65535 bytes$"):
            encode([b"sesame" * LARGEST_FIELD])

    @pytest.mark.parametrize(
        "packet",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\0", id="half-a-count"),
            pytest.param(b"\0\1", id="no-field"),
            pytest.param(b"\0\2a\0\0", id="short-field"),
            pytest.param(b"\0\1a", id="one-too-few"),
            pytest.param(b"\0\1a\0", id="half-a-second-count"),
            pytest.param(b"\0\1a\0\1b\0\0", id="one-too-many"),
            pytest.param(b"\0\1a\0\1bc", id="more-behind-the-last"),
            pytest.param(b"\xff\xff\0\0", id="count-beyond-the-end"),
        ],
    )
    def test_other_than_the_expected_number_are_refused(self, packet: bytes) -> None:
        with pytest.raises(MalformedMessage, match=r"^a packet that is not 2 counted fields$"):
            decode(packet, 2)


class TestQuestions:
    @pytest.mark.parametrize(
        "asked",
        [
            question(),
            question(user="", password=b"", realm=""),
            question(user="a\0b", password=b"\0\0"),
            question(user="zoë", realm="пример.рф"),
            question(password=b"\xff\xfe"),
            question(user="j" * LARGEST_FIELD, password=b"p" * LARGEST_FIELD),
        ],
        ids=["plain", "empty", "nul", "utf-8", "not-utf-8-password", "longest"],
    )
    def test_it_arrives_as_it_was_asked(self, asked: AuthRequest) -> None:
        assert decode_question(encode_question(asked)) == asked

    def test_the_largest_fits_what_a_worker_reads(self) -> None:
        longest = "x" * LARGEST_FIELD
        request = AuthRequest(longest, Secret(longest.encode()), longest, Origin(longest), 0.0)
        whole = request._replace(origin=Origin(longest, longest))

        assert len(encode_question(whole)) == LARGEST_QUESTION

    @pytest.mark.parametrize(
        "request_",
        [question(user="é" * LARGEST_FIELD), question(realm="é" * LARGEST_FIELD)],
        ids=["user", "realm"],
    )
    def test_a_name_that_is_too_long_is_refused(self, request_: AuthRequest) -> None:
        with pytest.raises(ValueError, match="longer than 65535 bytes"):
            encode_question(request_)

    def test_a_refusal_shows_no_password(self) -> None:
        with pytest.raises(ValueError, match="longer") as refused:
            encode_question(question(password=PASSWORD * LARGEST_FIELD))

        assert "sesame" not in repr(refused.value)

    def test_a_name_that_is_no_utf_8_is_refused(self) -> None:
        packet = encode([PASSWORD, b"\xff", b"", b"", b""])

        with pytest.raises(MalformedMessage, match="not UTF-8") as refused:
            decode_question(packet)
        assert refused.value.__suppress_context__

    def test_a_name_that_has_no_form_in_utf_8_is_refused(self) -> None:
        with pytest.raises(ValueError, match="surrogates"):
            encode_question(question(user="\udcff"))


class TestAnswers:
    @pytest.mark.parametrize(
        "result",
        [
            Accepted("joe", "pam"),
            Accepted("joe", "pam", "bienvenue ë"),
            Unavailable("the directory is down", "pam"),
            *(Rejected(reason, "pam", "PAM auth error") for reason in Reason),
            Rejected(Reason.WRONG_PASSWORD, "pam", "", 2.013),
        ],
        ids=str,
    )
    def test_it_arrives_as_it_was_given(self, result: AuthResult) -> None:
        assert told(result) == result

    def test_the_front_says_whose_verdict_it_is(self) -> None:
        answer = encode_answer(Accepted("eve", "shadow"))

        assert decode_answer(answer, "joe", "pam") == Accepted("joe", "pam")

    def test_a_text_that_is_too_long_is_cut(self) -> None:
        assert told(Unavailable("x" * 5000, "pam")) == Unavailable("x" * LARGEST_TEXT, "pam")

    def test_a_character_that_is_cut_is_dropped(self) -> None:
        cut = told(Unavailable("x" + "é" * LARGEST_TEXT, "pam"))

        assert cut == Unavailable("x" + "é" * ((LARGEST_TEXT - 1) // 2), "pam")

    def test_a_text_that_has_no_form_in_utf_8_is_escaped(self) -> None:
        assert told(Unavailable("\udcff", "pam")) == Unavailable("\\udcff", "pam")

    def test_a_delay_is_bounded(self) -> None:
        held = told(Rejected(Reason.DENIED, "pam", "", 1e9))

        assert held == Rejected(Reason.DENIED, "pam", "", LONGEST_DELAY / 1000)

    def test_the_largest_fits_what_the_front_reads(self) -> None:
        longest = [Rejected(reason, "pam", "x" * 5000, 1e9) for reason in Reason]

        assert max(len(encode_answer(answer)) for answer in longest) < LARGEST_ANSWER

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param([b"maybe", b"DENIED", b"", b"0"], id="unknown-verdict"),
            pytest.param([b"YES", b"", b"", b"0"], id="capitals"),
            pytest.param([b"no", b"", b"", b"0"], id="no-reason"),
            pytest.param([b"no", b"BORED", b"", b"0"], id="unknown-reason"),
            pytest.param([b"no", b"DENIED", b"", b""], id="no-delay"),
            pytest.param([b"no", b"DENIED", b"", b"-1"], id="negative-delay"),
            pytest.param([b"no", b"DENIED", b"", b"1.5"], id="fraction"),
            pytest.param([b"no", b"DENIED", b"", b"9" * 5000], id="endless-delay"),
            pytest.param([b"no", b"DENIED", b""], id="too-few"),
        ],
    )
    def test_what_is_no_verdict_is_refused(self, fields: list[bytes]) -> None:
        with pytest.raises(MalformedMessage):
            decode_answer(encode(fields), "joe", "pam")

    def test_a_delay_in_an_answer_is_bounded(self) -> None:
        answer = encode([b"no", b"DENIED", b"", b"99999999"])

        assert decode_answer(answer, "joe", "pam") == Rejected(Reason.DENIED, "pam", "", 60.0)
