"""How long a silent client is borne with, by a clock that the test puts forward."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pysaslauthd.server.smtp import SaslSMTP
from tests.helpers.processes import DEADLINE
from tests.helpers.smtp_server import HOST, Keeper, auth

PATIENCE = 300.0
SHORT_OF_IT = PATIENCE - 100  # the clock's own seconds go by too, and no test may take as many


class Connection(SaslSMTP):
    """A connection whose end can be waited for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.has_ended = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end."""
        super().connection_lost(error)
        self.has_ended.set()


class Client:
    """A client in the loop of the server, whose time it can put forward; *connection* serves it."""

    connection: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[dict[str, Any]] = []
        self._ahead = 0.0
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        time = self._loop.time
        monkeypatch.setattr(self._loop, "time", lambda: time() + self._ahead)

    def serve(self) -> SaslSMTP:
        """Return what serves the next connection."""
        options = {"hostname": HOST, "timeout": PATIENCE, "loop": self._loop}
        self.connection = Connection(Keeper(), auth=auth(), **options)
        return self.connection

    async def say(self, line: str) -> str:
        """Return the last line of the reply to *line*."""
        self.writer.write(line.encode() + b"\r\n")
        return await self.hear()

    async def hear(self) -> str:
        """Return the last line of the next reply; "" where the server has hung up."""
        async with asyncio.timeout(DEADLINE):
            while (line := await self.reader.readline())[3:4] == b"-":
                pass
        return line.decode().rstrip("\r\n")

    async def leave(self) -> None:
        """Hang up; return when the server has noticed."""
        self.writer.close()
        async with asyncio.timeout(DEADLINE):
            await self.connection.has_ended.wait()

    async def be_silent(self, seconds: float) -> None:
        """Let time go by, and the loop do what it is time for."""
        self._ahead += seconds
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)


@pytest_asyncio.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    made = Client(monkeypatch)
    server = await asyncio.get_running_loop().create_server(made.serve, "127.0.0.1", 0)
    async with server:
        made.reader, made.writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await made.hear()
        await made.say("EHLO client.test.example")
        yield made
        await made.leave()


async def test_a_client_that_is_silent_for_too_long_is_let_go(client: Client) -> None:
    await client.be_silent(PATIENCE + 1)

    assert await client.hear() == ""


async def test_each_command_begins_the_time_anew(client: Client) -> None:
    for _ in range(3):
        await client.be_silent(SHORT_OF_IT)
        assert await client.say("NOOP") == "250 OK"

    await client.be_silent(PATIENCE + 1)
    assert await client.hear() == ""


async def test_each_response_begins_the_time_anew(client: Client) -> None:
    assert (await client.say("AUTH LOGIN")).startswith("334 ")
    await client.be_silent(SHORT_OF_IT)
    assert (await client.say("am9l")).startswith("334 ")
    await client.be_silent(SHORT_OF_IT)

    assert await client.say("am9lcHc=") == "235 2.7.0 Authentication successful"


async def test_a_client_is_let_go_within_an_exchange_too(client: Client) -> None:
    assert (await client.say("AUTH LOGIN")).startswith("334 ")

    await client.be_silent(PATIENCE + 1)
    assert await client.hear() == ""


async def test_a_server_may_be_more_patient(client: Client) -> None:
    client.connection.be_patient(3 * PATIENCE)
    await client.be_silent(2 * PATIENCE)

    assert await client.say("NOOP") == "250 OK"


async def test_the_patience_is_over_in_the_end(client: Client) -> None:
    client.connection.be_patient(3 * PATIENCE)
    await client.be_silent(3 * PATIENCE + 1)

    assert await client.hear() == ""


async def test_the_next_command_ends_it(client: Client) -> None:
    client.connection.be_patient(3 * PATIENCE)
    await client.be_silent(PATIENCE + 1)  # now the timer is set to the end of the patience
    assert await client.say("NOOP") == "250 OK"

    await client.be_silent(PATIENCE + 1)
    assert await client.hear() == ""


async def test_a_server_may_be_less_patient(client: Client) -> None:
    client.connection.be_patient(10.0)
    await client.be_silent(11.0)

    assert await client.hear() == ""


async def test_nothing_is_waited_for_when_a_client_has_gone(client: Client) -> None:
    client.connection.be_patient(3 * PATIENCE)
    await client.be_silent(PATIENCE + 1)
    await client.say("NOOP")
    await client.leave()
    await client.be_silent(10 * PATIENCE)

    assert client.faults == []
