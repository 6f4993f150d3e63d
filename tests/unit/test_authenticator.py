import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Iterator
from socket import SocketType

import pytest

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.cache import Cache
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Deadlines,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from tests.helpers.processes import DEADLINE
from tests.helpers.static import YES, Static

NAMES = Names(combine=True, default_realm="host")
NO = Rejected(Reason.WRONG_PASSWORD, "static")
JOE = AuthRequest("joe", Secret(b"hunter2"), "r", Origin("smtp"), 0.0)


pytestmark = pytest.mark.usefixtures("seen_logs")


def engine(backend: PasswordVerifier, deadline: float = 5.0) -> Authenticator:
    return Authenticator(backend, NAMES, Audit(NAMES), Deadlines(deadline, {}))


def caching(backend: Static) -> Authenticator:
    backend.waits = True
    return Authenticator(
        backend, NAMES, Audit(NAMES), Deadlines(5.0, {}), cache=Cache(None, 3600.0)
    )


def locating(backend: Static, directory: "Directory") -> Authenticator:
    return Authenticator(backend, NAMES, Audit(NAMES), Deadlines(5.0, {}), addresses=directory)


async def later(result: AuthResult) -> AuthResult:
    return result


async def settled(answer: AuthResult | Awaitable[AuthResult]) -> AuthResult:
    assert not isinstance(answer, Accepted | Rejected | Unavailable)
    return await answer


def test_a_verdict_known_at_once_is_returned_at_once() -> None:
    assert engine(Static()).check(JOE) == YES


def test_the_backend_is_asked_by_the_names_it_understands() -> None:
    backend = Static()

    engine(backend).check(JOE)

    assert [(r.user, r.realm) for r in backend.asked] == [("joe@r", "")]


def test_a_fault_in_a_backend_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    result = engine(Static(KeyError("oops"))).check(JOE)

    assert result == Unavailable("internal error", "static")
    assert "KeyError" in caplog.text


async def test_a_verdict_that_takes_time_can_be_awaited() -> None:
    async def later() -> AuthResult:
        return Rejected(Reason.WRONG_PASSWORD, "static")

    assert await settled(engine(Static(later())).check(JOE)) == Rejected(
        Reason.WRONG_PASSWORD, "static"
    )


async def test_a_missed_deadline_is_an_outage() -> None:
    never: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()

    result = await settled(engine(Static(never), deadline=0.01).check(JOE))

    assert result == Unavailable("no answer within 0.01 s", "static")


async def test_a_missed_deadline_says_what_was_waited_for() -> None:
    never: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()

    async def wait() -> AuthResult:
        try:
            return await never
        except asyncio.CancelledError as error:
            error.add_note("while waiting for ldap.example.org")
            raise

    result = await settled(engine(Static(wait()), deadline=0.01).check(JOE))

    told = "no answer within 0.01 s, while waiting for ldap.example.org"
    assert result == Unavailable(told, "static")


async def test_a_late_fault_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> AuthResult:
        raise ValueError("oops")

    result = await settled(engine(Static(fail())).check(JOE))

    assert result == Unavailable("internal error", "static")
    assert "ValueError" in caplog.text


async def test_a_late_verdict_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> AuthResult:
        return YES

    with caplog.at_level(logging.DEBUG):
        await settled(engine(Static(later())).check(JOE))

    assert [r.getMessage() for r in caplog.records if "auth" in r.getMessage()] == [
        "auth success: [user=joe@r] [service=smtp] [realm=r] [mech=static]"
    ]


def test_no_fault_logs_the_password(caplog: pytest.LogCaptureFixture) -> None:
    engine(Static(RuntimeError("broken"))).check(JOE)

    assert "hunter2" not in caplog.text


async def test_a_service_may_have_a_deadline_of_its_own() -> None:
    never: asyncio.Future[AuthResult] = asyncio.get_running_loop().create_future()
    subject = Authenticator(Static(never), NAMES, Audit(NAMES), Deadlines(60.0, {"smtp": 0.01}))

    assert await settled(subject.check(JOE)) == Unavailable("no answer within 0.01 s", "static")


