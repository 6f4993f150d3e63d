"""The Dovecot auth-client protocol; the labelled lines were tried on Dovecot 2.3.19 too."""

import base64

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Origin, Secret
from pysaslauthd.wire.dovecot import (
    GARBLED,
    LONGEST_LINE,
    About,
    Auth,
    Cancel,
    Continue,
    Decoder,
    Garbled,
    Message,
    encode_challenge,
    encode_failure,
    encode_greeting,
    encode_success,
)

HELLO = b"VERSION\t1\t2\nCPID\t77\n"
SMTP = About(Origin("smtp", mechanism="PLAIN"))
PASSWORD = b"\0joe\0hunter2"
IN_BASE64 = base64.b64encode(PASSWORD)


def messages(data: bytes, hello: bytes = HELLO) -> list[Message]:
    return list(Decoder().feed(hello + data))


def about(parameters: bytes) -> About:
    (message,) = messages(b"AUTH\t1\tPLAIN\t" + parameters + b"\n")
    assert isinstance(message, Auth)
    return message.about


def initial(field: bytes, hello: bytes = HELLO) -> Secret | Garbled | None:
    (message,) = messages(b"AUTH\t1\tPLAIN\tservice=smtp" + field + b"\n", hello)
    assert isinstance(message, Auth)
    return message.initial


def test_a_request_is_what_it_says() -> None:
    found = messages(b"AUTH\t4\tPLAIN\tservice=smtp\tresp=%b\n" % IN_BASE64)

    assert found == [Auth(4, "PLAIN", SMTP, Secret(PASSWORD))]


def test_a_response_and_a_cancelling_are_what_they_say() -> None:
    found = messages(b"CONT\t4\t%b\nCONT\t5\t\nCANCEL\t6\n" % IN_BASE64)

    assert found == [Continue(4, Secret(PASSWORD)), Continue(5, Secret(b"")), Cancel(6)]


def test_what_a_client_says_is_in_no_repr() -> None:
    found = messages(
        b"AUTH\t4\tPLAIN\tservice=smtp\tresp=%b\nCONT\t4\t%b\n" % (IN_BASE64, IN_BASE64)
    )

    assert "hunter2" not in repr(found)
    assert IN_BASE64.decode() not in repr(found)


def test_bytes_may_come_one_by_one() -> None:
    decoder = Decoder()
    data = HELLO + b"AUTH\t1\tPLAIN\tservice=smtp\nCANCEL\t1\n"

    found = [message for at in range(len(data)) for message in decoder.feed(data[at : at + 1])]

    assert found == [Auth(1, "PLAIN", SMTP, None), Cancel(1)]


def test_messages_before_a_malformed_line_are_there() -> None:
    found = Decoder().feed(HELLO + b"CANCEL\t1\nnonsense\n")

    assert next(found) == Cancel(1)
    with pytest.raises(MalformedMessage):
        next(found)


@pytest.mark.parametrize(
    "hello",
    [
        b"VERSION\t1\t0\nCPID\t77\n",
        b"VERSION\t1\t4294967295\nCPID\t4294967295\n",
        b"VERSION\t01\t2\nCPID\t77\n",
        b"VERSION\t1\t2\r\nCPID\t77\r\n",
    ],
    ids=["minor 0", "large numbers", "leading zero", "CR"],
)
def test_a_handshake_is_followed_by_commands(hello: bytes) -> None:
    assert messages(b"CANCEL\t1\n", hello) == [Cancel(1)]


