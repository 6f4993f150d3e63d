"""One directory server: the connections that are kept, and what becomes of it when it fails."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pysaslauthd.backends.ldap import identity, pools
from pysaslauthd.backends.ldap import server as server_module
from pysaslauthd.backends.ldap.connection import Answer, Connection, ServerFailed, Unanswered
from pysaslauthd.backends.ldap.sasl import SaslRules
from pysaslauthd.backends.ldap.server import Limits, Server, TakeOn
from pysaslauthd.model import Secret
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.sasl.client import Credentials, find
from pysaslauthd.wire import ber, ldap, ldap_filter
from tests.helpers.ldap_server import (
    HangUp,
    Request,
    answer_all,
    ldap_server,
    result,
)
from tests.helpers.processes import free_port
from tests.helpers.workers import eventually

SEARCH = ldap.search(b"dc=org", ldap.SearchRules(), ldap_filter.ANY_ENTRY)
BIND = ldap.simple_bind(b"uid=joe", b"pw")
QUICK, PATIENT = 0.4, 20.0  # seconds
NAME = "ldap://directory/"
PROVEN = identity.proven(
    SaslRules(find("CRAM-MD5"), private=False), Credentials("service", Secret(b"of the service"))
)
SERVICE = identity.named("cn=service", Secret(b"of the service"))


@contextlib.asynccontextmanager
async def client(
    port: int, patience: float = PATIENT, most: int = 64, take_on: TakeOn = identity.anonymous
) -> AsyncIterator[Server]:
    """Make our side of the server at *port*."""
    connector = Connector(Endpoint("127.0.0.1", port, Security.NONE), None, patience)
    made = Server(NAME, connector, take_on, Limits(patience, most))
    try:
        yield made
    finally:
        await made.close()


async def bind(connection: Connection) -> ldap.Result:
    return (await connection.ask(ldap.BIND_RESPONSE, BIND)).result


def search(asked: Server) -> asyncio.Task[Answer]:
    return asyncio.create_task(asked.ask(ldap.SEARCH_DONE, SEARCH))


async def challenge(request: Request) -> bytes:
    """Say yes to a bind when it is in its second step."""
    if request.number > 1:
        return await answer_all(request)
    said = ber.integer(14, ber.ENUMERATED) + ber.octets(b"") * 2 + ber.encode(0x87, b"<1@a>")
    return ldap.message(request.number, ber.encode(ldap.BIND_RESPONSE, said))


async def say_nothing(_request: Request) -> bytes:
    return b""


async def slow_for_org(request: Request) -> bytes:
    return b"" if b"dc=org" in request.content else result(request)


async def never(within: float) -> None:
    """Let so many seconds pass in which something may happen that must not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await asyncio.Event().wait()


