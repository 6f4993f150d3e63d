"""pysaslsmtpd between its clients and a server behind it."""

import asyncio
import base64
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.helpers.accounts import account, require_root
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.daemon import put
from tests.helpers.processes import free_port, short_directory, wait_for
from tests.helpers.smtp import greeting
from tests.helpers.smtp_server import Client, auth_plain, trusting_context
from tests.helpers.submission import Behind, Submission, behind, submission

JOE = auth_plain("joe", "joepw")
WRONG = auth_plain("joe", "wrong")
ANSWERS = {
    "MAIL busy@example.org": "451 4.3.2 try later",
    "MAIL leaving@example.org": "421 4.3.2 leaving",
    "RCPT nobody@foreign.example": "550 5.1.1 no such user here",
    "RCPT trouble@foreign.example": "hang up",
}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with short_directory("sm-") as directory:
        yield directory


@pytest.fixture(scope="module")
def certificate(directory: Path) -> Certificate:
    return Authority(directory).issue()


@pytest.fixture(scope="module")
def upstream() -> Behind:
    return Behind(ANSWERS)


@pytest.fixture(scope="module")
def running(directory: Path, certificate: Certificate, upstream: Behind) -> Iterator[Submission]:
    with (
        behind(upstream) as port,
        submission(
            directory,
            *("--relay", f"127.0.0.1:{port}", "--local-domain", "example.org"),
            *("--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.key)),
            *("--recipients", "3", "--message-size", "5000", "--broken-sasl-auth-clients"),
            within_tls=True,
        ) as server,
    ):
        yield server


@pytest.fixture
def client(running: Submission) -> Iterator[Client]:
    with Client(running.port) as client:
        client.say("EHLO client.test.example")
        yield client


@pytest.fixture
def joe(client: Client) -> Client:
    """Return a client who has logged in."""
    assert client.say(JOE) == ["235 2.7.0 Authentication successful"]
    return client


@pytest.mark.parametrize("line", ["MAIL FROM:<joe@example.org>", "MAIL FROM:<> AUTH=joe"])
def test_whoever_has_not_logged_in_hands_in_nothing(client: Client, line: str) -> None:
    assert client.say(line) == ["530 5.7.0 Authentication required"]
    assert client.say("RCPT TO:<ann@foreign.example>") == ["530 5.7.0 Authentication required"]
    assert client.say("DATA") == ["530 5.7.0 Authentication required"]


def test_whoever_was_refused_hands_in_nothing(running: Submission) -> None:
    with Client(running.port) as client:
        client.say("EHLO client.test.example")

        assert client.say(WRONG)[0].startswith("535 ")
        assert client.say("MAIL FROM:<a@b.example>") == ["530 5.7.0 Authentication required"]


def test_a_message_is_handed_over_as_it_is(joe: Client, upstream: Behind) -> None:
    content = "Subject: x\r\n\r\n..two dots\r\n...\r\nend\r\n"
    assert joe.say("MAIL FROM:<joe@example.org> BODY=8BITMIME") == ["250 2.1.0 Ok"]
    assert joe.say("RCPT TO:<ann@foreign.example>") == ["250 2.1.5 Ok"]
    assert joe.say("DATA")[0].startswith("354 ")
    reply = joe.say(content + ".")

    assert reply == ["250 2.0.0 Ok: queued as 1"]
    sender, recipients, handed_over = upstream.kept[-1]
    assert (sender, recipients) == ("joe@example.org", ["ann@foreign.example"])
    assert handed_over is not None
    assert handed_over.endswith(b"\r\nSubject: x\r\n\r\n.two dots\r\n..\r\nend\r\n")


def test_a_message_says_whence_it_came(running: Submission, upstream: Behind) -> None:
    with Client(running.port) as client:
        client.say("EHLO (evil\x01) client")
        client.start_tls()
        client.say("EHLO (evil)client")
        client.say(JOE)
        client.say("MAIL FROM:<joe@example.org>")
        client.say("RCPT TO:<ann@foreign.example>")
        client.say("DATA")
        client.say("Subject: x\r\n\r\nx\r\n.")

    handed_over = upstream.kept[-1][2] or b""
    assert handed_over.startswith(
        b"Received: from ?evil?client ([127.0.0.1])\r\n"
        b"\tby submit.test.example (pysaslsmtpd) with ESMTPSA;\r\n\t"
    )
    assert handed_over.count(b"\r\n\r\n") == 1


def test_a_message_is_no_way_to_smuggle_another(joe: Client, upstream: Behind) -> None:
    before = len(upstream.kept)
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    joe.say("DATA")
    joe.say("one\n.\nMAIL FROM:<evil@example.org>\r.\r\n.")

    assert len(upstream.kept) == before + 1
    handed_over = upstream.kept[-1][2] or b""
    assert handed_over.endswith(b"\r\none\r\n.\r\nMAIL FROM:<evil@example.org>\r\n.\r\n")


def test_each_recipient_gets_the_answer_of_the_server_behind(joe: Client, upstream: Behind) -> None:
    joe.say("MAIL FROM:<joe@example.org>")

    assert joe.say("RCPT TO:<nobody@foreign.example>") == ["550 5.1.1 no such user here"]
    assert joe.say("RCPT TO:<ann@foreign.example>") == ["250 2.1.5 Ok"]
    joe.say("DATA")
    assert joe.say("x\r\n.") == ["250 2.0.0 Ok: queued as 1"]
    assert upstream.kept[-1][1] == ["ann@foreign.example"]


def test_two_messages_in_a_row_are_two(joe: Client, upstream: Behind) -> None:
    before = len(upstream.kept)
    for _ in range(2):
        joe.say("MAIL FROM:<joe@example.org>")
        joe.say("RCPT TO:<ann@foreign.example>")
        joe.say("DATA")
        joe.say("x\r\n.")

    assert len(upstream.kept) == before + 2


def test_a_message_that_is_given_up_is_not_handed_over(joe: Client, upstream: Behind) -> None:
    before = len(upstream.kept)
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    assert joe.say("RSET") == ["250 OK"]

    assert joe.say("DATA") == ["503 Error: need RCPT command"]
    assert len(upstream.kept) == before


@pytest.mark.parametrize(
    ("sender", "reply"),
    [
        ("busy@example.org", "451 4.3.2 try later"),
        ("leaving@example.org", "451 4.3.2 leaving"),
    ],
)
def test_a_sender_gets_the_answer_of_the_server_behind(
    joe: Client, sender: str, reply: str
) -> None:
    assert joe.say(f"MAIL FROM:<{sender}>") == [reply]
    assert joe.say("RCPT TO:<ann@foreign.example>") == ["503 Error: need MAIL command"]


def test_a_server_behind_that_hangs_up_is_451(joe: Client) -> None:
    joe.say("MAIL FROM:<joe@example.org>")

    assert joe.say("RCPT TO:<trouble@foreign.example>")[0].startswith("451 4.4.2 ")
    assert joe.say("RCPT TO:<ann@foreign.example>")[0].startswith("451 4.4.2 ")


def test_there_are_only_so_many_recipients(joe: Client) -> None:
    joe.say("MAIL FROM:<joe@example.org>")
    for number in range(3):
        assert joe.say(f"RCPT TO:<r{number}@foreign.example>") == ["250 2.1.5 Ok"]

    assert joe.say("RCPT TO:<r3@foreign.example>") == ["452 4.5.3 Error: too many recipients"]


def test_a_message_is_only_so_large(running: Submission, joe: Client) -> None:
    assert joe.say("MAIL FROM:<joe@example.org> SIZE=5001")[0].startswith("552 ")
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    joe.say("DATA")

    assert joe.say("x" * 60 + ("\r\n" + "x" * 60) * 100 + "\r\n.")[0].startswith("552 ")
    assert "[from=joe@example.org] [to=] [reply=552 " in running.log()


@pytest.mark.parametrize("address", ["<a\x01b@c.example>", "<a\rb@c.example>"])
def test_an_address_that_is_no_line_is_refused(joe: Client, address: str) -> None:
    assert joe.say(f"MAIL FROM:{address}")[0][0] == "5"


@pytest.mark.parametrize("address", ["<a@=?utf-8?q?b=3E=53IZE=3D1?=>", "<a@[\r<]>"])
def test_an_address_does_not_end_before_its_end(joe: Client, address: str) -> None:
    assert joe.say(f"MAIL FROM:{address}") == ["553 5.1.3 Error: malformed address"]
    assert joe.say("MAIL FROM:<joe@example.org>") == ["250 2.1.0 Ok"]
    assert joe.say(f"RCPT TO:{address}") == ["553 5.1.3 Error: malformed address"]
    assert joe.say('RCPT TO:<"a> b"@foreign.example>') == ["250 2.1.5 Ok"]


def test_ehlo_tells_what_there_is(running: Submission) -> None:
    with Client(running.port) as client:
        said = client.say("EHLO client.test.example")

    names = "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 DIGEST-MD5 CRAM-MD5 PLAIN LOGIN"
    assert said == [
        "250-submit.test.example",
        "250-SIZE 5000",
        "250-STARTTLS",
        f"250-AUTH {names}",
        f"250-AUTH={names}",
        "250-8BITMIME",
        "250 HELP",
    ]


def test_login_and_message_may_come_after_starttls(running: Submission) -> None:
    with Client(running.port) as client:
        client.say("EHLO client.test.example")
        client.start_tls()
        client.say("EHLO client.test.example")

        assert client.say(JOE)[0].startswith("235 ")
        assert client.say("MAIL FROM:<joe@example.org>") == ["250 2.1.0 Ok"]


def test_login_and_message_may_come_within_tls(running: Submission) -> None:
    with Client(running.tls_port, trusting_context().wrap_socket) as client:
        said = client.say("EHLO client.test.example")

        assert "250-STARTTLS" not in said
        assert client.say(JOE)[0].startswith("235 ")
        assert client.say("MAIL FROM:<joe@example.org>") == ["250 2.1.0 Ok"]


def test_the_log_says_who_handed_in_what(running: Submission, joe: Client) -> None:
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    joe.say("DATA")
    joe.say("x\r\n.")

    assert (
        "message handed over: [user=joe@example.org] [remote=127.0.0.1] [from=joe@example.org]"
        " [recipients=1] [bytes=3] [relay=250 2.0.0 Ok: queued as 1]" in running.log()
    )
    assert "joepw" not in running.log()
    assert "Traceback" not in running.log()


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        pytest.param(
            ["MAIL FROM:<busy@example.org>"],
            "message refused: [user=joe@example.org] [remote=127.0.0.1] [from=busy@example.org]"
            " [to=] [reply=451 4.3.2 try later]",
            id="sender",
        ),
        pytest.param(
            ["MAIL FROM:<joe@example.org>", "RCPT TO:<nobody@foreign.example>"],
            "message refused: [user=joe@example.org] [remote=127.0.0.1] [from=joe@example.org]"
            " [to=nobody@foreign.example] [reply=550 5.1.1 no such user here]",
            id="recipient",
        ),
    ],
)
def test_the_log_says_what_was_refused(
    running: Submission, joe: Client, lines: list[str], line: str
) -> None:
    for said in lines:
        joe.say(said)

    assert line in running.log()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param(["AUTH FOO"], "Invalid authentication mechanism", id="mechanism"),
        pytest.param(["AUTH PLAIN ="], "PLAIN: not authzid, authcid and password", id="no-message"),
        pytest.param(
            ["AUTH PLAIN a=b"], "Invalid base64 data in initial response", id="initial-response"
        ),
        pytest.param(
            ["AUTH LOGIN", "a=b"], "Invalid base64 data in continued response", id="response"
        ),
    ],
)
def test_the_log_says_who_failed_before_there_was_a_question(
    running: Submission, client: Client, lines: list[str], reason: str
) -> None:
    before = running.log().count(f"[reason={reason}]")

    for said in lines:
        client.say(said)

    assert running.log().count(f"[reason={reason}]") == before + 1


