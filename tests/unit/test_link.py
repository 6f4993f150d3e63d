import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from pysaslauthd import channel, link
from pysaslauthd.link import Addresses, Link, Workers, asking_process


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the front's end and the supervisor's."""
    ours, theirs = channel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """Return a connection that this process opened."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


class Heard:
    """What has been said to somebody who asked for a worker."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, socket.socket | None]] = []

    def __call__(self, number: int, end: socket.socket | None) -> None:
        self.answers.append((number, end))


class TestTheLink:
    def test_a_worker_is_asked_for_by_kind_and_generation(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        Workers(Link(ends[0]), "verifier", 7).start(Heard())

        assert channel.receive(ends[1]) == b"start verifier 7"

    def test_a_worker_is_killed_by_its_number(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        Workers(Link(ends[0]), "verifier", 7).kill(12)

        assert channel.receive(ends[1]) == b"kill 12"

    def test_workers_go_to_who_asked_in_turn(
        self, ends: tuple[socket.socket, socket.socket], connection: socket.socket
    ) -> None:
        subject, first, second = Link(ends[0]), Heard(), Heard()
        subject.start_worker("verifier", 0, first)
        subject.start_worker("addresses", 0, second)

        subject.on_worker(channel.Word(b"worker 3", os.dup(connection.fileno())))
        subject.on_worker(channel.Word(channel.NO_WORKER))

        ((number, end),) = first.answers
        assert end is not None
        end.close()
        assert (number, second.answers) == (3, [(0, None)])

    async def test_where_the_supervisor_does_not_listen_there_is_no_worker(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        ends[1].close()
        heard = Heard()

        Link(ends[0]).start_worker("verifier", 0, heard)

        assert heard.answers == []  # not before it has returned
        await asyncio.sleep(0)
        assert heard.answers == [(0, None)]

    def test_a_word_that_nobody_hears_is_no_fault(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        ends[1].close()

        Link(ends[0]).say(channel.ALIVE)


class Finder:
    """A source of one worker, which is a task of this loop: it says *address* to every question."""

    def __init__(self, address: bytes | None) -> None:
        self.address = address
        self.asked: list[int] = []
        self.ends: list[socket.socket] = []

    def start(self, on_started: link.OnStarted, /) -> None:
        if self.address is None:
            asyncio.get_running_loop().call_soon(on_started, 0, None)
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        theirs.settimeout(0)
        self.ends.append(theirs)
        asyncio.get_running_loop().add_reader(theirs, self._answer, theirs)
        asyncio.get_running_loop().call_soon(on_started, len(self.ends), ours)

    def _answer(self, end: socket.socket) -> None:
        _, descriptors, _, _ = socket.recv_fds(end, 100, 1)
        if not descriptors:
            self.close()
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            self.asked.append(asking_process(connection))
        end.send(b"\0" + (self.address or b""))

    def kill(self, _number: int, /) -> None:
        """Nothing hangs here."""

    def close(self) -> None:
        for end in self.ends:
            asyncio.get_running_loop().remove_reader(end)
            end.close()
        self.ends.clear()


class TestAddresses:
    @pytest.fixture
    async def finder(self, request: pytest.FixtureRequest) -> AsyncIterator[Finder]:
        subject = Finder(request.param)
        yield subject
        subject.close()

    @pytest.mark.parametrize("finder", [b"192.0.2.1;25"], indirect=True)
    async def test_the_worker_is_given_the_connection_and_its_answer_is_the_address(
        self, finder: Finder, connection: socket.socket
    ) -> None:
        subject = Addresses(finder)

        found = await subject.find(connection)

        subject.close()
        assert (found, finder.asked) == ("192.0.2.1;25", [os.getpid()])

    @pytest.mark.parametrize("finder", [b"192.0.2.1;25"], indirect=True)
    async def test_a_process_with_an_address_is_asked_about_again(
        self, finder: Finder, connection: socket.socket
    ) -> None:
        subject = Addresses(finder)

        await subject.find(connection)

        subject.close()
        assert subject.worth_asking(connection)

    @pytest.mark.parametrize("finder", [b""], indirect=True)
    async def test_a_process_without_one_is_left_alone_for_a_while(
        self, finder: Finder, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = Addresses(finder)

        found = await subject.find(connection)

        subject.close()
        hope = subject.worth_asking(connection)
        monkeypatch.setattr("time.monotonic", lambda: float("inf"))
        assert (found, hope, subject.worth_asking(connection)) == ("", False, True)

    @pytest.mark.parametrize("finder", [b""], indirect=True)
    async def test_those_left_alone_are_bounded(
        self, finder: Finder, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "MOST_FRUITLESS", 0)
        subject = Addresses(finder)

        await subject.find(connection)

        subject.close()
        assert subject.worth_asking(connection)

    @pytest.mark.parametrize("finder", [None], indirect=True)
    async def test_without_a_worker_there_is_no_address_after_a_moment(
        self, finder: Finder, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "ADDRESS_PATIENCE", 0.05)
        subject = Addresses(finder)

        found = await subject.find(connection)

        subject.close()
        assert found == ""

    @pytest.mark.parametrize("finder", [b"x"], indirect=True)
    async def test_when_the_daemon_leaves_there_is_none(
        self, finder: Finder, connection: socket.socket
    ) -> None:
        subject = Addresses(finder)
        subject.close()

        assert await subject.find(connection) == ""

    def test_a_connection_that_is_gone_was_opened_by_nobody_known(self) -> None:
        ours, theirs = socket.socketpair()
        ours.close()
        theirs.close()

        assert asking_process(ours) == 0
