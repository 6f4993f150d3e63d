"""Our AUTH in servers that aiosmtpd makes."""

import asyncio
import base64
import logging
import re
import smtplib
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import AuthRequest, AuthResult, Unavailable
from pysaslauthd.sasl.server.mechanism import ChannelBinding
from pysaslauthd.server import smtp
from pysaslauthd.server.auth import Login
from pysaslauthd.server.smtp import SaslSMTP
from pysaslauthd.smtp.dialogue import Tries
from pysaslauthd.smtp.options import Policy, SecurityOptions
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.daemon import environment
from tests.helpers.processes import DEADLINE, free_port, wait_for
from tests.helpers.smtp import greeting
from tests.helpers.smtp_server import (
    HOST,
    Client,
    Keeper,
    auth,
    server_context,
    smtp_server,
    trusting_context,
)

GUIDE = Path(__file__).parents[2] / "docs" / "aiosmtpd.md"
RIGHT = "AUTH PLAIN " + base64.b64encode(b"\0joe\0joepw").decode()
WRONG = "AUTH PLAIN " + base64.b64encode(b"\0joe\0wrong").decode()
SUCCESS = ["235 2.7.0 Authentication successful"]
PATIENCE = 2.5  # seconds of a server, in which a client says something on a busy machine, too
REFUSED = ["535 5.7.8 Error: authentication failed: authentication failure"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("pki")).issue()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Return the port of a server without TLS."""
    with smtp_server(auth(), auth_required=True) as port:
        yield port


@pytest.fixture(scope="module")
def tls_port(certificate: Certificate) -> Iterator[int]:
    """Return the port of a server that lets nobody log in before STARTTLS."""
    made = auth(Policy(only_with_tls=True), broken_clients=True)
    with smtp_server(made, tls_context=server_context(certificate), auth_required=True) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with Client(port) as client:
        client.say("EHLO client.test.example")
        yield client


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_pythons_own_client_logs_in_and_sends(mechanism: str) -> None:
    keeper = Keeper()
    with (
        smtp_server(auth(), keeper, auth_required=True) as port,
        smtplib.SMTP("127.0.0.1", port, timeout=10) as sender,
    ):
        sender.ehlo()
        sender.user, sender.password = "joe", "joepw"
        sender.auth(mechanism, getattr(sender, f"auth_{mechanism.lower().replace('-', '_')}"))
        sender.sendmail("joe@test.example", ["ann@test.example"], b"Subject: x\r\n\r\nx\r\n")

    assert keeper.kept == [
        (Login("joe", "joe", mechanism), "joe@test.example", ["ann@test.example"])
    ]


def test_a_right_password_is_accepted(client: Client) -> None:
    assert client.say(RIGHT) == SUCCESS


def test_a_wrong_password_is_not(client: Client) -> None:
    assert client.say(WRONG) == REFUSED
    assert client.say("MAIL FROM:<a@b.example>") == ["530 5.7.0 Authentication required"]


def test_nobody_sends_without_having_logged_in(client: Client) -> None:
    assert client.say("MAIL FROM:<a@b.example>") == ["530 5.7.0 Authentication required"]


def test_auth_before_a_greeting_is_out_of_order(port: int) -> None:
    with Client(port) as client:
        assert client.say(RIGHT) == ["503 5.5.1 Error: send HELO/EHLO first"]


def test_ehlo_tells_the_mechanisms_the_strongest_first(client: Client) -> None:
    said = client.say("EHLO client.test.example")

    assert said == [
        f"250-{HOST}",
        "250-SIZE 33554432",
        "250-AUTH SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 DIGEST-MD5 CRAM-MD5 PLAIN LOGIN",
        "250-8BITMIME",
        "250 HELP",
    ]


def test_ehlo_tells_of_no_mechanism_before_tls_where_it_is_needed(tls_port: int) -> None:
    with Client(tls_port) as client:
        said = client.say("EHLO client.test.example")

        assert said[1:3] == ["250-SIZE 33554432", "250-STARTTLS"]
        assert not [line for line in said if "AUTH" in line]
        assert client.say(RIGHT)[0].startswith("504 5.5.4 Encryption required")


def test_ehlo_tells_of_them_after_starttls(tls_port: int) -> None:
    with Client(tls_port) as client:
        client.say("EHLO client.test.example")
        client.start_tls()
        said = client.say("EHLO client.test.example")

        assert said[2].startswith("250-AUTH SCRAM-SHA-512 ")
        assert said[3].startswith("250-AUTH=SCRAM-SHA-512 ")
        assert client.say(RIGHT) == SUCCESS


def test_starttls_forgets_who_logged_in_before(certificate: Certificate) -> None:
    context = server_context(certificate)
    with (
        smtp_server(auth(), tls_context=context, auth_required=True) as port,
        Client(port) as client,
    ):
        client.say("EHLO client.test.example")
        assert client.say(RIGHT) == SUCCESS
        client.start_tls()
        client.say("EHLO client.test.example")

        assert client.say("MAIL FROM:<a@b.example>") == ["530 5.7.0 Authentication required"]
        assert client.say(RIGHT) == SUCCESS


def test_tls_from_the_beginning_is_tls(certificate: Certificate) -> None:
    made = auth(Policy(SecurityOptions.parse("forward_secrecy"), only_with_tls=True))
    with (
        smtp_server(made, within_tls=server_context(certificate)) as port,
        Client(port, trusting_context().wrap_socket) as client,
    ):
        said = client.say("EHLO client.test.example")

        assert [line for line in said if "AUTH" in line]
        assert client.say(RIGHT) == SUCCESS


def test_a_response_may_follow_the_challenge(client: Client) -> None:
    assert client.say("AUTH PLAIN") == ["334 "]
    assert client.say(base64.b64encode(b"\0joe\0joepw")) == SUCCESS


def test_a_client_may_give_up(client: Client) -> None:
    client.say("AUTH PLAIN")

    assert client.say("*") == ["501 5.7.0 Authentication aborted"]
    assert client.say("NOOP") == ["250 OK"]


@pytest.mark.parametrize("length", [12289, 12400, 50_000, 400_000])
def test_a_response_that_is_too_long_ends_the_exchange_only(client: Client, length: int) -> None:
    client.say("AUTH PLAIN")

    assert client.say(b"A" * length) == ["500 5.5.6 SASL response limit exceeded"]
    assert client.say("NOOP") == ["250 OK"]


def test_a_long_response_may_come_at_once(client: Client) -> None:
    long = base64.b64encode(b"\0joe\0" + b"x" * 9000).decode()

    said = client.say(f"AUTH PLAIN {long}")

    # PLAIN's word for it, and not aiosmtpd's for a long command.
    assert said == ["535 5.7.8 Error: authentication failed: bad protocol / cancel"]


def test_nobody_logs_in_twice(client: Client) -> None:
    client.say(RIGHT)

    assert client.say(RIGHT) == ["503 5.5.1 Error: already authenticated"]


def test_nobody_logs_in_within_a_message(client: Client) -> None:
    client.say(RIGHT)
    client.say("MAIL FROM:<a@b.example>")

    assert client.say("AUTH PLAIN") == ["503 5.5.1 Error: MAIL transaction in progress"]


@pytest.mark.parametrize(
    "parameter", ["AUTH=<>", "auth=e+3Dmc2@example.com SIZE=9", "SIZE=9 AUTH=x"]
)
def test_who_is_said_to_have_submitted_a_message_is_no_matter(
    client: Client, parameter: str
) -> None:
    client.say(RIGHT)

    assert client.say(f"MAIL FROM:<a@b.example> {parameter}") == ["250 OK"]


def test_an_address_that_looks_like_a_parameter_is_an_address() -> None:
    keeper = Keeper()
    with smtp_server(auth(), keeper) as port, Client(port) as client:
        client.say("EHLO client.test.example")
        client.say('MAIL FROM:<"a> AUTH=x"@b.example> AUTH=<>')
        client.say("RCPT TO:<ann@test.example>")
        client.say("DATA")
        client.say("x\r\n.")

    assert keeper.kept[0][1] == '"a> AUTH=x"@b.example'


@pytest.mark.parametrize("address", ["<", "<a@[x.", "<a@[ "])
def test_what_is_no_address_is_said_to_be_none(client: Client, address: str) -> None:
    client.say(RIGHT)

    assert client.say(f"MAIL FROM:{address}") == ["553 5.1.3 Error: malformed address"]


def test_too_many_failures_end_the_connection(client: Client) -> None:
    assert client.say(WRONG) == REFUSED
    assert client.say("AUTH FOO")[0].startswith("535 ")
    assert client.say(WRONG) == REFUSED
    assert client.hear() == [f"421 4.7.0 {HOST} Error: too many errors"]
    assert client.hear() == []


@pytest.mark.parametrize("within_tls", [False, True], ids=["clear", "tls"])
def test_nothing_is_followed_that_was_sent_before_the_end(
    certificate: Certificate, caplog: pytest.LogCaptureFixture, *, within_tls: bool
) -> None:
    caplog.set_level(logging.DEBUG, logger="pysaslauthd")
    context = server_context(certificate) if within_tls else None
    wrap = trusting_context().wrap_socket if within_tls else None
    keeper = Keeper()
    with smtp_server(auth(), keeper, within_tls=context) as port, Client(port, wrap) as client:
        client.say("EHLO client.test.example")
        message = ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x", ".", "QUIT"]
        client.say("\r\n".join([WRONG, WRONG, WRONG, RIGHT, *message]))

        assert [client.hear()[0][:4] for _ in range(3)] == ["535 ", "535 ", "421 "]
        assert client.hear() == []
    assert "auth success" not in caplog.text
    assert keeper.kept == []


def test_tls_begins_once(tls_port: int) -> None:
    with Client(tls_port) as client:
        client.start_tls()

        assert client.say("STARTTLS") == ["554 5.5.1 Error: TLS already active"]
        assert client.say("NOOP") == ["250 OK"]


def test_a_refusal_is_held() -> None:
    made = auth(tries=Tries(most=9, first_delay=30.0, longest_delay=30.0))
    with smtp_server(made, timeout=PATIENCE) as port, Client(port) as client:
        client.say("EHLO client.test.example")

        assert client.say(WRONG) == []  # the server's patience ends before


def test_a_silent_client_is_let_go() -> None:
    with smtp_server(auth(), timeout=PATIENCE) as port, Client(port) as client:
        client.say("EHLO client.test.example")
        client.say("AUTH PLAIN")

        assert client.hear() == []


class Turns:
    """A handler that counts how often others had their turn."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._others = 0

    async def handle_NOOP(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, _envelope: Envelope, _arg: str | None
    ) -> str:
        self.seen.append(self._others)
        asyncio.get_running_loop().call_soon(self._turn)
        return "250 OK"

    def _turn(self) -> None:
        self._others += 1


