"""The front's end of the channel: wishes for workers, and the addresses that one finds."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from pysaslauthd import channel, link
from pysaslauthd.link import Addresses, Link, Workers
from pysaslauthd.server.peers import asking_process
from pysaslauthd.workers.child import HELLO, STAYS
from pysaslauthd.workers.questions import TAG_BYTES
from tests.helpers.processes import DEADLINE
from tests.helpers.workers import count_descriptors, eventually

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
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


def fill(end: socket.socket) -> int:
    """Send until nothing more fits; return how many words that were."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while end.send(channel.ALIVE):
            count += 1
    return count


async def turns() -> None:
    """Let the loop see to everything that is there to be seen to."""
    for _ in range(3):
        await asyncio.sleep(0)


class TestTheLink:
    async def test_a_worker_is_asked_for_by_kind_and_generation(self, ends: Ends) -> None:
        Workers(Link(ends[0]), "verifier", 7).start(Heard())

        assert channel.receive(ends[1]) == b"start verifier 7 1"

    async def test_no_two_wishes_have_the_same_number(self, ends: Ends) -> None:
        subject = Link(ends[0])

        for _ in range(3):
            subject.start_worker("verifier", 0, Heard())

        said = [channel.receive(ends[1]) for _ in range(3)]
        assert said == [b"start verifier 0 1", b"start verifier 0 2", b"start verifier 0 3"]

    async def test_workers_go_to_who_wished_for_them_in_any_order(
        self, ends: Ends, connection: socket.socket
    ) -> None:
        subject, first, second = Link(ends[0]), Heard(), Heard()
        subject.start_worker("verifier", 0, first)
        subject.start_worker("addresses", 0, second)

        subject.on_answer(channel.Word(channel.refuse(2)))
        subject.on_answer(channel.Word(channel.grant(1, 3), os.dup(connection.fileno())))

        ((number, end),) = first.answers
        assert end is not None
        end.close()
        assert (number, second.answers) == (3, [(0, None)])

    async def test_where_the_supervisor_does_not_listen_there_is_no_worker(
        self, ends: Ends
    ) -> None:
        ends[1].close()
        heard = Heard()

        Link(ends[0]).start_worker("verifier", 0, heard)

        assert heard.answers == []  # not before it has returned
        await asyncio.sleep(0)
        assert heard.answers == [(0, None)]

    async def test_a_wish_that_nobody_answers_comes_to_nothing(
        self, ends: Ends, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "WISH_PATIENCE", 0.0)
        heard = Heard()

        Link(ends[0]).start_worker("verifier", 0, heard)

        await eventually(lambda: heard.answers == [(0, None)], "an answer")

    async def test_a_worker_that_comes_too_late_is_let_go(
        self, ends: Ends, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "WISH_PATIENCE", 0.0)
        subject, heard = Link(ends[0]), Heard()
        subject.start_worker("verifier", 0, heard)
        await eventually(lambda: bool(heard.answers), "an answer")
        before = count_descriptors()

        subject.on_answer(channel.Word(channel.grant(1, 3), os.dup(connection.fileno())))

        assert heard.answers == [(0, None)]
        assert count_descriptors() == before

    async def test_an_answer_that_was_given_in_time_is_the_only_one(
        self, ends: Ends, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "WISH_PATIENCE", 0.0)
        subject, heard = Link(ends[0]), Heard()
        subject.start_worker("verifier", 0, heard)

        subject.on_answer(channel.Word(channel.refuse(1)))
        subject.start_worker("verifier", 0, later := Heard())
        await eventually(lambda: bool(later.answers), "a later one's end")

        assert heard.answers == [(0, None)]

    @pytest.mark.usefixtures("seen_logs")
    def test_a_word_that_nobody_understands_is_logged(
        self, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        Link(ends[0]).on_answer(channel.Word(b"dance"))

        assert caplog.messages == [
            "the supervisor sent a word that is not known here: restart the daemon"
        ]

    def test_a_word_that_nobody_hears_is_no_fault(self, ends: Ends) -> None:
        ends[1].close()

        Link(ends[0]).say(channel.ALIVE)


class TestKilling:
    async def test_a_worker_is_killed_by_its_number(self, ends: Ends) -> None:
        Workers(Link(ends[0]), "verifier", 7).kill(12)

        assert channel.receive(ends[1]) == b"kill 12"

    async def test_it_is_said_again_until_it_is_heard(
        self, ends: Ends, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "SAY_AGAIN", 0.0)
        earlier = fill(ends[0])

        Link(ends[0]).kill(12)
        await turns()
        heard = [channel.receive(ends[1]) for _ in range(earlier + 1)]
        await turns()
        heard.append(channel.receive(ends[1]))

        assert heard == [*[channel.ALIVE] * earlier, None, b"kill 12"]

    def test_where_there_is_no_supervisor_it_is_not_said_again(self, ends: Ends) -> None:
        ends[1].close()

        Link(ends[0]).kill(12)  # without a running loop, which would be needed for that


class Finder:
    """A source of one worker, on this loop: it says *address* to every question.

    None: there is no worker; `silent`: the one there is answers nothing.
    """

    def __init__(self, address: bytes | None) -> None:
        self.address = address
        self.silent = False
        self.asked: list[int] = []
        self.ends: list[socket.socket] = []

    def start(self, on_started: link.OnStarted, /) -> None:
        if self.address is None:
            asyncio.get_running_loop().call_soon(on_started, 0, None)
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        theirs.settimeout(0)
        theirs.send(HELLO)
        self.ends.append(theirs)
        asyncio.get_running_loop().add_reader(theirs, self._answer, theirs)
        asyncio.get_running_loop().call_soon(on_started, len(self.ends), ours)

    def _answer(self, end: socket.socket) -> None:
        packet, descriptors, _, _ = socket.recv_fds(end, 100, 1)
        if not packet:
            self.close()
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            self.asked.append(asking_process(connection))
        if not self.silent:
            end.send(packet[:TAG_BYTES] + STAYS + (self.address or b""))

    def kill(self, _number: int, /) -> None:
        """It lives in this process."""

    def close(self) -> None:
        for end in self.ends:
            asyncio.get_running_loop().remove_reader(end)
            end.close()
        self.ends.clear()


class TestAddresses:
    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have no slow machine taken for a worker that is late, nor its pauses for the while."""
        monkeypatch.setattr(link, "ADDRESS_PATIENCE", DEADLINE)
        monkeypatch.setattr(link, "OVERLOADED", 3600.0)
        monkeypatch.setattr(link, "FRUITLESS", 3600.0)

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

    @pytest.mark.parametrize("finder", [b"192.0.2.1;25"], indirect=True)
    async def test_after_one_that_was_not_found_in_time_none_is_looked_for_for_a_while(
        self, finder: Finder, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "ADDRESS_PATIENCE", 0.05)
        finder.silent = True
        subject = Addresses(finder)

        found = await subject.find(connection)

        subject.close()
        hope = subject.worth_asking(connection)
        later = time.monotonic() + link.OVERLOADED
        monkeypatch.setattr("time.monotonic", lambda: later)
        assert (found, hope, subject.worth_asking(connection)) == ("", False, True)

    @pytest.mark.parametrize("finder", [b"x"], indirect=True)
    async def test_when_the_daemon_leaves_there_is_none(
        self, finder: Finder, connection: socket.socket
    ) -> None:
        subject = Addresses(finder)
        subject.close()

        assert await subject.find(connection) == ""