class TestWithACache:
    async def test_a_good_answer_is_given_again_at_once(self) -> None:
        subject = caching(Static(later(YES)))
        await settled(subject.check(JOE))

        assert isinstance(subject.check(JOE), Accepted)

    async def test_a_hit_is_logged_as_one(self, caplog: pytest.LogCaptureFixture) -> None:
        subject = caching(Static(later(YES)))
        await settled(subject.check(JOE))

        with caplog.at_level(logging.DEBUG):
            subject.check(JOE)

        assert caplog.messages == ["auth success (cached): [user=joe@r] [service=smtp] [realm=r]"]

    async def test_another_password_is_the_backends_to_judge(self) -> None:
        backend = Static(later(YES))
        subject = caching(backend)
        await settled(subject.check(JOE))
        backend.answer = later(NO)

        assert await settled(subject.check(JOE._replace(password=Secret(b"other")))) == NO

    async def test_a_refusal_is_never_cached(self) -> None:
        backend = Static(later(NO))
        subject = caching(backend)
        await settled(subject.check(JOE))
        backend.answer = later(YES)

        assert await settled(subject.check(JOE)) == YES

    async def test_a_password_that_is_refused_elsewhere_is_forgotten(self) -> None:
        backend = Static(later(YES))
        subject = caching(backend)
        await settled(subject.check(JOE))
        backend.answer = later(NO)
        await settled(subject.check(JOE._replace(origin=Origin("imap"))))
        backend.answer = later(NO)

        assert await settled(subject.check(JOE)) == NO

    async def test_an_outage_leaves_it_as_it_is(self) -> None:
        backend = Static(later(YES))
        subject = caching(backend)
        await settled(subject.check(JOE))
        backend.answer = later(Unavailable("down", "static"))
        await settled(subject.check(JOE._replace(origin=Origin("imap"))))

        assert isinstance(subject.check(JOE), Accepted)

    def test_what_is_known_at_once_is_not_cached(self) -> None:
        backend = Static(YES)
        subject = caching(backend)
        subject.check(JOE)
        backend.answer = NO

        assert subject.check(JOE) == NO


class Directory:
    """Knows the address of every connection, or of none."""

    def __init__(self, address: str = "192.0.2.1;4000", *, hope: bool = True) -> None:
        self.address = address
        self.hope = hope
        self.asked = 0

    def worth_asking(self, _connection: SocketType) -> bool:
        return self.hope

    async def find(self, _connection: SocketType) -> str:
        self.asked += 1
        return self.address


class TestTheClientsAddress:
    @pytest.fixture
    def connection(self) -> Iterator[SocketType]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours

    async def test_is_found_for_the_line_about_a_refusal(
        self, connection: SocketType, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            await settled(locating(Static(NO), Directory()).check(JOE, connection))

        assert "[remote=192.0.2.1;4000]" in caplog.messages[-1]

    async def test_is_found_for_a_late_refusal_too(
        self, connection: SocketType, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            await settled(locating(Static(later(NO)), Directory()).check(JOE, connection))

        assert "[remote=192.0.2.1;4000]" in caplog.messages[-1]

    def test_is_not_looked_for_where_nothing_is_logged(
        self, connection: SocketType, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            assert locating(Static(YES), Directory()).check(JOE, connection) == YES

    def test_is_not_looked_for_where_the_application_sent_it(self, connection: SocketType) -> None:
        told = JOE._replace(origin=Origin("smtp", "198.51.100.9;99"))

        assert locating(Static(NO), Directory()).check(told, connection) == NO

    def test_is_not_looked_for_without_hope(self, connection: SocketType) -> None:
        assert locating(Static(NO), Directory(hope=False)).check(JOE, connection) == NO

    @pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
    async def test_is_part_of_the_question_where_the_backend_uses_it(
        self, connection: SocketType, *, at_once: bool
    ) -> None:
        backend = Static(YES if at_once else later(YES))
        backend.uses_address = True

        await settled(locating(backend, Directory()).check(JOE, connection))

        assert [request.origin.remote for request in backend.asked] == ["192.0.2.1;4000"]

    async def test_is_looked_for_once(self, connection: SocketType) -> None:
        backend, directory = Static(later(NO)), Directory()
        backend.uses_address = True

        await settled(locating(backend, directory).check(JOE, connection))

        assert directory.asked == 1

    async def test_that_cannot_be_found_changes_nothing(
        self, connection: SocketType, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            await settled(locating(Static(NO), Directory("")).check(JOE, connection))

        assert "remote" not in caplog.messages[-1]


class TestADelay:
    async def test_holds_the_reply_to_a_refusal(self) -> None:
        request = JOE._replace(received=time.monotonic())

        await settled(engine(Static(later(NO._replace(delay=0.05)))).check(request))

        assert time.monotonic() - request.received >= 0.05

    async def test_never_lasts_until_postfix_has_given_up(self) -> None:
        long_ago = JOE._replace(received=time.monotonic() - 9.0)

        async with asyncio.timeout(DEADLINE):
            await settled(engine(Static(later(NO._replace(delay=60.0)))).check(long_ago))

    async def test_does_not_count_as_time_of_the_backend(self) -> None:
        request = JOE._replace(received=time.monotonic())
        refusal = NO._replace(delay=0.1)

        assert await settled(engine(Static(later(refusal)), 0.05).check(request)) == refusal

    async def test_ends_when_the_daemon_leaves(self) -> None:
        request = JOE._replace(received=time.monotonic())
        refusal = NO._replace(delay=60.0)
        subject = engine(Static(later(refusal)))
        held = asyncio.ensure_future(settled(subject.check(request)))
        await asyncio.sleep(0)

        subject.end_delays()

        async with asyncio.timeout(DEADLINE):
            assert await held == refusal
