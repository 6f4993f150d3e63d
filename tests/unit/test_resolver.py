"""Names to addresses; who looks them up is told by the test, or is the system for localhost."""

import asyncio
import socket
import threading

import pytest

from pysaslauthd.remote import resolver
from pysaslauthd.remote.resolver import Address, LookUp, Resolver, Unresolved
from tests.helpers.peers import NameServer
from tests.helpers.processes import DEADLINE
from tests.helpers.workers import eventually

NAME = "mail.example.org"
FIRST = Address(socket.AF_INET, ("192.0.2.1", 143))
SECOND = Address(socket.AF_INET, ("192.0.2.2", 143))
NO_NAME_SERVER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    subject = Clock()
    monkeypatch.setattr(resolver, "time", subject)
    return subject


async def addresses_of(host: str, look_up: LookUp = resolver.look_up) -> list[Address]:
    async with asyncio.timeout(DEADLINE):
        return await Resolver(host, 143, look_up).find()


async def problem_of(found: Resolver) -> str:
    with pytest.raises(Unresolved) as caught:
        await found.find()
    return str(caught.value)


def never(host: str, port: int) -> list[Address]:
    raise AssertionError(f"{host} is looked up")


@pytest.mark.parametrize(
    ("host", "family"), [("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)]
)
async def test_an_address_is_not_looked_up(host: str, family: int) -> None:
    assert await addresses_of(host, never) == [Address(family, (host, 143))]


async def test_the_system_knows_localhost() -> None:
    found = await addresses_of("localhost")

    assert {address.host for address in found} <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found))
    assert {address.sockaddr[1] for address in found} == {143}


async def test_an_address_with_a_scope_has_its_interfaces_number() -> None:
    (found,) = await addresses_of("fe80::1%lo")

    assert found.host == "fe80::1"
    assert found.sockaddr[3] == socket.if_nametoindex("lo")


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("a..b", "it is no name"),
        (f"{'x' * 64}.example.org", "it is no name"),
        ("a\0b", None),
        ("fe80::1%nothing", None),
    ],
    ids=["empty-label", "long-label", "nul", "no-interface"],
)
async def test_what_cannot_be_a_name_is_said_to_be_none(host: str, problem: str | None) -> None:
    with pytest.raises(Unresolved) as caught:
        await addresses_of(host)

    assert str(caught.value) == f"{host}: {problem or 'Name or service not known'}"


async def test_addresses_keep_their_order() -> None:
    assert await addresses_of(NAME, NameServer([SECOND, FIRST])) == [SECOND, FIRST]


async def test_a_name_is_looked_up_with_its_port() -> None:
    server = NameServer([FIRST])

    await addresses_of(NAME, server)

    assert server.asked == [(NAME, 143)]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (NO_NAME_SERVER, "Temporary failure in name resolution"),
        (OSError("no such thing"), "no such thing"),
        (ValueError("embedded null byte"), "it is no name"),
        ([], "it has no address"),
    ],
    ids=["gaierror", "without-errno", "value-error", "none"],
)
async def test_a_failure_says_why(answer: list[Address] | Exception, problem: str) -> None:
    subject = Resolver(NAME, 143, NameServer(answer))

    assert await problem_of(subject) == f"{NAME}: {problem}"


async def test_a_fault_in_a_look_up_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    subject = Resolver(NAME, 143, NameServer(ZeroDivisionError()))

    async with asyncio.timeout(DEADLINE):
        assert await problem_of(subject) == f"{NAME}: it has no address"

    await eventually(lambda: shown != [], "a traceback")


async def test_where_there_is_no_thread_there_is_no_address_until_there_is(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    subject = Resolver(NAME, 143, NameServer([FIRST]))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert await problem_of(subject) == f"{NAME}: no thread is left to look it up"
    clock.now += resolver.FUTILE

    assert await subject.find() == [FIRST]


async def test_fresh_addresses_are_not_looked_up_again(clock: Clock) -> None:
    server = NameServer([FIRST])
    subject = Resolver(NAME, 143, server)
    await subject.find()
    clock.now += resolver.FRESH - 0.1

    assert await subject.find() == [FIRST]
    assert len(server.asked) == 1


async def test_a_failure_is_remembered_for_a_moment(clock: Clock) -> None:
    server = NameServer(NO_NAME_SERVER)
    subject = Resolver(NAME, 143, server)
    await problem_of(subject)
    clock.now += resolver.FUTILE - 0.1

    await problem_of(subject)

    assert len(server.asked) == 1


async def test_a_failure_is_not_remembered_for_longer(clock: Clock) -> None:
    server = NameServer(NO_NAME_SERVER)
    subject = Resolver(NAME, 143, server)
    await problem_of(subject)
    server.answer = [FIRST]
    clock.now += resolver.FUTILE

    assert await subject.find() == [FIRST]


async def test_old_addresses_are_used_while_they_are_looked_up_anew(clock: Clock) -> None:
    server = NameServer([FIRST])
    subject = Resolver(NAME, 143, server)
    await subject.find()
    server.may_answer.clear()
    server.answer = [SECOND]
    clock.now += resolver.FRESH

    meanwhile = await subject.find()
    server.may_answer.set()

    assert meanwhile == [FIRST]
    await eventually_finds(subject, SECOND)


async def test_old_addresses_are_used_while_no_name_server_answers(clock: Clock) -> None:
    server = NameServer([FIRST])
    subject = Resolver(NAME, 143, server)
    await subject.find()
    server.answer = NO_NAME_SERVER
    clock.now += resolver.FRESH
    await subject.find()
    await eventually(lambda: len(server.asked) >= 2, "another look-up")
    clock.now += 100 * resolver.FRESH

    assert await subject.find() == [FIRST]


async def eventually_finds(subject: Resolver, address: Address) -> None:
    async with asyncio.timeout(DEADLINE):
        while await subject.find() != [address]:  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0.001)


async def test_there_is_one_look_up_at_a_time(clock: Clock) -> None:
    server = NameServer([FIRST])
    server.may_answer.clear()
    subject = Resolver(NAME, 143, server)
    waiting = [asyncio.create_task(subject.find()) for _ in range(20)]
    await eventually(lambda: server.asked != [], "a look-up")
    clock.now += resolver.FRESH
    waiting += [asyncio.create_task(subject.find()) for _ in range(20)]
    await asyncio.sleep(0)

    server.may_answer.set()

    assert await asyncio.gather(*waiting) == [[FIRST]] * 40
    assert len(server.asked) == 1


async def test_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    server = NameServer([FIRST])
    server.may_answer.clear()
    subject = Resolver(NAME, 143, server)
    impatient, patient = (asyncio.create_task(subject.find()) for _ in range(2))
    await eventually(lambda: server.asked != [], "a look-up")

    impatient.cancel()
    await asyncio.wait([impatient])
    server.may_answer.set()

    assert await patient == [FIRST]
    assert len(server.asked) == 1


def test_a_look_up_that_hangs_does_not_hold_the_end() -> None:
    server = NameServer([FIRST])
    server.may_answer.clear()
    threads = set(threading.enumerate())

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Resolver(NAME, 143, server).find()

    asyncio.run(give_up())
    (thread,) = set(threading.enumerate()) - threads
    server.may_answer.set()
    thread.join(DEADLINE)

    assert thread.daemon
    assert not thread.is_alive()
