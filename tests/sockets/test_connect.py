"""Connections without TLS: addresses in turn, each with its share of the time; unix sockets."""

import asyncio
import errno
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pysaslauthd.remote.connect import Connector, Unreachable, describe
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.resolver import Address, Resolver
from tests.helpers.peers import Client, NameServer, no_room, nobody_answers, peer
from tests.helpers.processes import DEADLINE, free_port, short_directory
from tests.helpers.workers import count_descriptors, eventually

NAME = "mail.example.org"
SLACK = 10.0  # seconds, for a machine that has other things to do


def connector(
    port: int, hosts: Sequence[str], patience: float = DEADLINE, name: str = NAME
) -> Connector:
    """Return what connects to *name*, which has the addresses *hosts*."""
    found = [Address(socket.AF_INET, (host, port)) for host in hosts]
    resolver = Resolver(name, port, lambda _host, _port: found)
    return Connector(Endpoint(name, port, Security.NONE), None, patience, resolver)


def at(path: Path, patience: float = DEADLINE) -> Connector:
    return Connector(Endpoint("localhost", 0, Security.NONE, str(path)), None, patience)


async def problem_of(subject: Connector) -> str:
    with pytest.raises(Unreachable) as caught:
        await subject.connect(Client)
    return str(caught.value)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory("sd-") as path:
        yield path


async def test_a_name_leads_to_its_server() -> None:
    async with peer() as server:
        client = await connector(server.port, ["127.0.0.1"]).connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_an_address_needs_no_name() -> None:
    async with peer() as server:
        endpoint = Endpoint("127.0.0.1", server.port, Security.NONE)
        client = await Connector(endpoint, None, DEADLINE).connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_a_scope_is_part_of_an_address() -> None:
    address = Address(socket.AF_INET6, ("::1", 0, 0, socket.if_nametoindex("lo")))
    async with peer(host="::1") as server:
        address = address._replace(sockaddr=("::1", server.port, *address.sockaddr[2:]))
        resolver = Resolver("::1%lo", server.port, lambda _host, _port: [address])
        endpoint = Endpoint("::1%lo", server.port, Security.NONE)
        client = await Connector(endpoint, None, DEADLINE, resolver).connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_a_refusal_names_server_address_and_reason() -> None:
    port = free_port()

    assert (
        await problem_of(connector(port, ["127.0.0.1"]))
        == f"{NAME}:{port}: 127.0.0.1: Connection refused"
    )


async def test_an_address_is_not_named_twice() -> None:
    port = free_port()
    subject = Connector(Endpoint("127.0.0.1", port, Security.NONE), None, DEADLINE)

    assert await problem_of(subject) == f"127.0.0.1:{port}: Connection refused"


async def test_after_a_refusal_the_next_address_is_tried() -> None:
    async with peer() as server:
        client = await connector(server.port, ["127.0.0.2", "127.0.0.1"]).connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_after_its_share_of_silence_the_next_address_is_tried() -> None:
    async with peer() as server:
        with nobody_answers("127.0.0.2", server.port):
            subject = connector(server.port, ["127.0.0.2", "127.0.0.1"], patience=3.0)
            began = time.monotonic()
            client = await subject.connect(Client)

            assert 1.5 <= time.monotonic() - began < 1.5 + SLACK
            assert await client.ask(b"hello") == b"hello"


async def test_the_address_that_worked_is_the_first_to_be_tried_again() -> None:
    async with peer() as server:
        subject = connector(server.port, ["127.0.0.2", "127.0.0.1"])
        await subject.connect(Client)
        with nobody_answers("127.0.0.2", server.port):
            began = time.monotonic()
            await subject.connect(Client)

    assert time.monotonic() - began < SLACK


async def test_when_the_address_that_worked_ceases_to_the_others_are_tried() -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    async with peer() as server:
        subject = connector(server.port, hosts)
        await subject.connect(Client)
    async with peer(host="127.0.0.2", port=server.port):
        client = await subject.connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_all_the_addresses_together_have_the_time_of_one() -> None:
    with nobody_answers("127.0.0.1") as port, nobody_answers("127.0.0.2", port):
        began = time.monotonic()
        problem = await problem_of(connector(port, ["127.0.0.1", "127.0.0.2"], patience=0.8))

    assert 0.8 <= time.monotonic() - began < 0.8 + SLACK
    assert re.fullmatch(
        rf"{NAME}:{port}: 127\.0\.0\.1: no connection within 0\.[1-4] s;"
        r" 127\.0\.0\.2: no connection within 0\.[0-6] s",
        problem,
    )


async def test_of_many_addresses_each_has_time_enough() -> None:
    async with peer() as server:
        with nobody_answers("127.0.0.2", server.port):
            hosts = ["127.0.0.2", "127.0.0.1", *["127.0.0.2"] * 18]
            began = time.monotonic()
            await connector(server.port, hosts, patience=2.0).connect(Client)

    assert 0.4 <= time.monotonic() - began < 0.4 + SLACK


async def test_where_one_family_leads_nowhere_the_other_is_tried_second() -> None:
    async with peer() as server:
        with nobody_answers("127.0.0.2", server.port):
            silent = [Address(socket.AF_INET, ("127.0.0.2", server.port))] * 4
            good = Address(socket.AF_INET6, ("::ffff:127.0.0.1", server.port, 0, 0))
            resolver = Resolver(NAME, server.port, lambda _host, _port: [*silent, good])
            endpoint = Endpoint(NAME, server.port, Security.NONE)
            began = time.monotonic()
            await Connector(endpoint, None, 2.0, resolver).connect(Client)

    assert 0.4 <= time.monotonic() - began < 0.4 + SLACK


