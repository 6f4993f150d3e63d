"""One connection to a directory: numbers, deadlines, and what a server may do wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from pysaslauthd.backends.ldap.connection import (
    Connection,
    Lost,
    Pulse,
    ServerFailed,
    Silent,
    Unanswered,
)
from pysaslauthd.remote.connect import Connector, Unreachable
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.wire import ber, ldap, ldap_filter
from tests.helpers.ldap_server import (
    HangUp,
    LdapServer,
    Request,
    answer_all,
    entry,
    ldap_server,
    result,
)
from tests.helpers.workers import eventually

SEARCH = ldap.search(b"", ldap.SearchRules("base"), ldap_filter.ANY_ENTRY)
BIND = ldap.simple_bind(b"uid=joe", b"pw")
QUICK, PATIENT = 0.4, 20.0  # seconds


async def say_nothing(_request: Request) -> bytes:
    return b""


class Opened(NamedTuple):
    """A connection, its server's pulse, and how often it has been closed."""

    connection: Connection
    pulse: Pulse
    closed: list[Connection]


@contextlib.asynccontextmanager
async def connected(server: LdapServer, patience: float = PATIENT) -> AsyncIterator[Opened]:
    endpoint = Endpoint("127.0.0.1", server.port, Security.NONE)
    pulse = Pulse()
    closed: list[Connection] = []

    def make() -> Connection:
        return Connection(patience, pulse, closed.append)

    connection = await Connector(endpoint, None, PATIENT).connect(make)
    yield Opened(connection, pulse, closed)
    connection.close()


async def test_an_answer_has_its_entries() -> None:
    async with ldap_server() as server, connected(server) as opened:
        answer = await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

        assert [one.dn for one in answer.entries] == [b"uid=joe"]
        assert answer.result.code == 0


async def test_answers_in_another_order_reach_who_asked() -> None:
    may_answer = asyncio.Event()

    async def first_is_last(request: Request) -> bytes:
        if request.number == 1:
            await may_answer.wait()
        else:
            may_answer.set()
        return entry(request, b"uid=%d" % request.number) + result(request)

    async with ldap_server(first_is_last) as server, connected(server) as opened:
        both = [opened.connection.ask(ldap.SEARCH_DONE, SEARCH) for _ in range(2)]
        answers = await asyncio.gather(*both)

    assert [answer.entries[0].dn for answer in answers] == [b"uid=1", b"uid=2"]


async def test_of_many_entries_two_are_kept() -> None:
    async def many(request: Request) -> bytes:
        return entry(request) * 1000 + result(request)

    async with ldap_server(many) as server, connected(server) as opened:
        answer = await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

    assert len(answer.entries) == 2


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        pytest.param(b"HTTP/1.1 400 Bad\r\n\r\n", "no LDAP: a message of tag 0x48", id="http"),
        pytest.param(b"\x30\x80\x02\x01", "no LDAP: a length that is indefinite", id="indefinite"),
        pytest.param(b"\x30\x84\x7f\xff\xff\xff", "no LDAP: a message of", id="endless"),
        pytest.param(b"\x30\x05\x02\x01\x01\x7f\x00", "no LDAP: an operation of tag", id="odd"),
    ],
)
async def test_garbage_ends_the_connection(said: bytes, problem: str) -> None:
    async def garbage(_request: Request) -> bytes:
        return said

    async with ldap_server(garbage) as server, connected(server) as opened:
        with pytest.raises(Lost, match=problem):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

        assert opened.closed == [opened.connection]


async def test_an_answer_of_another_kind_is_garbage_too() -> None:
    async def as_bind(request: Request) -> bytes:
        return result(request._replace(tag=ldap.BIND_REQUEST))

    async with ldap_server(as_bind) as server, connected(server) as opened:
        with pytest.raises(Lost, match="an answer of kind 0x61"):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)


async def test_answers_that_nobody_waits_for_are_ignored() -> None:
    async def twice(request: Request) -> bytes:
        stray = request._replace(number=request.number + 50)
        return entry(stray) + result(stray) + await answer_all(request)

    async with ldap_server(twice) as server, connected(server) as opened:
        answer = await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

    assert len(answer.entries) == 1


async def test_a_server_that_hangs_up_ends_what_is_asked() -> None:
    async def hang_up(_request: Request) -> bytes:
        raise HangUp

    async with ldap_server(hang_up) as server, connected(server) as opened:
        with pytest.raises(Lost, match="it hung up"):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)


async def test_a_server_that_says_that_it_leaves_is_quoted_but_not_what_may_be_a_password() -> None:
    async def leave(request: Request) -> bytes:
        return result(request._replace(number=0, tag=ldap.EXTENDED_REQUEST), 52, b"what is pw?")

    async with ldap_server(leave) as server, connected(server) as opened:
        with pytest.raises(Lost, match=r"it disconnects: unavailable \(52\)$"):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)


async def test_on_a_closed_connection_nothing_is_asked() -> None:
    async with ldap_server() as server, connected(server) as opened:
        opened.connection.close("enough")

        with pytest.raises(Lost, match="enough"):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

        assert server.tags == []