def test_an_empty_realm_makes_no_second_name_of_a_user(client: Client) -> None:
    reply = client.say("AUTH PLAIN " + base64.b64encode(b"\0joe@\0joepw").decode())

    assert reply[0].startswith("535 ")


class Undecided(Behind):
    """Has the message, and does not say so."""

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        await super().handle_DATA(server, session, envelope)
        await asyncio.Event().wait()
        raise AssertionError


def test_the_log_says_who_handed_in_what_and_went(directory: Path) -> None:
    upstream = Undecided()
    with (
        behind(upstream) as port,
        submission(
            directory, "--relay", f"127.0.0.1:{port}", "--local-domain", "example.org"
        ) as server,
    ):
        with Client(server.port) as client:
            client.say("EHLO client.test.example")
            client.say(JOE)
            client.say("MAIL FROM:<joe@example.org>")
            client.say("RCPT TO:<ann@foreign.example>")
            client.say("DATA")
            client.say_nothing_more(b"x\r\n.\r\n")
            wait_for(lambda: bool(upstream.kept), "the message")

        wait_for(
            lambda: "message given up: [user=joe@example.org] [remote=127.0.0.1]" in server.log(),
            "a line",
        )


def test_without_a_server_behind_nothing_is_taken() -> None:
    with (
        short_directory("sm-") as own,
        submission(
            own, "--relay", f"127.0.0.1:{free_port()}", "--local-domain", "example.org"
        ) as s,
        Client(s.port) as client,
    ):
        client.say("EHLO client.test.example")
        client.say(JOE)

        assert client.say("MAIL FROM:<joe@example.org>")[0].startswith("451 4.4.1 ")