@pytest.mark.parametrize(
    "data",
    [
        b"CPID\t77\n",
        b"AUTH\t1\tPLAIN\tservice=smtp\n",
        b"VERSION\t2\t0\n",
        b"VERSION\t1\n",
        b"VERSION\t1\t\n",
        b"VERSION\t1\tx\n",
        b"VERSION\t1\t-1\n",
        b"VERSION\t1\t4294967296\n",
        b"VERSION\t1\t2\tx\n",
        b"VERSION\t1\t2\nVERSION\t1\t2\n",
        b"VERSION\t1\t2\nAUTH\t1\tPLAIN\tservice=smtp\n",
        b"VERSION\t1\t2\nCPID\n",
        b"VERSION\t1\t2\nCPID\t0\n",
        b"VERSION\t1\t2\nCPID\t+7\n",
        b"VERSION\t1\t2\nCPID\t77\tx\n",
        b"VERSION\t1\t2\nCPID\t4294967296\n",
        HELLO + b"VERSION\t1\t2\n",
        HELLO + b"CPID\t77\n",
        HELLO + b"\n",
        HELLO + b"auth\t1\tPLAIN\tservice=smtp\n",
        HELLO + b"PASS\t1\tjoe\n",
        HELLO + b"AUTH\n",
        HELLO + b"AUTH\t0\tPLAIN\tservice=smtp\n",
        HELLO + b"AUTH\tx\tPLAIN\tservice=smtp\n",
        HELLO + b"AUTH\t 1\tPLAIN\tservice=smtp\n",
        HELLO + b"AUTH\t\xb2\tPLAIN\tservice=smtp\n",
        HELLO + b"AUTH\t4294967296\tPLAIN\tservice=smtp\n",
        HELLO + b"AUTH\t1\n",
        HELLO + b"AUTH\t1\tPLAIN\n",
        HELLO + b"AUTH\t1\tPLAIN\tnologin\n",
        HELLO + b"AUTH\t1\tPLAIN\tresp=\n",
        HELLO + b"AUTH\t1\tPLAIN\tservice=smtp\tresp=\tsecured\n",
        HELLO + b"AUTH\t1\tPLAIN\tservice=sm\0tp\n",
        HELLO + b"AUTH\t1\tPLAIN\tservice=sm\x010tp\n",
        HELLO + b"CONT\n",
        HELLO + b"CONT\t4\n",
        HELLO + b"CONT\tx\tAAAA\n",
        HELLO + b"CONT\t4294967296\tAAAA\n",
        HELLO + b"CANCEL\n",
        HELLO + b"CANCEL\tx\n",
        HELLO + b"CANCEL\t5\textra\n",
    ],
    ids=repr,
)
def test_a_line_for_which_dovecot_closes_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        messages(data, b"")


def test_a_service_has_an_end() -> None:
    with pytest.raises(MalformedMessage, match="more than 256"):
        messages(b"AUTH\t1\tPLAIN\tservice=%b\n" % (b"x" * 257))


def test_the_longest_line_is_one() -> None:
    line = b"AUTH\t1\tPLAIN\tservice=smtp\tx="

    assert messages(line.ljust(LONGEST_LINE - 1, b"x") + b"\n") == [Auth(1, "PLAIN", SMTP, None)]


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["unfinished", "whole"])
def test_a_longer_line_is_malformed(end: bytes) -> None:
    with pytest.raises(MalformedMessage, match="16384"):
        messages(b"AUTH\t1\tPLAIN\tservice=smtp\tx=".ljust(LONGEST_LINE, b"x") + end)


def test_a_mechanism_is_the_same_in_any_case() -> None:
    assert messages(b"AUTH\t1\tplain\tservice=smtp\n") == [Auth(1, "PLAIN", SMTP, None)]


class TestWhatIsToldOfTheClient:
    def test_address_and_port_are_one(self) -> None:
        found = about(b"service=smtp\trip=2001:db8::7\trport=4711")

        assert found.origin == Origin("smtp", "2001:db8::7;4711", "PLAIN")

    def test_it_may_be_told_where_the_client_came_to(self) -> None:
        found = about(b"service=smtp\tlip=::1\tlport=25")

        assert found.origin == Origin("smtp", "", "PLAIN", "::1;25")

    def test_an_address_may_stand_alone(self) -> None:
        assert about(b"service=smtp\trip=192.0.2.7").origin == Origin("smtp", "192.0.2.7", "PLAIN")

    @pytest.mark.parametrize(
        "port", [b"0", b"65536", b"x", b"-1", b"", b"99999999999999", b"00000000251"]
    )
    def test_what_is_no_port_is_ignored(self, port: bytes) -> None:
        assert about(b"service=smtp\trip=192.0.2.7\trport=" + port).origin.remote == "192.0.2.7"

    @pytest.mark.parametrize(
        "address", [b"", b"garbage", b"fe80::1%\x01n", b"\xff", b"fe80::1%".ljust(257, b"x")]
    )
    def test_what_is_no_address_is_ignored(self, address: bytes) -> None:
        assert about(b"service=smtp\trport=1\trip=" + address).origin.remote == ""

    @pytest.mark.parametrize("said", [b"secured", b"secured=tls"])
    def test_a_connection_may_be_secured(self, said: bytes) -> None:
        assert about(b"service=smtp\t" + said).secured
        assert not about(b"service=smtp").secured

    @pytest.mark.parametrize(
        ("said", "name"),
        [
            (b"valid-client-cert\tcert_username=joe", "joe"),
            (b"valid-client-cert\tcert_username=a\x01\x01b", None),
            (b"valid-client-cert\tcert_username=", None),
            (b"valid-client-cert\tcert_username=jo\xff", None),
            (b"valid-client-cert", None),
            (b"cert_username=joe", None),
            (b"valid-client-cert\tcert_username=" + b"x" * 257, None),
        ],
        ids=["both", "unprintable", "empty", "not UTF-8", "no name", "not valid", "too long"],
    )
    def test_a_certificate_counts_if_it_is_valid_and_names_somebody(
        self, said: bytes, name: str | None
    ) -> None:
        assert about(b"service=smtp\t" + said).certificate == name

    def test_wishes_are_heard(self) -> None:
        found = about(b"service=smtp\tfinal-resp-ok\tnodelay")

        assert found == SMTP._replace(final_beside_success=True, nodelay=True)

    def test_what_is_unknown_is_ignored(self) -> None:
        assert about(b"nologin\t\tservice=smtp\tlip=garbage\tsession=x\t=\tno-penalty\t") == SMTP

    @pytest.mark.parametrize("said", [b"protocol=smtp", b"service=smtp\tprotocol=lmtp"])
    def test_newer_clients_name_a_protocol(self, said: bytes) -> None:
        assert about(said) == SMTP

    @pytest.mark.parametrize(
        ("said", "service"),
        [
            (b"a\x01tb", "a\tb"),
            (b"a\x01nb\x01r", "a\nb\r"),
            (b"a\x01\x011b", "a\x011b"),
            (b"a\x011b", "a\x01b"),
            (b"a\x01xb", "axb"),
            (b"a\x01", "a"),
            (b"\xff", "\ufffd"),
            (b"", ""),
        ],
        ids=repr,
    )
    def test_values_are_unescaped(self, said: bytes, service: str) -> None:
        assert about(b"service=" + said).origin.service == service


