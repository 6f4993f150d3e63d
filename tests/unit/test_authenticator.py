import asyncio
import logging
from collections.abc import Awaitable

import pytest

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from tests.helpers.static import YES, Static

NAMES = Names(combine=True, default_realm="host")
JOE = AuthRequest("joe", Secret(b"hunter2"), "r", Origin("smtp"), 0.0)


pytestmark = pytest.mark.usefixtures("seen_logs")


def engine(backend: PasswordVerifier, deadline: float = 5.0) -> Authenticator:
    return Authenticator(backend, NAMES, Audit(NAMES), deadline)


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