def test_a_message_of_empty_lines_takes_no_more_room(upstream: Behind) -> None:
    with (
        short_directory("sm-") as own,
        behind(upstream) as port,
        submission(own, "--relay", f"127.0.0.1:{port}", "--local-domain", "example.org") as server,
        Client(server.port) as client,
    ):
        client.say("EHLO client.test.example")
        client.say(JOE)
        client.say("MAIL FROM:<joe@example.org>")
        client.say("RCPT TO:<ann@foreign.example>")
        client.say("DATA")
        before = most_memory(server)

        assert client.say(b"\r\n" * 1_000_000 + b".")[0].startswith("552 ")
        assert most_memory(server) - before < 30_000


def most_memory(server: Submission) -> int:
    """Return the most kilobytes that the front has had so far."""
    children = Path(f"/proc/{server.server.pid}/task/{server.server.pid}/children")
    status = Path(f"/proc/{children.read_text().split()[0]}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        pytest.param(b".", "250 ", id="nothing"),
        pytest.param(b"x" * 12_000 + b"\r\n.", "552 ", id="too-large"),
        pytest.param(b"x" * 13_000 + b"\r\n.", "500 ", id="line-too-long"),
        pytest.param(b"x" * 20_000 + b".\r\n.\n.\r\nx\r\n.", "500 ", id="longer"),
    ],
)
def test_a_message_has_one_answer(
    joe: Client, upstream: Behind, content: bytes, reply: str
) -> None:
    before = len(upstream.kept)
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    joe.say("DATA")

    assert joe.say(content)[0][:4] == reply
    assert joe.say("NOOP") == ["250 OK"]
    assert len(upstream.kept) - before == (reply == "250 ")