class TestInitialResponses:
    @pytest.mark.parametrize("minor", [b"0", b"1"])
    def test_an_old_client_that_writes_an_empty_one_has_none(self, minor: bytes) -> None:
        assert initial(b"\tresp=", HELLO.replace(b"\t2\n", b"\t%b\n" % minor)) is None

    @pytest.mark.parametrize("minor", [b"2", b"3", b"4"])
    def test_that_of_a_newer_client_is_empty(self, minor: bytes) -> None:
        assert initial(b"\tresp=", HELLO.replace(b"\t2\n", b"\t%b\n" % minor)) == Secret(b"")

    @pytest.mark.parametrize("minor", [b"0", b"2"])
    def test_an_equals_sign_is_an_empty_one(self, minor: bytes) -> None:
        assert initial(b"\tresp==", HELLO.replace(b"\t2\n", b"\t%b\n" % minor)) == Secret(b"")

    def test_there_need_be_none(self) -> None:
        assert initial(b"") is None

    @pytest.mark.parametrize(
        "text", [b"!!!!", b"AGpvZQBwdw", b"===", b"AA==AA==", b"\xff", b"AA A="]
    )
    def test_what_is_no_base64_is_told_so(self, text: bytes) -> None:
        assert initial(b"\tresp=" + text) == GARBLED
        assert messages(b"CONT\t1\t" + text + b"\n") == [Continue(1, GARBLED)]

    def test_a_response_with_another_field_is_garbled(self) -> None:
        assert messages(b"CONT\t1\tAAAA\tmore\n") == [Continue(1, GARBLED)]


class TestReplies:
    def test_a_greeting_is_whole(self) -> None:
        found = encode_greeting([("PLAIN", ["plaintext"]), ("EXTERNAL", [])], 17, 3, "ab12")

        assert found == (
            b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tEXTERNAL\n"
            b"SPID\t17\nCUID\t3\nCOOKIE\tab12\nDONE\n"
        )

    @pytest.mark.parametrize(
        ("data", "line"), [(b"", b"CONT\t4\t\n"), (b"Username:", b"CONT\t4\tVXNlcm5hbWU6\n")]
    )
    def test_a_challenge_has_its_field_even_if_empty(self, data: bytes, line: bytes) -> None:
        assert encode_challenge(4, data) == line

    def test_a_success_names_the_user(self) -> None:
        assert encode_success(1, "j\u00f6e") == "OK\t1\tuser=j\u00f6e\n".encode()

    def test_a_success_may_say_more_of_the_mechanism(self) -> None:
        found = encode_success(1, "x", is_anonymous=True, final=b"v=1")

        assert found == b"OK\t1\tuser=x\tanonymous\tresp=dj0x\n"

    def test_a_failure_says_what_is_known(self) -> None:
        assert encode_failure(6) == b"FAIL\t6\n"
        assert encode_failure(7, "joe", "temp_fail") == b"FAIL\t7\tuser=joe\tcode=temp_fail\n"
        assert encode_failure(8, reason="no") == b"FAIL\t8\treason=no\n"

    def test_no_value_ends_its_field(self) -> None:
        assert (
            encode_failure(1, "a\tb\nc\rd\0e\1f")
            == b"FAIL\t1\tuser=a\x01tb\x01nc\x01rd\x010e\x011f\n"
        )