class Gate:
    """Answers when it is opened, not before."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, request: Request) -> bytes:
        await self.opened.wait()
        return await answer_all(request)


class TestAsking:
    async def test_many_at_once_share_a_connection(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            await asyncio.gather(*(search(subject) for _ in range(pools.PIPELINED)))

            assert peer.connections == 1

    async def test_more_at_once_have_more_connections_and_no_more_than_four(self) -> None:
        gate = Gate()
        async with ldap_server(gate) as peer, client(peer.port) as subject:
            asked = [search(subject) for _ in range(10 * pools.PIPELINED)]
            await eventually(lambda: len(peer.requests) == 4 * pools.PIPELINED, "questions")
            gate.opened.set()
            await asyncio.gather(*asked)

            assert peer.connections == 4

    async def test_no_connection_has_more_than_its_share(self) -> None:
        gate = Gate()
        async with ldap_server(gate) as peer, client(peer.port) as subject:
            asked = [search(subject) for _ in range(10 * pools.PIPELINED)]
            await eventually(lambda: len(peer.requests) == 4 * pools.PIPELINED, "questions")
            shares = [sum(r.connection == n for r in peer.requests) for n in (1, 2, 3, 4)]
            gate.opened.set()
            await asyncio.gather(*asked)

        assert shares == [pools.PIPELINED] * 4

    async def test_a_connection_that_was_closed_meanwhile_costs_nobody_an_answer(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            await search(subject)
            await peer.stop()
            await peer.start(peer.port)

            answer = await search(subject)

            assert len(answer.entries) == 1

    async def test_who_is_not_waited_for_any_more_is_abandoned(self) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port) as subject:
            asked = search(subject)
            await eventually(lambda: bool(peer.requests), "question")
            asked.cancel()

            await eventually(lambda: ldap.ABANDON_REQUEST in peer.tags, "abandon")

    async def test_all_who_wait_for_a_connection_hear_that_there_is_none(self) -> None:
        async with client(free_port()) as subject:
            done = await asyncio.gather(
                *(search(subject) for _ in range(5)), return_exceptions=True
            )

        assert [type(one) for one in done] == [ServerFailed] * 5

    async def test_unused_connections_are_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "IDLE", 0.02)
        async with ldap_server() as peer, client(peer.port) as subject:
            await search(subject)
            await subject.use(bind)

            await eventually(lambda: not peer.open, "end of both connections")


class TestBinding:
    async def test_a_connection_is_used_again(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            for _ in range(3):
                await subject.use(bind)

            assert peer.connections == 1

    async def test_nothing_is_said_on_a_connection_while_it_binds(self) -> None:
        gate = Gate()
        async with ldap_server(gate) as peer, client(peer.port) as subject:
            both = [asyncio.create_task(subject.use(bind)) for _ in range(2)]
            await eventually(lambda: len(peer.requests) == 2, "binds")
            on = {request.connection for request in peer.requests}
            gate.opened.set()
            await asyncio.gather(*both)

        assert on == {1, 2}

    async def test_there_are_so_many_connections_and_no_more(self) -> None:
        gate = Gate()
        async with ldap_server(gate) as peer, client(peer.port, most=3) as subject:
            asked = [asyncio.create_task(subject.use(bind)) for _ in range(9)]
            await eventually(lambda: len(peer.requests) == 3, "binds")
            gate.opened.set()
            await asyncio.gather(*asked)

            assert (peer.connections, len(peer.requests)) == (3, 9)

    async def test_what_has_bound_is_never_asked(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            for _ in range(2):
                await subject.use(bind)
                await search(subject)

        bound = {one.connection for one in peer.requests if one.tag == ldap.BIND_REQUEST}
        asked = {one.connection for one in peer.requests if one.tag == ldap.SEARCH_REQUEST}
        assert bound & asked == set()

    async def test_a_connection_that_was_closed_meanwhile_costs_nobody_an_answer(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            await subject.use(bind)
            await peer.stop()
            await peer.start(peer.port)

            assert (await subject.use(bind)).code == 0

    async def test_a_bind_that_is_not_waited_for_ends_its_connection(self) -> None:
        async def no_binds(request: Request) -> bytes:
            return b"" if request.tag == ldap.BIND_REQUEST else result(request)

        async with ldap_server(no_binds) as peer, client(peer.port) as subject:
            asked = asyncio.create_task(subject.use(bind))
            await eventually(lambda: bool(peer.requests), "bind")
            asked.cancel()

            await eventually(lambda: not peer.open, "end of all connections")


class TestFailing:
    async def test_who_is_not_there_is_named(self) -> None:
        port = free_port()
        async with client(port) as subject:
            with pytest.raises(ServerFailed, match=f"127.0.0.1:{port}.*Connection refused"):
                await search(subject)

            assert "Connection refused" in subject.problem

    async def test_who_hangs_up_at_once_has_failed(self) -> None:
        async def hang_up(_request: Request) -> bytes:
            raise HangUp

        async with ldap_server(hang_up) as peer, client(peer.port) as subject:
            with pytest.raises(
                ServerFailed, match="it hung up before it said a word: does it speak TLS"
            ):
                await search(subject)

    async def test_who_accepts_and_closes_has_failed(self) -> None:
        async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        peer = await asyncio.start_server(close, "127.0.0.1", 0)
        async with peer, client(peer.sockets[0].getsockname()[1]) as subject:
            with pytest.raises(ServerFailed):
                await search(subject)
            with pytest.raises(ServerFailed):
                await subject.use(bind)

    async def test_a_silent_one_fails_for_all_who_wait(self) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port, QUICK) as subject:
            bound = asyncio.create_task(subject.use(bind))

            with pytest.raises(ServerFailed, match="no word from it within"):
                await search(subject)
            with pytest.raises(ServerFailed):
                await bound

    @pytest.mark.parametrize("ask", [lambda it: it.use(bind), search], ids=["bind", "search"])
    async def test_one_that_is_silent_until_nobody_waits_has_failed(
        self, ask: Callable[[Server], Awaitable[object]]
    ) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port) as subject:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(QUICK):
                    await ask(subject)

            assert re.fullmatch(rf"{NAME}: no word from it within \d+\.\d s", subject.problem)

    async def test_one_slow_answer_is_no_failure_where_nobody_waits_any_more(self) -> None:
        async with ldap_server(slow_for_org) as peer, client(peer.port) as subject:
            asked = search(subject)
            await eventually(lambda: bool(peer.requests), "question")
            await subject.use(bind)
            asked.cancel()
            await asyncio.wait([asked])

            assert subject.problem == ""

    async def test_one_that_has_failed_is_not_asked(self) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port, QUICK) as subject:
            with pytest.raises(ServerFailed):
                await search(subject)
            before = len(peer.requests)

            with pytest.raises(ServerFailed):
                await search(subject)

            assert [r for r in peer.requests[before:] if r.content.find(b"dc=org") >= 0] == []

    async def test_one_slow_answer_is_not_the_servers_failure(self) -> None:
        async with ldap_server(slow_for_org) as peer, client(peer.port, 1.5) as subject:
            asked = search(subject)
            await asyncio.wait([asked], timeout=0.1)
            await subject.use(bind)

            with pytest.raises(Unanswered, match=f"{NAME}: no answer within 1.5 s"):
                await asked
            assert subject.problem == ""

    async def test_it_is_asked_again_when_it_is_back(self) -> None:
        port = free_port()
        async with client(port) as subject, ldap_server() as peer:
            with pytest.raises(ServerFailed):
                await search(subject)
            await peer.stop()
            await peer.start(port)

            await eventually(lambda: not subject.problem, "recovery")
            await search(subject)

    async def test_one_that_accepts_and_says_nothing_is_not_back(self) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port, QUICK) as subject:
            with pytest.raises(ServerFailed):
                await search(subject)
            await eventually(lambda: peer.connections >= 3, "two more looks at it")

            assert "no word from it" in subject.problem
            peer.respond = answer_all
            await eventually(lambda: not subject.problem, "recovery")

    async def test_one_without_room_gets_it_from_connections_that_are_not_used(self) -> None:
        async with ldap_server() as peer, client(peer.port) as subject:
            await search(subject)
            await asyncio.gather(*(subject.use(bind) for _ in range(3)))
            peer.most = peer.open
            more = [subject.use(bind) for _ in range(4)]
            await asyncio.gather(*more, return_exceptions=True)

            assert subject.problem != ""
            await eventually(lambda: not subject.problem, "recovery")

    async def test_each_change_is_logged_once(
        self, caplog: pytest.LogCaptureFixture, seen_logs: None
    ) -> None:
        async with ldap_server(say_nothing) as peer, client(peer.port, QUICK) as subject:
            with pytest.raises(ServerFailed):
                await search(subject)
            await eventually(lambda: peer.connections >= 3, "two more looks at it")
            peer.respond = answer_all
            await eventually(lambda: not subject.problem, "recovery")

        assert [record.getMessage() for record in caplog.records] == [
            "ldap://directory/: no word from it within 0.4 s",
            "ldap://directory/: it answers again",
        ]

    async def test_closing_ends_the_looks_at_it(self) -> None:
        async with ldap_server(say_nothing) as peer:
            async with client(peer.port, QUICK) as subject:
                with pytest.raises(ServerFailed):
                    await search(subject)

            await eventually(lambda: not peer.open, "end of all connections")

    async def test_closing_ends_a_greeting_that_is_not_answered(self) -> None:
        async with ldap_server(say_nothing) as peer:
            async with client(peer.port) as subject:
                greeting = asyncio.create_task(subject.greet())
                await eventually(lambda: bool(peer.requests), "greeting")
            await greeting
            await eventually(lambda: not peer.open, "end of all connections")

            assert peer.connections == 1

    async def test_a_greeting_tells_nobody_but_the_log(self) -> None:
        async with client(free_port()) as subject:
            await subject.greet()

            assert "Connection refused" in subject.problem


class TestTheServicesIdentity:
    async def test_it_is_taken_on_before_anything_is_asked(self) -> None:
        async with ldap_server() as peer, client(peer.port, take_on=SERVICE) as subject:
            await search(subject)

            assert peer.tags == [ldap.BIND_REQUEST, ldap.SEARCH_REQUEST]

    async def test_it_is_not_taken_on_where_passwords_are_checked(self) -> None:
        async with ldap_server() as peer, client(peer.port, take_on=SERVICE) as subject:
            await subject.use(bind)

            assert peer.tags == [ldap.BIND_REQUEST]
            assert b"of the service" not in peer.requests[0].content

    async def refuse(self, request: Request) -> bytes:
        return result(request, 49, b"bad: of the service")

    async def test_a_refusal_is_an_outage_that_names_the_setting(self) -> None:
        async with ldap_server(self.refuse) as peer, client(peer.port, take_on=SERVICE) as it:
            with pytest.raises(ServerFailed) as failed:
                await search(it)

        assert str(failed.value) == (
            "ldap://directory/: it refuses ldap_bind_dn cn=service: wrong password:"
            " invalid credentials (49)"
        )

    async def test_after_a_refusal_it_is_not_tried_again_soon(self) -> None:
        async with ldap_server(self.refuse) as peer, client(peer.port, take_on=SERVICE) as it:
            with pytest.raises(ServerFailed):
                await search(it)
            await never(within=0.5)

            assert peer.tags.count(ldap.BIND_REQUEST) == 1

    async def test_a_refused_connection_is_closed(self) -> None:
        async with ldap_server(self.refuse) as peer, client(peer.port, take_on=SERVICE) as it:
            with pytest.raises(ServerFailed):
                await search(it)

            await eventually(lambda: not peer.open, "end of the connection")

    async def test_a_server_that_is_busy_has_not_refused_it(self) -> None:
        async def busy_once(request: Request) -> bytes:
            peer.respond = answer_all
            return result(request, 51)

        async with ldap_server(busy_once) as peer, client(peer.port, take_on=SERVICE) as it:
            with pytest.raises(ServerFailed, match=r"busy \(51\)"):
                await search(it)

            await eventually(lambda: not it.problem, "recovery")

    async def test_where_no_thread_is_left_to_prove_it_that_is_tried_again(self) -> None:
        spent = ThreadPoolExecutor()
        spent.shutdown()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(spent)
        async with ldap_server(challenge) as peer, client(peer.port, take_on=PROVEN) as it:
            with pytest.raises(ServerFailed, match="no thread is left"):
                await search(it)
            await eventually(lambda: peer.connections >= 2, "look at it")
            loop.set_default_executor(ThreadPoolExecutor())

            await eventually(lambda: not it.problem, "recovery")


def test_a_name_without_a_password_is_nobodys() -> None:
    with pytest.raises(ValueError, match="without a name or a password"):
        identity.named("cn=service", Secret(b""))