async def test_closing_says_goodbye() -> None:
    async with ldap_server() as server:
        async with connected(server) as opened:
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)
        await eventually(lambda: not server.open, "end of the connection")

        assert server.tags == [ldap.SEARCH_REQUEST, ldap.UNBIND_REQUEST]


async def test_a_server_without_a_word_is_silent() -> None:
    async with ldap_server(say_nothing) as server, connected(server, QUICK) as opened:
        with pytest.raises(Silent, match=r"no word from it within 0\.4 s"):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

        assert opened.connection.failure is not None


async def test_a_message_that_does_not_come_to_an_end_is_no_word() -> None:
    async def begin(request: Request) -> bytes:
        return result(request)[:-1]

    async with ldap_server(begin) as server, connected(server, QUICK) as opened:
        with pytest.raises(Silent):
            await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)


async def test_silence_fails_whatever_else_is_asked() -> None:
    async with ldap_server(say_nothing) as server, connected(server, QUICK) as opened:
        several = [opened.connection.ask(ldap.SEARCH_DONE, SEARCH) for _ in range(3)]

        done = await asyncio.gather(*several, return_exceptions=True)

        assert [type(one) for one in done] == [Silent] * 3


async def answer_all_but_the_first(request: Request) -> bytes:
    return b"" if request.number == 1 else await answer_all(request)


async def test_one_answer_that_takes_too_long_is_given_up_alone() -> None:
    async with ldap_server(answer_all_but_the_first) as server, connected(server, QUICK) as opened:
        answer, other = (opened.connection.ask(ldap.SEARCH_DONE, SEARCH) for _ in range(2))
        await other

        with pytest.raises(Unanswered, match=r"no answer within 0\.4 s"):
            await answer

        assert opened.connection.failure is None


async def test_a_connection_by_which_nothing_comes_is_given_up_while_others_are_alive() -> None:
    async with ldap_server(say_nothing) as server, connected(server, QUICK) as opened:
        several = [opened.connection.ask(ldap.SEARCH_DONE, SEARCH) for _ in range(3)]
        opened.pulse.heard = asyncio.get_running_loop().time() + 1  # on another connection

        done = await asyncio.gather(*several, return_exceptions=True)

        assert [type(one) for one in done] == [Unanswered, Lost, Lost]
        assert opened.closed == [opened.connection]


async def test_what_is_given_up_is_abandoned() -> None:
    async with ldap_server(answer_all_but_the_first) as server, connected(server) as opened:
        answer = opened.connection.ask(ldap.SEARCH_DONE, SEARCH)
        answer.cancel()
        await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

        opened.connection.abandon(answer)
        await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

    abandoned = [one.content for one in server.requests if one.tag == ldap.ABANDON_REQUEST]
    assert abandoned == [b"\x01"]


async def test_what_is_answered_cannot_be_abandoned() -> None:
    async with ldap_server() as server, connected(server) as opened:
        answer = opened.connection.ask(ldap.SEARCH_DONE, SEARCH)
        await answer

        opened.connection.abandon(answer)
        await opened.connection.ask(ldap.SEARCH_DONE, SEARCH)

    assert ldap.ABANDON_REQUEST not in server.tags


async def test_who_stopped_waiting_costs_nobody_the_connection() -> None:
    may_answer = asyncio.Event()

    async def later(request: Request) -> bytes:
        await may_answer.wait()
        return await answer_all(request)

    async with ldap_server(later) as server, connected(server) as opened:
        given_up, kept = (opened.connection.ask(ldap.SEARCH_DONE, SEARCH) for _ in range(2))
        given_up.cancel()
        may_answer.set()

        assert len((await kept).entries) == 1


class TestStartTls:
    @contextlib.asynccontextmanager
    async def upgrading(self, said: Callable[[Request], bytes]) -> AsyncIterator[Connector]:
        async def respond(request: Request) -> bytes:
            return said(request)

        async with ldap_server(respond) as server:
            endpoint = Endpoint("127.0.0.1", server.port, Security.STARTTLS)
            yield Connector(endpoint, None, PATIENT)

    async def upgrade(self, connector: Connector) -> None:
        pulse = Pulse()
        connection = await connector.connect(lambda: Connection(PATIENT, pulse, lambda _: None))
        try:
            await connection.start_tls(connector)
        finally:
            connection.close()

    async def test_a_server_that_refuses_is_quoted(self) -> None:
        async with self.upgrading(lambda request: result(request, 2, b"no TLS here")) as connector:
            with pytest.raises(ServerFailed, match=r"StartTLS: protocol error \(2\): no TLS"):
                await self.upgrade(connector)

    async def test_a_server_that_says_more_before_tls_is_not_believed(self) -> None:
        def more(request: Request) -> bytes:
            return result(request) + ber.encode(ber.SEQUENCE, b"cut")[:3]

        async with self.upgrading(more) as connector:
            with pytest.raises(ServerFailed, match="it said more before TLS began"):
                await self.upgrade(connector)

    async def test_without_rules_for_tls_there_is_none(self) -> None:
        async with self.upgrading(result) as connector:
            with pytest.raises(Unreachable):
                await self.upgrade(connector)