def test_others_have_their_turn_after_each_command() -> None:
    turns = Turns()
    with smtp_server(auth(), turns) as port, Client(port) as client:
        client.say_nothing_more(b"NOOP\r\n" * 20)

        assert [client.hear() for _ in range(20)] == [["250 OK"]] * 20
    assert turns.seen == list(range(20))


def test_a_client_that_reads_nothing_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "LINGER", 0.3)
    with smtp_server(auth(), timeout=2.0) as port, Client(port) as client:
        client.read_little()

        assert client.is_cut_off_by(b"EHLO client.test.example\r\n" * 100, times=10_000)


def test_whoever_has_no_name_has_not_logged_in() -> None:
    made = auth(Policy(SecurityOptions.parse("")))
    with smtp_server(made, auth_required=True) as port, Client(port) as client:
        client.say("EHLO client.test.example")

        assert client.say("AUTH ANONYMOUS eA==") == SUCCESS
        assert client.say("MAIL FROM:<a@b.example>") == ["530 5.7.0 Authentication required"]


def test_channel_binding_is_offered_within_tls_only(certificate: Certificate) -> None:
    binding = ChannelBinding("tls-server-end-point", b"the certificate's digest")
    made = replace(auth(), channel_binding=binding)
    with (
        smtp_server(made, tls_context=server_context(certificate)) as port,
        Client(port) as client,
    ):
        before = client.say("EHLO client.test.example")
        client.start_tls()
        after = client.say("EHLO client.test.example")

    assert "-PLUS" not in "".join(before)
    assert "250-AUTH SCRAM-SHA-512-PLUS SCRAM-SHA-512 SCRAM-SHA-256-PLUS" in "".join(after)