def test_a_line_without_an_end_is_not_kept(joe: Client) -> None:
    joe.say("MAIL FROM:<joe@example.org>")
    joe.say("RCPT TO:<ann@foreign.example>")
    joe.say("DATA")

    assert joe.is_cut_off_by(b"x" * 10_000, times=3000)


HOSTILE = [
    pytest.param([b"\0\xff\r\n" * 3], id="bytes"),
    pytest.param([b"AUTH PLAIN\r\n"], id="auth"),
    pytest.param([b"AUTH PLAIN\r\n", b"\xff" * 20_000], id="response"),
    pytest.param([b"AUTH SCRAM-SHA-256 biwsbj1qb2Uscj14\r\n"], id="scram"),
    pytest.param([f"{JOE}\r\nMAIL FROM:<joe@example.org>\r\n".encode()], id="mail"),
    pytest.param(
        [f"{JOE}\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nx".encode()],
        id="data",
    ),
    pytest.param([b"STARTTLS\r\n", b"no handshake\r\n"], id="starttls"),
]


@pytest.mark.parametrize("lines", HOSTILE)
def test_a_client_that_breaks_off_leaves_no_trace(running: Submission, lines: list[bytes]) -> None:
    before = len(running.log())
    with Client(running.port) as client:
        client.say("EHLO client.test.example")
        for line in lines:
            client.say_nothing_more(line)
        client.break_off()

    with Client(running.port) as other:
        assert other.say("NOOP") == ["250 OK"]
    assert "Traceback" not in running.log()[before:]
    assert "fault" not in running.log()[before:]


def test_senders_may_have_to_be_who_they_are(upstream: Behind) -> None:
    with (
        short_directory("sm-") as own,
        behind(upstream) as port,
        submission(
            own,
            *("--relay", f"127.0.0.1:{port}", "--local-domain", "example.org", "--own-senders"),
        ) as server,
        Client(server.port) as client,
    ):
        client.say("EHLO client.test.example")
        client.say(JOE)

        said = client.say("MAIL FROM:<ann@example.org>")
        assert said[0].startswith("553 5.7.1 <ann@example.org>: Sender address rejected: not own")
        assert client.say("MAIL FROM:<Joe@Example.org>") == ["250 2.1.0 Ok"]
        client.say("RSET")
        assert client.say("MAIL FROM:<>") == ["250 2.1.0 Ok"]