async def test_who_refuses_leaves_its_time_to_the_others() -> None:
    with nobody_answers("127.0.0.1") as port:
        problem = await problem_of(connector(port, ["127.0.0.2", "127.0.0.1"], patience=0.8))

    assert re.fullmatch(
        rf"{NAME}:{port}: 127\.0\.0\.2: Connection refused;"
        r" 127\.0\.0\.1: no connection within 0\.[0-8] s",
        problem,
    )


async def test_a_name_without_addresses_is_unreachable() -> None:
    subject = Connector(Endpoint("a..b", 143, Security.NONE), None, DEADLINE)

    assert await problem_of(subject) == "a..b: it is no name"


async def test_a_name_server_that_does_not_answer_is_waited_for_no_longer_than_a_server() -> None:
    names = NameServer([])
    names.may_answer.clear()
    resolver = Resolver(NAME, 143, names)
    subject = Connector(Endpoint(NAME, 143, Security.NONE), None, 0.2, resolver)
    began = time.monotonic()
    problem = await problem_of(subject)
    names.may_answer.set()

    assert 0.2 <= time.monotonic() - began < 0.2 + SLACK
    assert problem == f"{NAME}:143: no name server has told its address within 0.2 s"


@pytest.mark.parametrize("hosts", [["192.0.2.1"], ["127.0.0.1", "192.0.2.1"]], ids=["all", "one"])
async def test_localhost_elsewhere_gets_no_password_in_clear(hosts: list[str]) -> None:
    async with peer() as server:
        problem = await problem_of(connector(server.port, hosts, name="localhost"))

        assert problem == (
            f"localhost:{server.port}: its address 192.0.2.1 is not of this machine,"
            " and passwords would go there unencrypted"
        )
        assert not server.connections


async def test_localhost_may_be_any_address_of_this_machine() -> None:
    async with peer(host="127.1.2.3") as server:
        client = await connector(server.port, ["127.1.2.3"], name="localhost").connect(Client)

        assert await client.ask(b"hello") == b"hello"


async def test_localhost_may_be_elsewhere_where_tls_follows() -> None:
    port = free_port()
    # It looks like an address elsewhere, but to connect to it leads here: ip(7).
    anywhere = Address(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 (nobody binds)
    resolver = Resolver("localhost", port, NameServer([anywhere]))
    subject = Connector(Endpoint("localhost", port, Security.STARTTLS), None, DEADLINE, resolver)

    assert await problem_of(subject) == f"localhost:{port}: 0.0.0.0: Connection refused"


async def test_tls_that_is_not_prepared_is_no_connection_in_clear() -> None:
    async with peer() as server:
        endpoint = Endpoint("127.0.0.1", server.port, Security.TLS)

        problem = await problem_of(Connector(endpoint, None, DEADLINE))

        assert problem == f"127.0.0.1:{server.port}: TLS has not been prepared"
        assert not server.connections


class TestAUnixSocket:
    async def test_it_leads_to_its_server(self, directory: Path) -> None:
        async with peer(path=directory / "s"):
            client = await at(directory / "s").connect(Client)

            assert await client.ask(b"hello") == b"hello"

    async def test_one_that_is_missing_is_named(self, directory: Path) -> None:
        path = directory / "s"

        assert await problem_of(at(path)) == f"{path}: No such file or directory"

    async def test_one_that_nobody_serves_is_named(self, directory: Path) -> None:
        path = directory / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))

        assert await problem_of(at(path)) == f"{path}: Connection refused"

    async def test_one_whose_path_is_too_long_is_named(self, directory: Path) -> None:
        path = directory / ("s" * 108)

        assert await problem_of(at(path)) == f"{path}: AF_UNIX path too long"

    async def test_one_that_has_no_room_is_waited_for(self, directory: Path) -> None:
        path = directory / "s"
        with no_room(path) as listener:
            connecting = asyncio.create_task(at(path).connect(Client))
            done, _ = await asyncio.wait([connecting], timeout=0.1)

            listener.accept()[0].close()
            client = await connecting
            with listener.accept()[0] as server:
                server.send(b"hello")
                await eventually(lambda: client.heard == b"hello", "what the server says")

        assert not done

    async def test_one_that_gets_no_room_is_waited_for_no_longer_than_others(
        self, directory: Path
    ) -> None:
        path = directory / "s"
        with no_room(path):
            began = time.monotonic()
            problem = await problem_of(at(path, patience=0.2))

        assert 0.2 <= time.monotonic() - began < 0.2 + SLACK
        assert re.fullmatch(rf"{path}: no connection within 0\.[0-2] s", problem)


class TestWhoGivesUp:
    """Leaves nothing open, whatever it waits for."""

    async def give_up(self, subject: Connector) -> None:
        before = count_descriptors()
        connecting = asyncio.create_task(subject.connect(Client))
        await asyncio.wait([connecting], timeout=0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert count_descriptors() == before

    async def test_waiting_for_a_name(self) -> None:
        names = NameServer([])
        names.may_answer.clear()
        endpoint = Endpoint(NAME, 143, Security.NONE)

        await self.give_up(Connector(endpoint, None, DEADLINE, Resolver(NAME, 143, names)))

        names.may_answer.set()

    async def test_waiting_for_a_connection(self) -> None:
        with nobody_answers("127.0.0.1") as port:
            await self.give_up(connector(port, ["127.0.0.1"]))

    async def test_waiting_for_room(self, directory: Path) -> None:
        with no_room(directory / "s"):
            await self.give_up(at(directory / "s"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "Connection refused"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
        (ConnectionResetError(), "it hung up"),
    ],
    ids=["errno", "text", "nothing"],
)
def test_an_error_is_told_in_the_words_of_the_system(error: OSError, text: str) -> None:
    assert describe(error) == text
