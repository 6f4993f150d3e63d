"""What the server behind a submission server may do, and what its client hears of it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pysaslauthd.server import relay
from pysaslauthd.server.relay import Relay, Submitter, Upstream
from tests.helpers.processes import DEADLINE

ANN = Submitter("192.0.2.7", "client.test.example", "ann@example.org")
HOST = "submit.test.example"
GREETING = ["220 behind ESMTP"]
EHLO = ["250-behind", "250-SIZE 1000", "250 8BITMIME"]


class Script:
    """A server that gives *answers* in turn, one for each line, and keeps the lines.

    After 354 it waits for the end of the message. None: it hangs up.
    """

    def __init__(self, answers: Sequence[Sequence[str] | None]) -> None:
        self._answers = answers
        self._writers: list[asyncio.StreamWriter] = []
        self.heard: list[bytes] = []
        self.greeted = asyncio.Event()
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        for answer in self._answers:
            if answer is None:
                break
            writer.write("".join(f"{line}\r\n" for line in answer).encode())
            end = b"\r\n.\r\n" if answer and answer[-1].startswith("354") else b"\n"
            try:
                self.heard.append(await reader.readuntil(end))
                self.greeted.set()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
        writer.close()
        self.done.set()

    async def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            async with asyncio.timeout(DEADLINE):
                await self.done.wait()


@asynccontextmanager
async def scripted(
    *answers: Sequence[str] | None, seconds: float = DEADLINE
) -> AsyncIterator[tuple[Script, Upstream]]:
    script = Script(answers)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    try:
        yield script, Upstream("127.0.0.1", server.sockets[0].getsockname()[1], seconds)
    finally:
        server.close()
        await script.end()


async def opened(upstream: Upstream, submitter: Submitter = ANN) -> Relay:
    found = await Relay.open(upstream, HOST, submitter)
    assert isinstance(found, Relay)
    return found


async def test_a_message_takes_its_course() -> None:
    replies = [["250 2.1.0 Ok"], ["250 2.1.5 Ok"], ["354 go"], ["250 2.0.0 Ok"], ["221 Bye"]]
    async with scripted(GREETING, EHLO, *replies) as (script, upstream):
        subject = await opened(upstream)
        said = [
            await subject.mail("ann@example.org", ["SIZE=7", "BODY=8BITMIME", "X=1"]),
            await subject.rcpt("bob@example.net"),
            await subject.data(b".x\n"),
        ]
        subject.close()
        await script.done.wait()

    assert said == ["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.0.0 Ok"]
    assert script.heard == [
        b"EHLO submit.test.example\r\n",
        b"MAIL FROM:<ann@example.org> SIZE=7 BODY=8BITMIME\r\n",
        b"RCPT TO:<bob@example.net>\r\n",
        b"DATA\r\n",
        b"..x\r\n.\r\n",
        b"QUIT\r\n",
    ]


async def test_who_has_logged_in_is_told_where_it_is_heard() -> None:
    offer = ["250-behind", "250 XCLIENT NAME ADDR PROTO HELO LOGIN PORT"]
    submitter = Submitter("2001:db8::7", "a b", "a=b+c@example.org")
    async with scripted(GREETING, offer, ["220 behind"], offer) as (script, upstream):
        subject = await opened(upstream, submitter)
        subject.close()
        await script.done.wait()

    assert script.heard[1:3] == [
        b"XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PROTO=ESMTP HELO=a+20b"
        b" LOGIN=a+3Db+2Bc@example.org\r\n",
        b"EHLO submit.test.example\r\n",
    ]


@pytest.mark.parametrize("helo", ["x" * 253 + " y", "x" * 254 + " y", "x" * 252 + " yz"])
async def test_no_more_of_a_clients_own_name_is_told_than_is_heard(helo: str) -> None:
    offer = ["250-behind", "250 XCLIENT HELO LOGIN"]
    submitter = Submitter("192.0.2.7", helo, "ann")
    async with scripted(GREETING, offer, ["220 behind"], offer) as (script, upstream):
        subject = await opened(upstream, submitter)
        subject.close()
        await script.done.wait()

    said = script.heard[1].split()[1].removeprefix(b"HELO=")
    assert len(said) <= 255
    assert re.fullmatch(rb"x{252,}(\+20)?", said)


async def test_an_interface_is_no_part_of_an_address() -> None:
    offer = ["250-behind", "250 XCLIENT ADDR LOGIN"]
    submitter = Submitter("fe80::7%eth0", "client.test.example", "ann")
    async with scripted(GREETING, offer, ["220 behind"], offer) as (script, upstream):
        subject = await opened(upstream, submitter)
        subject.close()
        await script.done.wait()

    assert script.heard[1] == b"XCLIENT ADDR=IPV6:fe80::7 LOGIN=ann\r\n"


async def test_nothing_is_told_where_the_login_is_not_heard() -> None:
    offer = ["250-behind", "250 XCLIENT NAME ADDR"]
    async with scripted(GREETING, offer, ["221 Bye"]) as (script, upstream):
        subject = await opened(upstream)
        subject.close()
        await script.done.wait()

    assert script.heard[1:] == [b"QUIT\r\n"]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([None], id="hangs-up"),
        pytest.param([["554 go away"]], id="greets-nobody"),
        pytest.param([GREETING, ["550 no"]], id="hears-no-ehlo"),
        pytest.param([GREETING, None], id="hangs-up-after-greeting"),
        pytest.param(
            [GREETING, ["250-behind", "250 XCLIENT LOGIN"], ["550 5.7.0 no"]], id="refuses-xclient"
        ),
        pytest.param(
            [GREETING, ["250-behind", "250 XCLIENT LOGIN"], ["250 Ok"]], id="does-not-begin-again"
        ),
        pytest.param([["hello"]], id="is-no-mail-server"),
    ],
)
async def test_a_server_that_does_not_listen_is_out_of_reach(
    answers: list[list[str] | None],
) -> None:
    async with scripted(*answers) as (_, upstream):
        said = await Relay.open(upstream, HOST, ANN)

    assert isinstance(said, str)
    assert said.startswith("451 4.4.1 ")


async def test_a_server_that_is_silent_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "GREETING_SECONDS", 0.2)
    async with scripted([]) as (_, upstream):
        said = await Relay.open(upstream, HOST, ANN)

    assert isinstance(said, str)
    assert said.startswith("451 4.4.1 ")


async def test_a_client_that_goes_leaves_no_connection_behind() -> None:
    async with scripted(GREETING, []) as (script, upstream):
        opening = asyncio.create_task(Relay.open(upstream, HOST, ANN))
        await script.greeted.wait()
        opening.cancel()
        async with asyncio.timeout(DEADLINE):
            await script.done.wait()

    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_a_server_that_falls_silent_is_451(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "COMMAND_SECONDS", 0.2)
    async with scripted(GREETING, EHLO, []) as (_, upstream):
        subject = await opened(upstream)
        said = await subject.mail("ann@example.org", [])

    assert said.startswith("451 4.4.2 ")


async def test_a_command_may_take_longer_than_the_greeting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "COMMAND_SECONDS", 1.0)
    async with scripted(GREETING, EHLO, []) as (_, upstream):
        subject = await opened(upstream)
        monkeypatch.setattr(relay, "GREETING_SECONDS", 0.3)
        begun = asyncio.get_running_loop().time()
        await subject.mail("ann@example.org", [])

    assert asyncio.get_running_loop().time() - begun > 0.9


async def test_a_server_that_refuses_a_message_is_not_waited_for_to_read_it() -> None:
    closed, done, heard = asyncio.Event(), asyncio.Event(), bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"220 behind", b"250 behind", b"354 go\r\n554 5.6.0 no"):
            writer.write(answer + b"\r\n")
            await reader.readline()
        writer.write(b"554 5.6.0 no\r\n")
        await closed.wait()
        with contextlib.suppress(ConnectionError):
            while some := await reader.read(1_000_000):
                heard.extend(some)
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
    subject = await opened(Upstream("127.0.0.1", server.sockets[0].getsockname()[1], DEADLINE))
    said = await subject.data(b"x\r\n" * 5_000_000)
    subject.close()
    closed.set()
    async with asyncio.timeout(DEADLINE):
        await done.wait()
    server.close()

    assert said == "554 5.6.0 no"
    assert not heard.endswith(b"QUIT\r\n")


async def test_a_server_that_does_not_say_whether_it_has_the_message_is_451() -> None:
    replies = [["250 Ok"], ["250 Ok"], ["354 go"], []]
    async with scripted(GREETING, EHLO, *replies, seconds=0.3) as (script, upstream):
        subject = await opened(upstream)
        await subject.mail("ann@example.org", [])
        await subject.rcpt("bob@example.net")
        said = await subject.data(b"x\r\n")
        subject.close()
        await script.done.wait()

    assert said.startswith("451 4.4.2 ")
    assert b"QUIT\r\n" not in script.heard


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(["250 2.0.0 Ok"], id="success"),
        pytest.param(["xx", "250 Ok"], id="no-reply"),
        pytest.param(["250-" + "x" * 400] * 100 + ["250 Ok"], id="without-end"),
    ],
)
async def test_an_answer_that_cannot_be_one_to_data_is_no_success(answer: list[str]) -> None:
    async with scripted(GREETING, EHLO, ["250 Ok"], ["250 Ok"], answer, []) as (script, upstream):
        subject = await opened(upstream)
        await subject.mail("ann@example.org", [])
        await subject.rcpt("bob@example.net")
        said = await subject.data(b"x\r\n")

    assert said.startswith("451 4.4.2 ")
    assert script.heard[-1] == b"DATA\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(["xx", "250 Ok"], id="no-reply"),
        pytest.param(["250-" + "x" * 400] * 100 + ["250 Ok"], id="without-end"),
    ],
)
async def test_nothing_more_is_asked_of_a_server_that_is_out_of_step(answer: list[str]) -> None:
    async with scripted(GREETING, EHLO, ["250 Ok"], answer, ["250 Ok"]) as (_, upstream):
        subject = await opened(upstream)
        await subject.mail("ann@example.org", [])
        said = [await subject.rcpt("bob@example.net"), await subject.rcpt("ann@example.net")]

    assert [one[:10] for one in said] == ["451 4.4.2 ", "451 4.4.2 "]


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        pytest.param(
            ["550-5.7.1 no", "550 5.7.1 never"], "550-5.7.1 no\r\n550 5.7.1 never", id="2"
        ),
        pytest.param(["452 4.3.1 full"], "452 4.3.1 full", id="later"),
        pytest.param(["421 4.3.2 leaving"], "451 4.3.2 leaving", id="leaving"),
        pytest.param(["354 what?"], "451 what?", id="out-of-order"),
        pytest.param(["550 caf\u00e9\x1b[1m"], "550 caf?[1m", id="not-printable"),
        pytest.param(["550 " + "x" * 450], "550 " + "x" * 400, id="long"),
        pytest.param(["550"], "550 ", id="no-text"),
    ],
)
async def test_what_the_server_says_is_what_the_client_hears(answer: list[str], reply: str) -> None:
    async with scripted(GREETING, EHLO, answer) as (_, upstream):
        subject = await opened(upstream)
        said = await subject.mail("ann@example.org", [])
        subject.close()

    assert said == reply


async def test_a_server_behind_that_wants_a_login_does_not_have_the_client_asked_for_one() -> None:
    refusal = ["530 5.7.0 Authentication required"]
    async with scripted(GREETING, EHLO, refusal) as (_, upstream):
        subject = await opened(upstream)

        assert (await subject.mail("ann@example.org", [])).startswith("451 4.3.5 ")

        subject.close()