def test_a_name_may_be_of_any_letters(upstream: Behind) -> None:
    with short_directory("sm-") as own, behind(upstream) as port:
        put(own / "sasldb2", "example.org", "jörg", b"joepw")
        (own / "sasldb2").chmod(0o644)
        relay = ("--relay", f"127.0.0.1:{port}", "--local-domain", "example.org", "--own-senders")
        with submission(own, *relay) as server, Client(server.port) as client:
            client.say("EHLO client.test.example")
            right = base64.b64encode("\0jörg\0joepw".encode()).decode()

            assert client.say(f"AUTH PLAIN {right}")[0].startswith("235 ")
            assert client.say("MAIL FROM:<j@example.org>")[0].endswith(
                "by user j\\xf6rg@example.org"
            )


def test_nobody_logs_in_before_tls_where_it_is_needed(certificate: Certificate) -> None:
    with (
        short_directory("sm-") as own,
        submission(
            own,
            *("--auth-only-with-tls", "--tls-cert", str(certificate.certificate)),
            *("--tls-key", str(certificate.key), "--local-domain", "example.org"),
        ) as server,
        Client(server.port) as client,
    ):
        said = client.say("EHLO client.test.example")
        assert not [line for line in said if "AUTH" in line]
        assert client.say(JOE)[0].startswith("504 5.5.4 ")
        client.start_tls()
        client.say("EHLO client.test.example")

        assert client.say(JOE)[0].startswith("235 ")
        assert client.say("MAIL FROM:<joe@example.org>")[0].startswith("451 4.3.5 ")


def test_options_that_leave_no_mechanism_are_warned_of() -> None:
    with (
        short_directory("sm-") as own,
        submission(own, "--security-options", "forward_secrecy") as server,
        Client(server.port) as client,
    ):
        said = client.say("EHLO client.test.example")

        assert not [line for line in said if "AUTH" in line]
        assert client.say(JOE) == ["503 5.5.1 Error: authentication not enabled"]
        assert "nobody can log in without TLS" in server.log()


def test_a_backend_for_whose_mechanisms_nothing_is_left_is_warned_of() -> None:
    flags = ["-a", "rimap", "-O", "localhost", "--security-options", "noplaintext"]
    with (
        short_directory("sm-") as own,
        submission(own, *flags) as server,
        Client(server.port) as client,
    ):
        assert "AUTH" not in "".join(client.say("EHLO client.test.example"))
        assert "nobody can log in without TLS" in server.log()


def test_noplaintext_leaves_those_that_show_no_password_and_old_clients_a_line_of_their_own() -> (
    None
):
    flags = [
        *("--mech-list", "PLAIN LOGIN CRAM-MD5 DIGEST-MD5", "--broken-sasl-auth-clients"),
        *("--security-options", "noanonymous, noplaintext"),
    ]
    with (
        short_directory("sm-") as own,
        submission(own, *flags) as server,
        Client(server.port) as client,
    ):
        said = client.say("EHLO client.test.example")

    assert [line for line in said if "AUTH" in line] == [
        "250-AUTH DIGEST-MD5 CRAM-MD5",
        "250-AUTH=DIGEST-MD5 CRAM-MD5",
    ]


def test_who_says_twice_who_it_is_is_let_in() -> None:
    with short_directory("sm-") as own:
        put(own / "sasldb2", "example.org", "tom", b"mypass")
        (own / "sasldb2").chmod(0o644)
        with (
            submission(own, "--local-domain", "example.org") as server,
            Client(server.port) as client,
        ):
            client.say("EHLO client.test.example")

            assert client.say("AUTH PLAIN dG9tAHRvbQBteXBhc3M=")[0].startswith("235 ")


def test_a_list_of_mechanisms_is_all_that_is_offered() -> None:
    with (
        short_directory("sm-") as own,
        submission(own, "--mech-list", "plain, cram-md5") as server,
        Client(server.port) as client,
    ):
        said = client.say("EHLO client.test.example")

    assert "250-AUTH CRAM-MD5 PLAIN" in said