class Down:
    """A backend that cannot find out."""

    name = "down"
    naming = Naming.JOINED
    waits = False
    uses_address = False

    def verify(self, _request: AuthRequest, /) -> AuthResult | Awaitable[AuthResult]:
        return Unavailable("it is down", "down")

    async def open(self) -> None: ...

    def retire(self) -> None: ...

    async def close(self) -> None: ...


def test_an_outage_is_told_as_one() -> None:
    with smtp_server(auth(backend=Down())) as port, Client(port) as client:
        said = client.say("EHLO client.test.example")

        assert said[2] == "250-AUTH PLAIN LOGIN"  # what needs no stored password
        assert client.say(RIGHT)[0].startswith("454 4.7.0 Temporary authentication failure")


class Trusting:
    """A handler that believes what a proxy says."""

    async def handle_PROXY(self, *_about: object) -> bool:  # noqa: N802 (aiosmtpd's name)
        return True


def test_who_fails_is_logged_with_the_address_that_a_proxy_names(
    caplog: pytest.LogCaptureFixture, seen_logs: None
) -> None:
    caplog.set_level(logging.INFO, "pysaslauthd")
    line = b"PROXY TCP4 192.0.2.9 192.0.2.1 50000 25\r\n"
    with (
        smtp_server(auth(), Trusting(), proxy_protocol_timeout=5.0) as port,
        Client(port, hears=False) as client,
    ):
        client.say_nothing_more(line)
        client.hear()
        client.say("EHLO client.test.example")

        assert client.say(WRONG) == REFUSED
    assert "[remote=192.0.2.9]" in caplog.text


