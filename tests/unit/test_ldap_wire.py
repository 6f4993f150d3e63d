"""LDAP's messages: what is asked, in bytes made by hand, and what servers say, whole and cut."""

import itertools
import time

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.wire import ldap, ldap_filter
from pysaslauthd.wire.ldap import Decoder, Entry, Received, Result, SearchRules

ANN = b"uid=ann,dc=example"


def hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text)


def message(operation: str, controls: str = "", number: str = "02 01 01") -> str:
    """Return a message around an operation in hexadecimal; its length in the long form."""
    inside = hexadecimal(number + operation + controls)
    return (b"\x30\x84" + len(inside).to_bytes(4, "big") + inside).hex()


def control(oid: bytes, value: str | None, critical: str = "") -> str:
    """Return the controls of a message: the one with that value, in hexadecimal."""
    octets = "" if value is None else f"04 {len(hexadecimal(value)):02x} {value}"
    one = f"04 {len(oid):02x} {oid.hex()} {critical} {octets}"
    sequence = f"30 {len(hexadecimal(one)):02x} {one}"
    return f"a0 {len(hexadecimal(sequence)):02x} {sequence}"


SAID_YES = "0a 01 00 04 00 04 00"  # success, no name, nothing to say
POLICY = b"1.3.6.1.4.1.42.2.27.8.5.1"
ENTRY = hexadecimal(
    message(
        "64 2e"
        "04 12 7569643d616e6e2c64633d6578616d706c65"  # uid=ann,dc=example
        "30 18"
        "30 16 04 0c 7573657250617373776f7264"  # userPassword
        "31 06 04 01 61 04 01 62"  # a, b
    )
)
YES = hexadecimal(message(f"61 07 {SAID_YES}", number="02 01 02"))
MESSAGES = ENTRY + YES
FOUND = [
    Received(1, Entry(ANN, {b"userpassword": (b"a", b"b")})),
    Received(2, Result(ldap.BIND_RESPONSE, 0)),
]


class TestRequests:
    def test_a_message_has_its_number_and_its_controls(self) -> None:
        made = ldap.message(300, ldap.UNBIND, ldap.PASSWORD_POLICY_REQUEST)

        assert made == hexadecimal(
            "30 25 02 02 012c 42 00 a0 1d 30 1b 04 19"
            "312e332e362e312e342e312e34322e322e32372e382e352e31"
        )

    def test_a_simple_bind(self) -> None:
        assert ldap.simple_bind(b"cn=a", b"pw") == hexadecimal(
            "60 0d 02 01 03 04 04 636e3d61 80 02 7077"
        )

    @pytest.mark.parametrize("dn", [b"", b" ", b"\t\n"])
    def test_a_bind_without_a_name_is_no_question(self, dn: bytes) -> None:
        with pytest.raises(ValueError, match="without a name or a password"):
            ldap.simple_bind(dn, b"pw")

    def test_a_bind_without_a_password_is_no_question(self) -> None:
        with pytest.raises(ValueError, match="without a name or a password"):
            ldap.simple_bind(b"cn=a", b"")

    @pytest.mark.parametrize(
        ("credentials", "encoded"),
        [
            pytest.param(None, "60 0e 02 01 03 04 00 a3 07 04 05 504c41494e", id="none"),
            pytest.param(b"", "60 10 02 01 03 04 00 a3 09 04 05 504c41494e 04 00", id="empty"),
            pytest.param(b"x", "60 11 02 01 03 04 00 a3 0a 04 05 504c41494e 04 01 78", id="some"),
        ],
    )
    def test_a_step_of_a_sasl_bind(self, credentials: bytes | None, encoded: str) -> None:
        assert ldap.sasl_bind("PLAIN", credentials) == hexadecimal(encoded)

    def test_a_search_asks_for_no_attributes_by_default(self) -> None:
        made = ldap.search(b"dc=e", SearchRules(), ldap_filter.ANY_ENTRY)

        assert made == hexadecimal(
            "63 29 04 04 64633d65 0a0102 0a0100 020100 020100 010100"
            "87 0b 6f626a656374436c617373 30 05 04 03 312e31"
        )

    def test_a_search_has_rules(self) -> None:
        rules = SearchRules("one", "always", 1, 300)

        made = ldap.search(b"", rules, ldap_filter.ANY_ENTRY, (b"cn", b"sn"))

        assert made == hexadecimal(
            "63 29 04 00 0a0101 0a0103 020101 0202012c 010100"
            "87 0b 6f626a656374436c617373 30 08 04 02 636e 04 02 736e"
        )

    @pytest.mark.parametrize(("scope", "number"), [("base", 0), ("one", 1), ("sub", 2)])
    def test_each_scope_has_its_number(self, scope: str, number: int) -> None:
        made = ldap.search(b"", SearchRules(scope), ldap_filter.ANY_ENTRY)

        assert made[4:7] == bytes((0x0A, 1, number))

    @pytest.mark.parametrize(
        ("deref", "number"), [("never", 0), ("search", 1), ("find", 2), ("always", 3)]
    )
    def test_each_way_with_aliases_has_its_number(self, deref: str, number: int) -> None:
        made = ldap.search(b"", SearchRules("base", deref), ldap_filter.ANY_ENTRY)

        assert made[7:10] == bytes((0x0A, 1, number))

    def test_a_comparison(self) -> None:
        assert ldap.compare(b"cn=g", b"member", b"uid=a") == hexadecimal(
            "6e 17 04 04 636e3d67 30 0f 04 06 6d656d626572 04 05 7569643d61"
        )

    def test_an_extended_operation(self) -> None:
        assert ldap.extended(ldap.START_TLS_OID) == hexadecimal(
            "77 18 80 16 312e332e362e312e342e312e313436362e3230303337"
        )

    def test_an_answer_that_is_not_wanted_any_more(self) -> None:
        assert ldap.abandon(5) == hexadecimal("50 01 05")

    def test_a_good_bye(self) -> None:
        assert hexadecimal("42 00") == ldap.UNBIND


