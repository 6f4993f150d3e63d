"""The mux door on a real socket in this process; the clients are threads or raw sockets."""

import asyncio
import contextlib
import errno
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from socket import SocketType

import pytest

from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Origin, Unavailable
from pysaslauthd.server.mux import MuxDoor, Rules
from pysaslauthd.server.waiting import Bounds
from pysaslauthd.wire.mux import OUTAGE_REPLY, Limits, encode_request
from tests.helpers.static import YES

REQUEST = encode_request(b"joe", b"pw", b"imap", b"r")
OK = b"\0\2OK"
DEADLINE = 5.0

Check = Callable[[AuthRequest], AuthResult | Awaitable[AuthResult]]


class Client:
    """A client on the loop: says what it is told, and waits no longer than DEADLINE."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(0)
        self.socket.connect(path)

    def say(self, data: bytes) -> None:
        self.socket.send(data)

    async def hears(self) -> bytes:
        """Return what comes next, b"" at the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            return await loop.sock_recv(self.socket, 2048)

    async def hears_all(self) -> bytes:
        """Return all that comes until the server closes its side."""
        heard = b""
        while data := await self.hears():
            heard += data
        return heard


class House:
    """A door that listens, what it has been asked, and clients of it."""

    def __init__(self, path: Path, check: Check, bounds: Bounds) -> None:
        self.path = str(path)
        self.asked: list[AuthRequest] = []
        self.clients: list[Client] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.settimeout(0)
        self.listener.bind(self.path)
        self.listener.listen(1024)
        self._check = check
        self.door = MuxDoor(asyncio.get_running_loop(), self.rules(bounds))
        self.door.listen(self.listener)

    def check(
        self, request: AuthRequest, _connection: SocketType
    ) -> AuthResult | Awaitable[AuthResult]:
        self.asked.append(request)
        return self._check(request)

    def rules(self, bounds: Bounds, check: Check | None = None) -> Rules:
        if check is not None:
            self._check = check
        return Rules(self.check, Limits(), bounds, OUTAGE_REPLY)

    def client(self, path: str | None = None) -> Client:
        self.clients.append(Client(path or self.path))
        return self.clients[-1]

    async def answers(self, data: bytes = REQUEST) -> bytes:
        client = self.client()
        client.say(data)
        return await client.hears_all()


OpenHouse = Callable[..., House]


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    houses: list[House] = []

    def build(
        check: Check = lambda _: YES, *, idle_after: float = DEADLINE * 2, most: int = 1000
    ) -> House:
        houses.append(House(tmp_path / f"s{len(houses)}", check, Bounds(idle_after, most)))
        return houses[-1]

    yield build
    for house in houses:
        await house.door.stop(0.0)
        house.listener.close()
        for client in house.clients:
            client.socket.close()