class Chatty:
    """A handler with a line of its own for EHLO."""

    async def handle_EHLO(  # noqa: N802 (aiosmtpd's name)
        self,
        _server: SMTP,
        session: Session,
        _envelope: Envelope,
        hostname: str,
        lines: list[str],
    ) -> list[str]:
        session.host_name = hostname
        return [*lines[:-1], "250-DSN", lines[-1]]


def test_a_handler_may_add_to_ehlo() -> None:
    with smtp_server(auth(), Chatty()) as port, Client(port) as client:
        said = client.say("EHLO client.test.example")

    assert [line[4:].split(" ")[0] for line in said] == [
        HOST,
        "SIZE",
        "AUTH",
        "8BITMIME",
        "DSN",
        "HELP",
    ]


class Refusing:
    """A handler that greets nobody."""

    async def handle_EHLO(  # noqa: N802 (aiosmtpd's name)
        self,
        _server: SMTP,
        _session: Session,
        _envelope: Envelope,
        _hostname: str,
        _lines: list[str],
    ) -> list[str]:
        return ["550 5.7.1 go away"]


def test_a_handler_may_refuse_ehlo() -> None:
    with smtp_server(auth(), Refusing()) as port, Client(port) as client:
        assert client.say("EHLO client.test.example") == ["550 5.7.1 go away"]


class Old:
    """A handler as it was before aiosmtpd 1.3."""

    async def handle_EHLO(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, _envelope: Envelope, _hostname: str
    ) -> str:
        raise NotImplementedError


@pytest.mark.filterwarnings("ignore:Use the 5-argument handle_EHLO:DeprecationWarning")
async def test_a_handler_of_old_is_refused() -> None:
    with pytest.raises(TypeError, match="handle_EHLO has five arguments"):
        SaslSMTP(Old(), auth=auth(), loop=asyncio.get_running_loop())


def test_the_documented_example_works(tmp_path: Path) -> None:
    port = free_port()
    first, *others = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    example = tmp_path / "example.py"
    example.write_text(first.replace("8025", str(port)) + "\n".join(others))
    argv = [sys.executable, str(example)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment()) as running:
        wait_for(lambda: greeting(port).startswith("220"), "the example's greeting")
        with Client(port) as client:
            client.say("EHLO client.test.example")
            right = base64.b64encode(b"\0joe\0secret").decode()
            assert client.say(f"AUTH PLAIN {right}") == SUCCESS
            client.say("QUIT")
        running.communicate(b"\n", timeout=DEADLINE)

    assert running.returncode == 0