def decode(text: str) -> list[Received]:
    return Decoder().feed(hexadecimal(text))


class TestAnswers:
    def test_an_entry_has_its_attributes_by_lower_case_descriptions(self) -> None:
        assert Decoder().feed(ENTRY) == FOUND[:1]

    def test_an_entry_may_have_no_attributes(self) -> None:
        assert decode(message("64 04 04 00 30 00")) == [Received(1, Entry(b"", {}))]

    def test_an_attribute_may_have_no_values(self) -> None:
        encoded = message("64 0b 04 00 30 07 30 05 04 01 61 31 00")

        assert decode(encoded) == [Received(1, Entry(b"", {b"a": ()}))]

    @pytest.mark.parametrize(
        ("tag", "kind"),
        [
            ("61", ldap.BIND_RESPONSE),
            ("65", ldap.SEARCH_DONE),
            ("6f", ldap.COMPARE_RESPONSE),
            ("78", ldap.EXTENDED_RESPONSE),
        ],
    )
    def test_each_kind_of_result(self, tag: str, kind: int) -> None:
        assert decode(message(f"{tag} 07 {SAID_YES}")) == [Received(1, Result(kind, 0))]

    def test_a_result_has_a_code_and_a_diagnostic(self) -> None:
        encoded = message("61 0a 0a 01 31 04 00 04 03 6e6fc3")

        (result,) = decode(encoded)

        assert isinstance(result.content, Result)
        assert result.content.code == 49
        assert result.content.diagnostic.encode(errors="surrogateescape") == b"no\xc3"

    def test_a_result_has_referrals(self) -> None:
        encoded = message("65 0f 0a 01 0a 04 00 04 00 a3 06 04 01 61 04 01 62")

        assert decode(encoded) == [
            Received(1, Result(ldap.SEARCH_DONE, 10, referrals=(b"a", b"b")))
        ]

    def test_a_sasl_bind_has_credentials(self) -> None:
        encoded = message(f"61 0a {SAID_YES} 87 01 78")

        assert decode(encoded) == [Received(1, Result(ldap.BIND_RESPONSE, 0, credentials=b"x"))]

    def test_an_extended_operation_has_a_value_and_may_have_a_name(self) -> None:
        encoded = message(f"78 0e {SAID_YES} 8a 02 312e 8b 01 78")

        assert decode(encoded) == [Received(1, Result(ldap.EXTENDED_RESPONSE, 0, value=b"x"))]

    def test_what_is_added_to_a_result_in_future_is_passed_over(self) -> None:
        encoded = message(f"61 0a {SAID_YES} 99 01 78")

        assert decode(encoded) == [Received(1, Result(ldap.BIND_RESPONSE, 0))]

    @pytest.mark.parametrize(
        ("value", "critical", "error"),
        [
            pytest.param("30 03 81 01 00", "", 0, id="expired"),
            pytest.param("30 03 81 01 01", "", 1, id="locked"),
            pytest.param("30 03 81 01 02", "", 2, id="must-change"),
            pytest.param("30 03 81 01 08", "", 8, id="in-history"),
            pytest.param("30 03 81 01 01", "01 01 ff", 1, id="with-criticality"),
            pytest.param("30 00", "", None, id="nothing-to-say"),
            pytest.param("30 05 a0 03 80 01 3c", "", None, id="warning-of-time"),
            pytest.param("30 08 a0 03 81 01 02 81 01 02", "", 2, id="warning-and-error"),
            pytest.param(None, "", None, id="no-value"),
            pytest.param(None, "01 01 00", None, id="no-value-with-criticality"),
        ],
    )
    def test_the_password_policy_has_a_word(
        self, value: str | None, critical: str, error: int | None
    ) -> None:
        encoded = message(f"61 07 {SAID_YES}", control(POLICY, value, critical))

        assert decode(encoded) == [Received(1, Result(ldap.BIND_RESPONSE, 0, policy_error=error))]

    def test_other_controls_are_passed_over(self) -> None:
        encoded = message(f"61 07 {SAID_YES}", control(b"1.2.3", "ff"))

        assert decode(encoded) == [Received(1, Result(ldap.BIND_RESPONSE, 0))]

    def test_a_search_reference_is_not_followed(self) -> None:
        assert decode(message("73 03 04 01 61")) == []

    def test_an_intermediate_response_is_passed_over(self) -> None:
        assert decode(message("79 00")) == []

    def test_a_notice_of_disconnection_has_number_zero(self) -> None:
        encoded = message(f"78 07 {SAID_YES}", number="02 01 00")

        assert decode(encoded) == [Received(0, Result(ldap.EXTENDED_RESPONSE, 0))]

    def test_a_number_may_be_large(self) -> None:
        encoded = message(f"61 07 {SAID_YES}", number="02 04 7fffffff")

        assert decode(encoded) == [Received(0x7FFFFFFF, Result(ldap.BIND_RESPONSE, 0))]