async def turns() -> None:
    """Let the loop see to everything that is there to be seen to."""
    for _ in range(5):
        await asyncio.sleep(0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (only counted)


async def test_a_request_is_answered_and_the_connection_closed(open_house: OpenHouse) -> None:
    assert await open_house().answers() == OK


async def test_a_request_carries_its_fields_to_the_engine(open_house: OpenHouse) -> None:
    house = open_house()

    await house.answers(encode_request(b"joe", b"pw", b"smtp", b"r", b"192.0.2.7;9"))

    (request,) = house.asked
    assert (request.user, request.password.reveal(), request.realm) == ("joe", b"pw", "r")
    assert request.origin == Origin("smtp", "192.0.2.7;9")


async def test_an_answer_that_takes_time_is_awaited(open_house: OpenHouse) -> None:
    async def later() -> AuthResult:
        await asyncio.sleep(0)
        return YES

    assert await open_house(lambda _: later()).answers() == OK


async def test_a_slow_answer_delays_nobody_else(open_house: OpenHouse) -> None:
    released: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    house = open_house(lambda request: released if request.user == "slow" else YES)
    slow = house.client()
    slow.say(encode_request(b"slow", b"pw", b"", b""))

    quick = await house.answers()
    released.set_result(YES)

    assert quick == OK
    assert await slow.hears_all() == OK


async def test_an_outage_is_a_count_of_zero(open_house: OpenHouse) -> None:
    assert await open_house(lambda _: Unavailable("down", "ldap")).answers() == b"\0\0"


async def test_a_request_in_four_segments_is_answered(open_house: OpenHouse) -> None:
    client = open_house().client()

    for segment in (b"\0\3joe", b"\0\2pw", b"\0\4imap", b"\0\0"):
        client.say(segment)
        await turns()

    assert await client.hears_all() == OK


async def test_a_client_that_hesitates_twice_is_answered(open_house: OpenHouse) -> None:
    client = open_house().client()

    await turns()
    client.say(REQUEST[:5])
    await turns()
    client.say(REQUEST[5:])

    assert await client.hears_all() == OK


async def test_a_request_in_pieces_may_take_time_to_answer(open_house: OpenHouse) -> None:
    async def later() -> AuthResult:
        await asyncio.sleep(0)
        return YES

    client = open_house(lambda _: later()).client()
    client.say(REQUEST[:5])
    await turns()
    client.say(REQUEST[5:])

    assert await client.hears_all() == OK


async def test_a_refusal_of_a_request_in_pieces_has_its_reply(open_house: OpenHouse) -> None:
    client = open_house().client()
    client.say(b"\0\3joe\0")
    await turns()
    client.say(b"\0\0\4imap\0\0")

    assert await client.hears_all() == b"\0\x19NO NULL password received"


async def test_a_fault_on_a_request_in_pieces_is_an_outage(open_house: OpenHouse) -> None:
    def fail(_: AuthRequest) -> AuthResult:
        raise RuntimeError("a bug")

    client = open_house(fail).client()
    client.say(REQUEST[:5])
    await turns()
    client.say(REQUEST[5:])

    assert await client.hears_all() == OUTAGE_REPLY


async def test_a_request_that_dribbles_is_answered_once(open_house: OpenHouse) -> None:
    house = open_house()
    client = house.client()

    for byte in REQUEST:
        client.say(bytes([byte]))
        await turns()

    assert await client.hears_all() == OK
    assert len(house.asked) == 1


async def test_a_fifth_field_after_the_answer_is_harmless(open_house: OpenHouse) -> None:
    client = open_house().client()
    client.say(REQUEST[:5])
    await turns()
    client.say(REQUEST[5:])

    assert await client.hears() == OK
    client.say(b"\0\x09192.0.2.7")
    assert await client.hears() == b""


async def test_a_begun_fifth_field_is_awaited_for_a_moment(open_house: OpenHouse) -> None:
    house = open_house()
    client = house.client()
    client.say(REQUEST + b"\0\x09192")

    await turns()
    client.say(b".0.2.7")

    assert await client.hears_all() == OK
    assert house.asked[0].origin.remote == "192.0.2.7"


@pytest.mark.parametrize("begun", [b"\0", b"\0\x09192"], ids=["half-a-count", "half-an-address"])
async def test_a_fifth_field_that_never_ends_costs_only_the_address(
    open_house: OpenHouse, begun: bytes
) -> None:
    house = open_house()
    client = house.client()
    client.say(REQUEST[:5])
    await turns()
    client.say(REQUEST[5:] + begun)

    assert await client.hears_all() == OK
    assert house.asked[0].origin.remote == ""


async def test_a_client_that_closes_its_side_after_the_request_is_served(
    open_house: OpenHouse,
) -> None:
    client = open_house().client()
    client.say(REQUEST)
    client.socket.shutdown(socket.SHUT_WR)

    assert await client.hears_all() == OK


async def test_a_client_that_ends_in_the_middle_gets_no_reply(open_house: OpenHouse) -> None:
    client = open_house().client()
    client.say(REQUEST[:7])
    await turns()
    client.socket.shutdown(socket.SHUT_WR)

    assert await client.hears_all() == b""


async def test_a_client_that_says_nothing_and_ends_gets_no_reply(open_house: OpenHouse) -> None:
    client = open_house().client()
    client.socket.shutdown(socket.SHUT_WR)

    assert await client.hears_all() == b""


async def test_a_client_that_has_gone_disturbs_nobody(open_house: OpenHouse) -> None:
    house = open_house()
    for _ in range(10):
        gone = house.client()
        gone.say(REQUEST)
        gone.socket.close()

    assert await house.answers() == OK


async def test_a_long_password_in_many_pieces_is_taken(open_house: OpenHouse) -> None:
    house = open_house()

    reply = await house.answers(encode_request(b"joe", b"x" * 8192, b"imap", b"r"))

    assert reply == OK
    assert house.asked[0].password.reveal() == b"x" * 8192


async def test_a_password_over_its_limit_gets_its_reply_whole(open_house: OpenHouse) -> None:
    client = open_house().client()
    client.say(b"\0\3joe\xff\xff" + b"x" * 60000)

    assert await client.hears() == b"\0\3NO "


async def test_an_empty_password_is_answered_as_by_the_c_daemon(open_house: OpenHouse) -> None:
    house = open_house()

    reply = await house.answers(encode_request(b"joe", b"", b"imap", b""))

    assert reply == b"\0\x19NO NULL password received"
    assert house.asked == []


async def test_a_fault_in_the_engine_is_an_outage_for_one_client(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    def check(request: AuthRequest) -> AuthResult:
        if request.user == "bad":
            raise RuntimeError("a bug")
        return YES

    house = open_house(check)

    assert await house.answers(encode_request(b"bad", b"p", b"", b"")) == OUTAGE_REPLY
    assert await house.answers() == OK


async def test_a_silent_client_is_closed(open_house: OpenHouse) -> None:
    client = open_house(idle_after=0.05).client()

    assert await client.hears_all() == b""


async def test_a_half_sent_request_is_closed(open_house: OpenHouse) -> None:
    client = open_house(idle_after=0.05).client()
    client.say(REQUEST[:4])

    assert await client.hears_all() == b""


async def test_a_dribbling_client_does_not_live_for_ever(open_house: OpenHouse) -> None:
    client = open_house(idle_after=0.05).client()

    async def dribble() -> None:
        for byte in encode_request(b"j" * 1000, b"p", b"", b""):
            client.say(bytes([byte]))
            await asyncio.sleep(0.01)  # a dribble is a matter of time

    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        await dribble()


async def test_a_client_that_never_reads_holds_nothing(open_house: OpenHouse) -> None:
    house = open_house()
    before = descriptors()

    for _ in range(50):
        house.client().say(REQUEST)
    await house.answers()

    assert descriptors() - before == len(house.clients)


async def test_the_longest_silent_client_makes_place(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    house = open_house(most=2)
    clients = []
    for _ in range(3):
        clients.append(house.client())
        await turns()

    assert await clients[0].hears_all() == b""
    clients[1].say(REQUEST)
    assert await clients[1].hears_all() == OK


async def test_a_flood_of_silent_clients_is_one_log_line(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture, seen_logs: None
) -> None:
    house = open_house(most=2)

    for _ in range(20):
        house.client()
    await turns()
    assert await house.answers() == OK

    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("too many open connections (at most 2)")


async def test_silent_clients_do_not_delay_a_good_one(open_house: OpenHouse) -> None:
    house = open_house()
    for _ in range(400):
        house.client()

    replies = [await house.answers() for _ in range(20)]

    assert set(replies) == {OK}


class Failing(socket.socket):
    """A listener whose next accepts fail with *number*."""

    number = errno.EMFILE
    failures = 0

    def _accept(self) -> tuple[int, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(self.number, os.strerror(self.number))
        accepted: tuple[int, object] = super()._accept()  # type: ignore[misc]
        return accepted


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ECONNABORTED, errno.EINVAL], ids=errno.errorcode.get
)
async def test_a_failing_accept_costs_nobody_an_answer(
    open_house: OpenHouse, tmp_path: Path, number: int
) -> None:
    house = open_house()
    with Failing(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.number, listener.failures = number, 2
        listener.settimeout(0)
        listener.bind(str(tmp_path / "f"))
        listener.listen()
        house.door.listen(listener)
        client = house.client(str(tmp_path / "f"))
        client.say(REQUEST)

        assert await client.hears_all() == OK
        await house.door.stop(0.0)


async def test_out_of_descriptors_the_longest_silent_client_is_closed(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    house = open_house()
    silent = house.client()
    await turns()
    with Failing(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.failures = 1
        listener.settimeout(0)
        listener.bind(str(tmp_path / "f"))
        listener.listen()
        house.door.listen(listener)
        client = house.client(str(tmp_path / "f"))
        client.say(REQUEST)

        assert await client.hears_all() == OK
        assert await silent.hears_all() == b""
        await house.door.stop(0.0)


async def test_two_sockets_have_one_door(open_house: OpenHouse, tmp_path: Path) -> None:
    house = open_house()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as second:
        second.settimeout(0)
        second.bind(str(tmp_path / "second"))
        second.listen()
        house.door.listen(second)
        client = house.client(str(tmp_path / "second"))
        client.say(REQUEST)

        assert await client.hears_all() == OK
        assert await house.answers() == OK
        await house.door.stop(0.0)


async def test_stopping_answers_who_has_connected_and_asked(open_house: OpenHouse) -> None:
    house = open_house()
    clients = [house.client() for _ in range(100)]
    for client in clients:
        client.say(REQUEST)

    await house.door.stop(DEADLINE)

    assert {await client.hears_all() for client in clients} == {OK}


async def test_stopping_waits_for_answers_under_way(open_house: OpenHouse) -> None:
    released: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    house = open_house(lambda _: released)
    client = house.client()
    client.say(REQUEST)
    await turns()

    stopping = asyncio.create_task(house.door.stop(0.0))
    await asyncio.sleep(0)
    released.set_result(Accepted("joe", "static"))
    await stopping

    assert await client.hears_all() == OK


async def test_stopping_gives_those_who_have_begun_a_moment(open_house: OpenHouse) -> None:
    house = open_house()
    client = house.client()
    client.say(REQUEST[:5])
    await turns()

    stopping = asyncio.create_task(house.door.stop(1.0))
    await turns()
    client.say(REQUEST[5:])
    await stopping

    assert await client.hears_all() == OK


async def test_new_rules_count_from_the_next_request(open_house: OpenHouse) -> None:
    released: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    house = open_house(lambda _: released)
    before = house.client()
    before.say(REQUEST)
    await turns()

    house.door.follow(house.rules(Bounds(5.0, 10), lambda _: Unavailable("down", "ldap")))
    after = await house.answers()
    released.set_result(YES)

    assert after == OUTAGE_REPLY
    assert await before.hears_all() == OK


async def test_answers_under_way_can_be_awaited(open_house: OpenHouse) -> None:
    released: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    house = open_house(lambda _: released)
    house.client().say(REQUEST)
    await turns()

    answered = asyncio.create_task(house.door.answered())
    await turns()
    waited = not answered.done()
    released.set_result(YES)
    await answered

    assert waited


class TestTooManyPending:
    """Two answers are under way, and there may be no more."""

    @pytest.fixture
    async def released(self) -> AsyncIterator[asyncio.Future[AuthResult]]:
        future: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
        yield future
        future.cancel()

    @pytest.fixture
    async def house(self, open_house: OpenHouse, released: asyncio.Future[AuthResult]) -> House:
        house = open_house(lambda _: released, most=2)
        for _ in range(2):
            house.client().say(REQUEST)
        await turns()
        return house

    async def test_one_more_request_is_an_outage_at_once(self, house: House) -> None:
        assert await house.answers() == OUTAGE_REPLY

    async def test_nobody_is_asked_about_it(self, house: House) -> None:
        await house.answers()

        assert len(house.asked) == 2

    async def test_those_under_way_are_answered(
        self, house: House, released: asyncio.Future[AuthResult]
    ) -> None:
        await house.answers()

        released.set_result(YES)

        assert [await client.hears_all() for client in house.clients[:2]] == [OK, OK]

    async def test_when_they_are_answered_others_are_served_again(
        self, house: House, released: asyncio.Future[AuthResult]
    ) -> None:
        await house.answers()
        released.set_result(YES)
        await house.door.answered()

        assert await house.answers() == OK

    async def test_a_flood_of_such_requests_is_one_log_line(
        self, house: House, caplog: pytest.LogCaptureFixture, seen_logs: None
    ) -> None:
        for _ in range(20):
            await house.answers()

        assert caplog.messages == ["too many requests wait for an answer: no more are asked about"]


async def test_stopping_ends_under_a_flood(open_house: OpenHouse) -> None:
    house = open_house()

    def flood(_: AuthRequest) -> AuthResult:
        house.client().say(REQUEST)
        return YES

    house.door.follow(house.rules(Bounds(5.0, 10_000), flood))
    for _ in range(4):
        house.client().say(REQUEST)

    async with asyncio.timeout(DEADLINE):
        await house.door.stop(0.02)


async def test_a_connection_that_cannot_be_watched_is_closed(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """An epoll set that takes no more."""

        closed = False

        def __init__(self, real: select.epoll) -> None:
            self._real = real

        def register(self, descriptor: int, events: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    house = open_house()
    room = house.door._room  # noqa: SLF001 (the kernel's refusal cannot be had otherwise)
    monkeypatch.setattr(room, "_epoll", Full(room._epoll))  # noqa: SLF001

    silent = house.client()

    assert await silent.hears_all() == b""
    assert await house.answers() == OK


async def test_a_cancelled_answer_closes_its_connection(open_house: OpenHouse) -> None:
    never: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    house = open_house(lambda _: never)
    client = house.client()
    client.say(REQUEST)
    await turns()

    never.cancel()

    with contextlib.suppress(ConnectionResetError):
        assert await client.hears_all() == b""


async def test_a_refused_request_in_pieces_costs_nobody_else_an_answer(
    open_house: OpenHouse,
) -> None:
    house = open_house()
    refused, good = house.client(), house.client()
    for client in (refused, good):
        client.say(b"\0")
    await turns()
    refused.say(b"\0\0\2pw\0\0\0\0\0")  # an empty login, and a fifth field that has begun
    good.say(REQUEST[1:])

    assert (await refused.hears_all()).startswith(b"\0\x16NO NULL login")
    assert await good.hears_all() == OK