def test_there_are_only_so_many_connections() -> None:
    with (
        short_directory("sm-") as own,
        submission(own, "--connections", "2") as server,
        Client(server.port) as first,
        Client(server.port) as second,
        Client(server.port, hears=False) as third,
    ):
        assert third.hear() == ["421 4.7.0 submit.test.example Error: too many connections"]
        assert third.hear() == []
        assert first.say("NOOP") == second.say("NOOP") == ["250 OK"]


def test_who_has_not_yet_begun_with_tls_counts(certificate: Certificate) -> None:
    with (
        short_directory("sm-") as own,
        submission(
            own,
            *("--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.key)),
            *("--connections", "2"),
            within_tls=True,
        ) as server,
    ):
        with (
            Client(server.tls_port, hears=False),
            Client(server.tls_port, hears=False),
            Client(server.tls_port, hears=False) as third,
        ):
            assert third.hear() == ["421 4.7.0 submit.test.example Error: too many connections"]
        wait_for(lambda: greeting(server.port).startswith("220"), "room for another")

        with Client(server.tls_port, trusting_context().wrap_socket) as client:
            assert client.say("NOOP") == ["250 OK"]
            with Client(server.tls_port, hears=False):
                assert server.server.stop(deadline=4) == 0


def test_a_front_that_dies_is_replaced_and_the_ports_stay_open() -> None:
    with (
        short_directory("sm-") as own,
        submission(own, "--local-domain", "example.org") as server,
    ):
        children = Path(f"/proc/{server.server.pid}/task/{server.server.pid}/children")
        (front,) = children.read_text().split()
        os.kill(int(front), signal.SIGKILL)

        with Client(server.port) as client:
            client.say("EHLO client.test.example")
            assert client.say(JOE)[0].startswith("235 ")
        assert "starting another" in server.log()


def test_new_settings_need_a_restart() -> None:
    with short_directory("sm-") as own, submission(own) as server:
        os.kill(server.server.pid, signal.SIGHUP)

        wait_for(lambda: "not reloaded: pysaslsmtpd takes" in server.log(), "the refusal")
        with Client(server.port) as client:
            assert client.say("NOOP") == ["250 OK"]


def test_what_talks_to_clients_is_not_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)
    with short_directory("sm-") as own, submission(own) as server:
        children = Path(f"/proc/{server.server.pid}/task/{server.server.pid}/children")
        (front,) = children.read_text().split()
        status = Path(f"/proc/{front}/status").read_text()

    assert "Uid:\t0" not in status
    assert "CapEff:\t0000000000000000" in status


def test_leaving_is_told_and_not_delayed() -> None:
    with short_directory("sm-") as own, submission(own) as server, Client(server.port) as client:
        client.say("EHLO client.test.example")

        assert server.server.stop(deadline=10) == 0
        assert client.hear() == ["421 4.3.2 submit.test.example Error: this server is leaving"]


def test_a_backend_that_needs_root_and_workers_works(
    lacking: Callable[[str], NoReturn],
) -> None:
    require_root(lacking)
    with (
        short_directory("sm-") as own,
        account("anns password") as name,
        submission(own, "-a", "shadow", "--mech-list", "PLAIN") as server,
        Client(server.port) as client,
    ):
        said = client.say("EHLO client.test.example")

        assert "250-AUTH PLAIN" in said
        assert client.say(auth_plain(name, "joes password"))[0].startswith("535 ")
        assert client.say(auth_plain(name, "anns password"))[0].startswith("235 ")


def test_nobody_is_of_a_realm_that_the_backend_does_not_look_at(
    lacking: Callable[[str], NoReturn],
) -> None:
    require_root(lacking)
    with (
        short_directory("sm-") as own,
        account("anns password") as name,
        submission(own, "-a", "shadow", "--local-domain", "example.org") as server,
        Client(server.port) as client,
    ):
        client.say("EHLO client.test.example")
        other = auth_plain(f"{name}@boss.example", "anns password")
        right = auth_plain(f"{name}@example.org", "anns password")

        assert client.say(other)[0].startswith("535 ")
        assert client.say(right)[0].startswith("235 ")


def test_a_silent_client_is_let_go() -> None:
    with (
        short_directory("sm-") as own,
        submission(own, "--idle-after", "1") as server,
        Client(server.port) as client,
    ):
        assert client.hear() == ["421 4.4.2 submit.test.example Error: timeout exceeded"]
        assert client.hear() == []