class TestFeeding:
    def test_what_is_fed_at_once_may_be_several_messages(self) -> None:
        assert Decoder().feed(MESSAGES) == FOUND

    def test_it_may_come_byte_by_byte(self) -> None:
        decoder = Decoder()

        parts = [decoder.feed(bytes([byte])) for byte in MESSAGES]

        assert list(itertools.chain(*parts)) == FOUND
        assert decoder.is_between_messages

    @pytest.mark.parametrize("cut", range(1, len(MESSAGES)))
    def test_it_may_be_cut_anywhere(self, cut: int) -> None:
        decoder = Decoder()

        found = decoder.feed(MESSAGES[:cut]) + decoder.feed(MESSAGES[cut:])

        assert found == FOUND

    @pytest.mark.parametrize("cut", range(1, len(YES)))
    def test_half_a_message_is_awaited(self, cut: int) -> None:
        decoder = Decoder()

        assert decoder.feed(YES[:cut]) == []
        assert not decoder.is_between_messages

    def test_a_message_and_a_half_is_one(self) -> None:
        decoder = Decoder()

        assert decoder.feed(ENTRY + YES[:5]) == FOUND[:1]
        assert not decoder.is_between_messages

    def test_nothing_may_be_fed(self) -> None:
        decoder = Decoder()

        assert decoder.feed(b"") == []
        assert decoder.is_between_messages

    def test_a_large_message_in_small_pieces_costs_no_more_than_in_one(self) -> None:
        value = hexadecimal("64 83 0f0000 04 83 0efff9") + bytes(0xEFFF9) + hexadecimal("30 00")
        data = hexadecimal("30 83 0f0008 02 01 01") + value
        decoder = Decoder()
        started = time.process_time()

        parts = [decoder.feed(data[at : at + 8]) for at in range(0, len(data), 8)]

        assert time.process_time() - started < 1.0  # copied again and again it takes four
        assert list(itertools.chain(*parts)) == [Received(1, Entry(bytes(0xEFFF9), {}))]


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        pytest.param("16 03 01", "a message of tag 0x16", id="tls"),
        pytest.param("48 54 54 50", "a message of tag 0x48", id="http"),
        pytest.param("2a 20 4f 4b", "a message of tag 0x2a", id="imap"),
        pytest.param("31 00", "a message of tag 0x31", id="set"),
        pytest.param("30 80", "indefinite", id="indefinite-length"),
        pytest.param("30 85 00", "too long", id="length-of-five-bytes"),
        pytest.param("30 83 100001", "a message of 1048582 bytes", id="too-large"),
        pytest.param("30 84 ffffffff", "a message of 4294967301 bytes", id="far-too-large"),
        pytest.param("30 00", "goes beyond its end", id="empty"),
        pytest.param(message("", number="04 01 61"), "tag 0x4 instead of 0x2", id="no-number"),
        pytest.param(message("", number="02 00"), "a number of no bytes", id="empty-number"),
        pytest.param(message(""), "no operation", id="no-operation"),
        pytest.param(message("60 00"), "an operation of tag 0x60", id="a-request"),
        pytest.param(message("04 00"), "an operation of tag 0x4", id="octets-for-an-operation"),
        pytest.param(message("1f 81 01 00"), "an operation of tag 0x1f", id="long-tag"),
        pytest.param(message("61 03 0a 01 00"), "goes beyond its end", id="result-too-short"),
        pytest.param(message("61 07 02 01 00 04 00 04 00"), "instead of 0xa", id="code-no-enum"),
        pytest.param(message("61 07 0a 01 00 05 00 04 00"), "instead of 0x4", id="name-no-text"),
        pytest.param(message("61 07 0a 01 00 04 00 05 00"), "instead of 0x4", id="text-no-text"),
        pytest.param(message("61 20 0a 01 00 04 00 04 00"), "goes beyond", id="result-too-long"),
        pytest.param(message(f"61 09 {SAID_YES} 87 05"), "goes beyond", id="credentials-too-long"),
        pytest.param(message(f"61 0c {SAID_YES} a3 03 02 01 61"), "0x4", id="referral-no-text"),
        pytest.param(message("64 00"), "goes beyond its end", id="entry-without-name"),
        pytest.param(message("64 02 04 00"), "goes beyond its end", id="entry-without-attributes"),
        pytest.param(message("64 04 04 00 31 00"), "instead of 0x30", id="attributes-no-sequence"),
        pytest.param(message("64 06 04 00 30 02 31 00"), "instead of 0x30", id="attribute-no-seq"),
        pytest.param(message("64 09 04 00 30 05 30 03 04 01 61"), "beyond", id="no-values"),
        pytest.param(
            message("64 0b 04 00 30 07 30 05 04 01 61 30 00"), "instead of 0x31", id="values-no-set"
        ),
        pytest.param(
            message("64 0d 04 00 30 09 30 07 04 01 61 31 02 02 00"), "0x4", id="value-no-text"
        ),
        pytest.param(message(f"61 07 {SAID_YES}", "a0 02 04 00"), "0x30", id="control-no-sequence"),
        pytest.param(message(f"61 07 {SAID_YES}", "a0 02 30 00"), "beyond", id="control-empty"),
        pytest.param(message(f"61 07 {SAID_YES}", "a0 09 30"), "beyond", id="controls-too-long"),
        pytest.param(
            message(f"61 07 {SAID_YES}", control(POLICY, "")), "beyond", id="policy-empty"
        ),
        pytest.param(
            message(f"61 07 {SAID_YES}", control(POLICY, "31 00")), "0x30", id="policy-no-sequence"
        ),
        pytest.param(
            message(f"61 07 {SAID_YES}", control(POLICY, "30 02 81 00")),
            "a number of no bytes",
            id="policy-error-empty",
        ),
    ],
)
class TestMalformedMessages:
    def test_they_are_refused(self, encoded: str, problem: str) -> None:
        with pytest.raises(MalformedMessage, match=problem):
            decode(encoded)

    def test_nothing_is_decoded_after_them(self, encoded: str, problem: str) -> None:
        decoder = Decoder()
        with pytest.raises(MalformedMessage):
            decoder.feed(hexadecimal(encoded))

        with pytest.raises(MalformedMessage, match=problem):
            decoder.feed(YES)


def test_messages_as_large_as_the_limit_are_taken() -> None:
    assert Decoder(len(YES)).feed(YES + YES) == FOUND[1:] * 2


def test_a_message_over_the_limit_is_refused_before_it_is_there() -> None:
    decoder = Decoder(len(YES) - 1)

    with pytest.raises(MalformedMessage, match=f"a message of {len(YES)} bytes"):
        decoder.feed(YES[:6])
