"""The Dovecot door on real sockets in this process."""

import asyncio
import base64
import contextlib
import ipaddress
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from pysaslauthd.backends.static import Static
from pysaslauthd.engine.exchange import Exchange
from pysaslauthd.engine.library import exchanges
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
from pysaslauthd.sasl.client.choice import find
from pysaslauthd.sasl.client.credentials import Credentials
from pysaslauthd.sasl.client.exchange import ClientExchange
from pysaslauthd.sasl.server.mechanism import Mechanism, Surroundings
from pysaslauthd.sasl.server.registry import BY_NAME
from pysaslauthd.server import conversation, dovecot, intake
from pysaslauthd.server.conversation import Rules
from pysaslauthd.server.dovecot import DovecotDoor, Limits

HELLO = b"VERSION\t1\t2\nCPID\t77\n"
HERE = Surroundings("mail.test.example", Secret(b"the key of this process"))
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
DEADLINE = 5.0
LONG = 60.0  # seconds that no test waits
HALF_LONG = LONG / 2  # nor these, but they may be let go by without the end of the backend's time

Verdict = AuthResult | Awaitable[AuthResult]

pytestmark = pytest.mark.usefixtures("seen_logs")


def in_base64(text: bytes) -> bytes:
    return base64.b64encode(text)


def plain(number: int, password: bytes = b"pw", user: bytes = b"joe", more: bytes = b"") -> bytes:
    response = in_base64(b"\0%b\0%b" % (user, password))
    return b"AUTH\t%d\tPLAIN\tservice=smtp%b\tresp=%b\n" % (number, more, response)


YES = Accepted("joe", "gate")


class Asked(Static):
    """A backend that notes what it is asked; *answer* is its verdict, unless it is to know it."""

    def __init__(self) -> None:
        super().__init__({"joe": Secret(b"pw")})
        self.requests: list[AuthRequest] = []
        self.answer: Callable[[AuthRequest], Verdict] | None = None

    def verify(  # type: ignore[override]  # it answers later, too
        self, request: AuthRequest, /
    ) -> Verdict:
        self.requests.append(request)
        return super().verify(request) if self.answer is None else self.answer(request)


class Gate:
    """Holds every answer until it is opened; *left* counts the questions that were abandoned."""

    def __init__(self, verdict: AuthResult = YES) -> None:
        self.verdict = verdict
        self.opened = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.left = asyncio.Semaphore(0)

    async def wait(self, _request: AuthRequest) -> AuthResult:
        self.entered.release()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.left.release()
            raise
        return self.verdict


class Client:
    """A client on the loop, greeted already; it waits no longer than DEADLINE for anything."""

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self._heard = b""

    def say(self, data: bytes) -> None:
        self.socket.send(data)

    async def hears(self) -> bytes:
        """Return the next line, b"" at the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            while b"\n" not in self._heard:
                with contextlib.suppress(ConnectionResetError):
                    data = await loop.sock_recv(self.socket, 65_536)
                if not data:
                    return b""
                self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    async def hears_greeting(self) -> list[bytes]:
        lines = [await self.hears()]
        while lines[-1] not in {b"DONE", b""}:
            lines.append(await self.hears())
        return lines


class Clock:
    """The loop's time, which a test may put *ahead*."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        time = loop.time
        self.ahead = 0.0
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead)


class House:
    """A door that listens, its backend, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "auth")
        self.backend = Asked()
        self.exchanges = exchanges(self.backend, "test.example", deadline=LONG)
        self.exchanges.follow(self.exchanges.parts.without_delays())
        self.sockets: list[socket.socket] = []
        self.limits = Limits(100, LOOPBACK)
        self.door = DovecotDoor(asyncio.get_running_loop(), self.rules(), self.limits)
        self.listen(socket.AF_UNIX, self.path)

    def rules(
        self,
        *names: str,
        failure_delay: float = 0.0,
        only_secured: bool = False,
        tells_outage: bool = False,
    ) -> Rules:
        offered: dict[str, Mechanism] = {name: BY_NAME[name] for name in names or BY_NAME}
        return Rules(self.exchanges, HERE, offered, failure_delay, only_secured, tells_outage)

    def follow(self, rules: Rules, limits: Limits | None = None) -> None:
        self.door.follow(rules, limits or self.limits)

    def listen(self, family: int, address: str | tuple[str, int]) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.settimeout(0)
        listener.bind(address)
        listener.listen(1024)
        self.sockets.append(listener)
        self.door.listen(listener)
        return listener

    async def enters(self) -> Client:
        """Return a client that has been greeted and has said who it is."""
        client = self.connects()
        await client.hears_greeting()
        client.say(HELLO)
        return client

    def connects(self) -> Client:
        return self._client(socket.socket(socket.AF_UNIX), self.path)

    def connects_to(self, listener: socket.socket) -> Client:
        return self._client(socket.socket(listener.family), listener.getsockname())

    def _client(self, client: socket.socket, address: str | tuple[str, int]) -> Client:
        client.connect(address)
        client.settimeout(0)
        self.sockets.append(client)
        return Client(client)


@contextlib.asynccontextmanager
async def open_house(directory: Path) -> AsyncIterator[House]:
    subject = House(directory)
    yield subject
    async with asyncio.timeout(DEADLINE):
        await subject.door.stop()
    for one in subject.sockets:
        one.close()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as subject:
        yield subject


async def test_everything_is_told_before_the_client_says_a_word(house: House) -> None:
    house.follow(house.rules("PLAIN", "DIGEST-MD5", "ANONYMOUS", "EXTERNAL"))

    lines = await house.connects().hears_greeting()

    assert lines[:5] == [
        b"VERSION\t1\t2",
        b"MECH\tPLAIN\tplaintext",
        b"MECH\tDIGEST-MD5\tdictionary\tactive\tmutual-auth",
        b"MECH\tANONYMOUS\tanonymous",
        b"MECH\tEXTERNAL",
    ]
    assert [line.split(b"\t")[0] for line in lines[5:]] == [b"SPID", b"CUID", b"COOKIE", b"DONE"]


async def test_no_two_connections_have_the_same_cookie(house: House) -> None:
    one = await house.connects().hears_greeting()
    other = await house.connects().hears_greeting()

    assert one[-2] != other[-2]
    assert one[-3] != other[-3]


async def test_a_right_password_is_a_success(house: House) -> None:
    client = await house.enters()

    client.say(plain(1))

    assert await client.hears() == b"OK\t1\tuser=joe"


async def test_a_wrong_password_is_a_failure_of_a_known_user(house: House) -> None:
    client = await house.enters()

    client.say(plain(1, b"no"))

    assert await client.hears() == b"FAIL\t1\tuser=joe"


async def test_an_empty_realm_makes_no_second_name_of_a_user(house: House) -> None:
    client = await house.enters()

    client.say(plain(1, user=b"joe@"))

    assert await client.hears() == b"FAIL\t1\tuser=joe@"


async def test_who_acts_as_somebody_else_is_told_so(house: House) -> None:
    client = await house.enters()

    client.say(b"AUTH\t1\tPLAIN\tservice=smtp\tresp=%b\n" % in_base64(b"ann\0joe\0pw"))

    assert await client.hears() == b"FAIL\t1\tuser=joe\tcode=authz_fail"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.ACCOUNT_LOCKED, b"user_disabled"),
        (Reason.ACCOUNT_EXPIRED, b"user_disabled"),
        (Reason.PASSWORD_EXPIRED, b"pass_expired"),
        (Reason.PASSWORD_MUST_CHANGE, b"pass_expired"),
    ],
)
async def test_a_reason_that_dovecot_knows_is_told(
    house: House, reason: Reason, code: bytes
) -> None:
    house.backend.answer = lambda _request: Rejected(reason, "static")
    client = await house.enters()

    client.say(plain(1))

    assert await client.hears() == b"FAIL\t1\tuser=joe\tcode=" + code


async def test_a_number_may_be_used_again(house: House) -> None:
    client = await house.enters()

    client.say(plain(1) + plain(1, b"no") + plain(1))

    assert [await client.hears() for _ in range(3)] == [
        b"OK\t1\tuser=joe",
        b"FAIL\t1\tuser=joe",
        b"OK\t1\tuser=joe",
    ]


async def test_a_dialogue_takes_its_steps(house: House) -> None:
    client = await house.enters()

    client.say(b"AUTH\t8\tLOGIN\tservice=smtp\n")
    assert await client.hears() == b"CONT\t8\tVXNlcm5hbWU6"
    client.say(b"CONT\t8\t%b\n" % in_base64(b"joe"))
    assert await client.hears() == b"CONT\t8\tUGFzc3dvcmQ6"
    client.say(b"CONT\t8\t%b\n" % in_base64(b"pw"))

    assert await client.hears() == b"OK\t8\tuser=joe"


@pytest.mark.parametrize("initial", [b"", b"\tresp=" + in_base64(b"whatever")])
async def test_an_initial_response_to_a_mechanism_that_has_none_is_ignored(
    house: House, initial: bytes
) -> None:
    client = await house.enters()

    client.say(b"AUTH\t1\tCRAM-MD5\tservice=smtp%b\n" % initial)

    assert (await client.hears()).startswith(b"CONT\t1\t")


async def test_an_empty_name_is_asked_for(house: House) -> None:
    client = await house.enters()

    client.say(b"AUTH\t1\tLOGIN\tservice=smtp\tresp==\n")

    assert await client.hears() == b"CONT\t1\tVXNlcm5hbWU6"


async def test_nobody_in_particular_is_marked(house: House) -> None:
    client = await house.enters()

    client.say(b"AUTH\t1\tANONYMOUS\tservice=smtp\tresp==\n")

    assert await client.hears() == b"OK\t1\tuser=anonymous\tanonymous"


async def proves(client: Client, about: bytes) -> ClientExchange:
    """Do SCRAM-SHA-256 up to the proof, which is sent."""
    exchange = ClientExchange(find("SCRAM-SHA-256"), Credentials("joe", Secret(b"pw")))
    first = in_base64(exchange.initial or b"")
    client.say(b"AUTH\t1\tSCRAM-SHA-256\tservice=smtp%b\tresp=%b\n" % (about, first))
    challenge = base64.b64decode((await client.hears()).split(b"\t")[2])
    client.say(b"CONT\t1\t%b\n" % in_base64(exchange.respond(challenge)))
    return exchange


async def test_a_last_message_is_said_before_the_success(house: House) -> None:
    client = await house.enters()

    exchange = await proves(client, b"")
    command, _, final = (await client.hears()).split(b"\t")
    client.say(b"CONT\t1\t\n")

    assert command == b"CONT"
    assert exchange.respond(base64.b64decode(final)) == b""
    assert await client.hears() == b"OK\t1\tuser=joe"


async def test_a_last_message_is_said_beside_the_success_to_who_wants_that(house: House) -> None:
    client = await house.enters()

    exchange = await proves(client, b"\tfinal-resp-ok")
    command, _, user, final = (await client.hears()).split(b"\t")

    assert (command, user) == (b"OK", b"user=joe")
    assert exchange.respond(base64.b64decode(final.removeprefix(b"resp="))) == b""


class TestWhatTheEngineHears:
    async def test_the_address_is_that_of_the_mail_servers_client(self, house: House) -> None:
        client = await house.enters()

        client.say(plain(1, more=b"\trip=192.0.2.7\trport=4711"))
        await client.hears()

        (request,) = house.backend.requests
        assert request.origin == Origin("smtp", "192.0.2.7;4711", "PLAIN")

    async def test_a_certificate_says_who_a_client_is(self, house: House) -> None:
        client = await house.enters()

        about = b"service=imap\tvalid-client-cert\tcert_username=ann"
        client.say(b"AUTH\t1\tEXTERNAL\t%b\tresp==\n" % about)

        assert await client.hears() == b"OK\t1\tuser=ann"

    async def test_a_certificate_without_a_name_says_nothing(self, house: House) -> None:
        client = await house.enters()

        about = b"service=smtp\tvalid-client-cert"
        client.say(b"AUTH\t1\tEXTERNAL\t%b\tresp=%b\n" % (about, in_base64(b"ann")))

        assert await client.hears() == b"FAIL\t1"

    async def test_a_service_is_what_a_digest_is_for(self, house: House) -> None:
        client = await house.enters()
        client.say(b"AUTH\t1\tDIGEST-MD5\tservice=imap\n")
        challenge = base64.b64decode((await client.hears()).split(b"\t")[2])
        credentials = Credentials("joe", Secret(b"pw"), service="imap", host=HERE.host)
        exchange = ClientExchange(find("DIGEST-MD5"), credentials)

        client.say(b"CONT\t1\t%b\n" % in_base64(exchange.respond(challenge)))

        assert (await client.hears()).startswith(b"CONT\t1\t")


class TestFaultsOfOneRequest:
    async def test_what_is_no_base64_fails_alone(self, house: House) -> None:
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\tresp=!!\n" + plain(2))

        reason = b"reason=Invalid base64 data in initial response"
        assert await client.hears() == b"FAIL\t1\tcode=invalid_base64\t" + reason
        assert await client.hears() == b"OK\t2\tuser=joe"

    async def test_a_response_that_is_no_base64_ends_its_request(self, house: House) -> None:
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\nCONT\t1\t!!\nCONT\t1\tAAAA\n")

        assert await client.hears() == b"CONT\t1\t"
        reason = b"reason=Invalid base64 data in continued response"
        assert await client.hears() == b"FAIL\t1\tcode=invalid_base64\t" + reason
        assert await client.hears() == b"FAIL\t1\treason=Authentication request timed out"

    async def test_a_message_of_another_mechanism_fails_alone(self, house: House) -> None:
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\tresp=AAAA\n" + plain(2))

        assert await client.hears() == b"FAIL\t1"
        assert await client.hears() == b"OK\t2\tuser=joe"

    async def test_a_response_out_of_turn_ends_its_request(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1))
        await gate.entered.acquire()
        client.say(b"CONT\t1\tAAAA\n")

        assert await client.hears() == b"FAIL\t1\treason=Unexpected continuation"
        await gate.left.acquire()

    async def test_a_password_in_clear_is_refused_where_it_has_to_be_secured(
        self, house: House
    ) -> None:
        house.follow(house.rules(only_secured=True))
        client = await house.enters()

        client.say(plain(1) + plain(2, more=b"\tsecured"))

        assert (await client.hears()).startswith(b"FAIL\t1\treason=Plaintext authentication")
        assert await client.hears() == b"OK\t2\tuser=joe"
        assert len(house.backend.requests) == 1

    async def test_a_mechanism_that_shows_none_need_not_be_secured(self, house: House) -> None:
        house.follow(house.rules(only_secured=True))
        client = await house.enters()

        client.say(b"AUTH\t1\tCRAM-MD5\tservice=smtp\n")

        assert (await client.hears()).startswith(b"CONT\t1\t")


class TestFaultsThatEndTheConnection:
    @pytest.mark.parametrize(
        "line",
        [
            b"nonsense\n",
            b"AUTH\t1\tNONE\tservice=smtp\n",
            b"AUTH\t1\tPLAIN\tservice=smtp\n" * 2,
            b"x" * 20_000,
        ],
        ids=["command", "mechanism", "number in use", "length"],
    )
    async def test_the_client_is_hung_up_on(
        self, house: House, line: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await house.enters()

        client.say(line)
        with contextlib.suppress(ConnectionResetError):
            while await client.hears():
                pass

        assert "a client of the Dovecot door is hung up on" in caplog.text

    async def test_there_is_one_line_for_many_of_them(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            client = await house.enters()
            client.say(b"nonsense\n")
            assert await client.hears() == b""

        assert caplog.text.count("an unknown command; more of these are not logged") == 1

    async def test_the_line_says_who_it_was(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await house.enters()
        client.say(b"nonsense\n")
        await client.hears()

        assert f"hung up on: process {os.getpid()} of user {os.getuid()}: an" in caplog.text

    async def test_it_does_not_hide_a_line_about_something_else(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await house.enters()
        client.say(b"nonsense\n")
        await client.hears()

        house.follow(house.rules(), Limits(1))
        await house.enters()
        await house.enters()

        assert "at most 1" in caplog.text

    async def test_what_came_before_is_answered(self, house: House) -> None:
        client = await house.enters()

        client.say(plain(1) + b"nonsense\n")

        assert await client.hears() == b"OK\t1\tuser=joe"
        assert await client.hears() == b""

    async def test_no_password_is_logged(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="pysaslauthd")
        client = await house.enters()

        client.say(plain(1, b"hunter2").replace(b"PLAIN", b"NONE"))
        await client.hears()

        assert in_base64(b"\0joe\0hunter2").decode() not in caplog.text
        assert "hunter2" not in caplog.text

    async def test_a_number_whose_backend_is_asked_is_in_use(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1) + plain(1))

        assert await client.hears() == b""
        await gate.left.acquire()

    async def test_a_fault_of_ours_costs_one_connection(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await house.enters()
        await answered(house, client)
        house.follow(house.rules()._replace(exchanges=cast("Any", None)))

        client.say(plain(1))

        assert await client.hears() == b""
        assert "fault while serving a connection" in caplog.text

    async def test_a_fault_of_ours_that_shows_later_costs_one_connection(
        self, house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def stumble() -> NoReturn:
            raise KeyError("oops")

        client, other = await house.enters(), await house.enters()
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "advance", lambda *_: stumble())
            client.say(plain(1))
            assert await client.hears() == b""

        assert "fault while serving a connection" in caplog.text
        await answered(house, other)


class TestManyRequests:
    async def test_answers_come_as_they_are_found(self, house: House) -> None:
        gate = Gate()
        client = await house.enters()

        house.backend.answer = gate.wait
        client.say(plain(1))
        await gate.entered.acquire()
        house.backend.answer = None
        client.say(plain(2))

        assert await client.hears() == b"OK\t2\tuser=joe"
        gate.opened.set()
        assert await client.hears() == b"OK\t1\tuser=joe"

    async def test_what_is_cancelled_is_abandoned(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1))
        await gate.entered.acquire()
        client.say(b"CANCEL\t1\nCANCEL\t99\nCONT\t1\tAAAA\n")

        await gate.left.acquire()
        assert await client.hears() == b"FAIL\t1\treason=Authentication request timed out"

    @pytest.mark.parametrize(
        "line", [b"CANCEL\t1\n", b"CONT\t1\tAAAA\n", b"nonsense\n"], ids=["no", "more", "bad"]
    )
    async def test_what_is_cancelled_in_the_same_breath_has_begun(
        self, house: House, line: bytes
    ) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1) + line)

        async with asyncio.timeout(DEADLINE):
            await gate.left.acquire()

    async def test_a_dialogue_is_cancelled(self, house: House) -> None:
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\nCANCEL\t1\nCONT\t1\tAAAA\n")

        assert await client.hears() == b"CONT\t1\t"
        assert await client.hears() == b"FAIL\t1\treason=Authentication request timed out"

    async def test_who_goes_leaves_no_work_behind(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1))
        await gate.entered.acquire()
        client.socket.close()

        async with asyncio.timeout(DEADLINE):
            await gate.left.acquire()

    async def test_a_flood_is_not_read_while_its_answers_are_due(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conversation, "MOST_WORKING", 2)
        gate = Gate()
        client = await house.enters()
        await answered(house, client)
        house.backend.answer = gate.wait

        for number in range(1, 4):
            client.say(plain(number))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await gate.entered.acquire()
        await gate.entered.acquire()
        asked_meanwhile = len(house.backend.requests)
        gate.opened.set()

        assert {await client.hears() for _ in range(3)} == {
            b"OK\t%d\tuser=joe" % number for number in range(1, 4)
        }
        assert asked_meanwhile == 3  # with the one of `answered`

    async def test_too_many_questions_of_all_clients_are_an_outage_for_the_next(
        self, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(conversation, "MOST_ASKED", 2)
        gate = Gate()
        house.backend.answer = gate.wait
        client, other = await house.enters(), await house.enters()
        client.say(plain(1) + plain(2))
        await gate.entered.acquire()
        await gate.entered.acquire()

        client.say(plain(3))
        other.say(plain(1))

        assert await client.hears() == b"FAIL\t3\tcode=temp_fail"
        assert await other.hears() == b""
        gate.opened.set()
        assert await client.hears() == b"OK\t1\tuser=joe"
        assert "too many requests wait for an answer" in caplog.text

    async def test_who_floods_does_not_keep_others_out(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dovecot, "TURN", 0.0)
        newcomers: list[Client] = []

        def admit(_request: AuthRequest) -> AuthResult:
            if not newcomers:
                newcomers.append(house.connects())
            return YES

        house.backend.answer = admit
        client = await house.enters()

        client.say(b"".join(plain(number) for number in range(1, 500)))
        await client.hears()
        await newcomers[0].hears_greeting()

        assert len(house.backend.requests) < 499

    async def test_who_does_not_take_its_answers_is_not_read(self, house: House) -> None:
        client = await house.enters()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        lines, sent = b"".join(plain(number) for number in range(1, 20)), 0

        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += client.socket.send(lines)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

        answers = 0
        while answers < sent // len(lines) * 19:
            assert (await client.hears()).startswith(b"OK\t")
            answers += 1

    async def test_abandoned_dialogues_are_forgotten(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conversation, "MOST_WAITING", 1)
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\nAUTH\t2\tPLAIN\tservice=smtp\n")
        client.say(b"CONT\t1\tAAAA\n")

        assert await client.hears() == b"CONT\t1\t"
        assert await client.hears() == b"CONT\t2\t"
        assert await client.hears() == b"FAIL\t1\treason=Authentication request timed out"

    async def test_a_dialogue_does_not_wait_for_ever(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(conversation, "PATIENCE", 0.01)
        monkeypatch.setattr(dovecot, "SWEEP_EVERY", 0.01)
        async with open_house(tmp_path) as house:
            client = await house.enters()

            async with asyncio.timeout(DEADLINE):
                while await goes_on(client) != b"FAIL\t1\treason=Authentication request timed out":
                    pass


async def goes_on(client: Client) -> bytes:
    """Begin a dialogue, wait a little longer each time, and go on with it; return the answer."""
    client.say(b"AUTH\t1\tPLAIN\tservice=smtp\n")
    await client.hears()
    await asyncio.wait([asyncio.ensure_future(client.hears())], timeout=0.05)
    client.say(b"CONT\t1\tAAAA\n")
    return await client.hears()


class TestOutages:
    async def test_a_client_that_waits_for_nothing_else_is_hung_up_on(self, house: House) -> None:
        house.backend.answer = lambda _request: Unavailable("down", "static")
        client = await house.enters()

        client.say(plain(1))

        assert await client.hears() == b""

    async def test_a_dialogue_that_was_abandoned_is_nothing_to_wait_for(self, house: House) -> None:
        house.backend.answer = lambda _request: Unavailable("down", "static")
        client = await house.enters()

        client.say(b"AUTH\t1\tPLAIN\tservice=smtp\n" + plain(2))

        assert await client.hears() == b"CONT\t1\t"
        assert await client.hears() == b""

    async def test_a_client_that_waits_for_more_is_told(self, house: House) -> None:
        gate = Gate()
        client = await house.enters()

        house.backend.answer = gate.wait
        client.say(plain(1))
        await gate.entered.acquire()
        house.backend.answer = lambda _request: Unavailable("down", "static")
        client.say(plain(2))

        assert await client.hears() == b"FAIL\t2\tuser=joe\tcode=temp_fail"
        gate.opened.set()
        assert await client.hears() == b"OK\t1\tuser=joe"

    async def test_the_last_of_many_is_told_by_hanging_up(self, house: House) -> None:
        gate = Gate(Unavailable("down", "gate"))
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1) + plain(2))
        await gate.entered.acquire()
        await gate.entered.acquire()
        gate.opened.set()

        assert await client.hears() == b"FAIL\t1\tuser=joe\tcode=temp_fail"
        assert await client.hears() == b""

    async def test_a_refusal_that_is_held_is_waited_for(self, house: House, clock: Clock) -> None:
        house.follow(house.rules(failure_delay=HALF_LONG))
        client = await house.enters()

        client.say(plain(1, b"no"))
        await answered(house, client)
        house.backend.answer = lambda _request: Unavailable("down", "static")
        client.say(plain(2))

        assert await client.hears() == b"FAIL\t2\tuser=joe\tcode=temp_fail"
        clock.ahead = HALF_LONG
        assert await client.hears() == b"FAIL\t1\tuser=joe"

    async def test_it_may_be_wished_that_all_are_told(self, house: House) -> None:
        house.backend.answer = lambda _request: Unavailable("down", "static")
        house.follow(house.rules(tells_outage=True))
        client = await house.enters()

        client.say(plain(1))

        assert await client.hears() == b"FAIL\t1\tuser=joe\tcode=temp_fail"

    async def test_after_it_all_is_well(self, house: House) -> None:
        house.backend.answer = lambda _request: Unavailable("down", "static")
        client = await house.enters()
        client.say(plain(1))
        await client.hears()

        house.backend.answer = None
        client = await house.enters()
        client.say(plain(2))

        assert await client.hears() == b"OK\t2\tuser=joe"


async def answered(house: House, client: Client) -> None:
    """Return when what *client* has said before has been heard."""
    client.say(plain(999))
    assert await client.hears() == b"OK\t999\tuser=joe"


class TestTheDelayOfRefusals:
    async def test_it_is_waited_for(self, house: House) -> None:
        house.follow(house.rules(failure_delay=0.2))
        client = await house.enters()
        loop = asyncio.get_running_loop()

        began = loop.time()
        client.say(plain(1, b"no"))
        await client.hears()

        assert loop.time() - began >= 0.2

    async def test_other_requests_are_answered_meanwhile(self, house: House) -> None:
        house.follow(house.rules(failure_delay=LONG))
        client = await house.enters()

        client.say(plain(1, b"no") + plain(2) + plain(3, b"no") + plain(4))

        assert await client.hears() == b"OK\t2\tuser=joe"
        assert await client.hears() == b"OK\t4\tuser=joe"

    async def test_the_number_is_free_meanwhile(self, house: House) -> None:
        house.follow(house.rules(failure_delay=LONG))
        client = await house.enters()

        client.say(plain(1, b"no") + plain(1))

        assert await client.hears() == b"OK\t1\tuser=joe"

    async def test_who_wants_none_has_none(self, house: House) -> None:
        house.follow(house.rules(failure_delay=LONG))
        client = await house.enters()

        client.say(plain(1, b"no", more=b"\tnodelay"))

        assert await client.hears() == b"FAIL\t1\tuser=joe"

    async def test_who_wants_none_has_none_of_the_backends_either(self, house: House) -> None:
        gate = Gate(Rejected(Reason.WRONG_PASSWORD, "gate", delay=LONG))
        gate.opened.set()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1, more=b"\tnodelay"))

        assert await client.hears() == b"FAIL\t1\tuser=joe"

    async def test_one_that_the_backend_wants_is_waited_for(self, house: House) -> None:
        gate = Gate(Rejected(Reason.WRONG_PASSWORD, "gate", delay=0.2))
        gate.opened.set()
        house.backend.answer = gate.wait
        client = await house.enters()
        loop = asyncio.get_running_loop()

        began = loop.time()
        client.say(plain(1))
        await client.hears()

        assert loop.time() - began >= 0.2

    async def test_the_number_is_free_while_the_backend_wants_one(self, house: House) -> None:
        gate = Gate(Rejected(Reason.WRONG_PASSWORD, "gate", delay=LONG))
        gate.opened.set()
        house.backend.answer = gate.wait
        client = await house.enters()

        client.say(plain(1))
        await gate.entered.acquire()
        house.backend.answer = None
        await answered(house, client)
        client.say(plain(1))

        assert await client.hears() == b"OK\t1\tuser=joe"

    async def test_the_time_that_the_backend_took_counts(self, house: House, clock: Clock) -> None:
        gate = Gate(Rejected(Reason.WRONG_PASSWORD, "gate"))
        house.backend.answer = gate.wait
        house.follow(house.rules(failure_delay=HALF_LONG))
        client = await house.enters()

        client.say(plain(1, b"no"))
        await gate.entered.acquire()
        clock.ahead = HALF_LONG
        gate.opened.set()

        assert await client.hears() == b"FAIL\t1\tuser=joe"

    async def test_too_many_that_are_held_keep_the_client_from_being_read(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conversation, "MOST_HELD", 1)
        house.follow(house.rules(failure_delay=0.1))
        client = await house.enters()
        await answered(house, client)

        client.say(plain(1, b"no"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        client.say(plain(2))

        assert await client.hears() == b"FAIL\t1\tuser=joe"
        assert await client.hears() == b"OK\t2\tuser=joe"

    async def test_who_goes_meanwhile_is_not_told(self, house: House) -> None:
        house.follow(house.rules(failure_delay=LONG))
        client = await house.enters()

        client.say(plain(1, b"no"))
        await answered(house, client)
        client.socket.shutdown(socket.SHUT_WR)

        assert await client.hears() == b""


class TestNewRules:
    async def test_they_hold_for_those_who_are_there(self, house: House) -> None:
        client = await house.enters()
        await answered(house, client)

        house.follow(house.rules(only_secured=True))
        client.say(plain(1))

        assert (await client.hears()).startswith(b"FAIL\t1\treason=Plaintext")

    async def test_who_was_told_of_other_mechanisms_has_to_come_again(self, house: House) -> None:
        client = await house.enters()
        await answered(house, client)

        house.follow(house.rules("PLAIN"))

        assert await client.hears() == b""

    async def test_who_waits_for_an_answer_gets_it_before(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()
        client.say(plain(1))
        await gate.entered.acquire()

        house.follow(house.rules("PLAIN"))
        gate.opened.set()

        assert await client.hears() == b"OK\t1\tuser=joe"
        assert await client.hears() == b""


class TestTcp:
    async def test_who_may_ask_is_answered(self, house: House) -> None:
        listener = house.listen(socket.AF_INET, ("127.0.0.1", 0))

        client = house.connects_to(listener)
        await client.hears_greeting()
        client.say(HELLO + plain(1))

        assert await client.hears() == b"OK\t1\tuser=joe"

    async def test_who_may_not_hears_nothing(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        house.follow(house.rules(), Limits(100, [ipaddress.ip_network("192.0.2.0/24")]))
        listener = house.listen(socket.AF_INET, ("127.0.0.1", 0))

        client = house.connects_to(listener)

        assert await client.hears() == b""
        assert "127.0.0.1 may not ask" in caplog.text

    async def test_who_may_not_any_more_is_hung_up_on(self, house: House) -> None:
        listener = house.listen(socket.AF_INET, ("127.0.0.1", 0))
        client, local = house.connects_to(listener), await house.enters()
        await client.hears_greeting()
        client.say(HELLO)
        await answered(house, client)

        house.follow(house.rules(), Limits(100, [ipaddress.ip_network("192.0.2.0/24")]))

        assert await client.hears() == b""
        await answered(house, local)

    async def test_who_still_may_stays(self, house: House) -> None:
        listener = house.listen(socket.AF_INET, ("127.0.0.1", 0))
        client = house.connects_to(listener)
        await client.hears_greeting()
        client.say(HELLO)

        house.follow(house.rules(), Limits(100, [ipaddress.ip_network("127.0.0.1/32")]))

        await answered(house, client)


class TestManyConnections:
    async def test_the_one_that_is_silent_longest_makes_place(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        house.follow(house.rules(), Limits(2))
        first, second = await house.enters(), await house.enters()
        await answered(house, second)
        await answered(house, first)

        third = await house.enters()

        assert await second.hears() == b""
        await answered(house, first)
        await answered(house, third)
        assert "at most 2" in caplog.text

    async def test_one_that_waits_for_its_answer_does_not(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        house.follow(house.rules(), Limits(2))
        first, second = await house.enters(), await house.enters()
        first.say(plain(1))
        await gate.entered.acquire()

        await house.enters()

        assert await second.hears() == b""
        gate.opened.set()
        assert await first.hears() == b"OK\t1\tuser=joe"

    async def test_if_all_wait_for_answers_the_one_that_is_silent_longest_does(
        self, house: House
    ) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        house.follow(house.rules(), Limits(1))
        first = await house.enters()
        first.say(plain(1))
        await gate.entered.acquire()

        await house.enters()

        assert await first.hears() == b""

    async def test_where_descriptors_run_out_it_is_tried_again(
        self, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(intake, "PAUSE", 0.01)
        told = asyncio.Event()
        monkeypatch.setattr(caplog.handler, "emit", lambda _record: told.set())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = house.connects()
        here = os.open("/dev/null", os.O_RDONLY)
        os.close(here)
        resource.setrlimit(resource.RLIMIT_NOFILE, (here, hard))
        try:
            async with asyncio.timeout(DEADLINE):
                await told.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert (await client.hears_greeting())[-1] == b"DONE"


class TestStopping:
    async def test_answers_that_are_under_way_are_given(self, house: House) -> None:
        gate = Gate()
        house.backend.answer = gate.wait
        client = await house.enters()
        client.say(plain(1))
        await gate.entered.acquire()

        stopping = asyncio.create_task(house.door.stop())
        await asyncio.sleep(0)
        gate.opened.set()
        await stopping

        assert await client.hears() == b"OK\t1\tuser=joe"
        assert await client.hears() == b""

    async def test_no_refusal_is_held_any_more(self, house: House) -> None:
        house.follow(house.rules(failure_delay=LONG))
        client = await house.enters()
        client.say(plain(1, b"no"))
        await answered(house, client)

        await house.door.stop()

        assert await client.hears() == b"FAIL\t1\tuser=joe"
        assert await client.hears() == b""
