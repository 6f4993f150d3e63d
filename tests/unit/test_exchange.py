import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import NoReturn

import pytest

from pysaslauthd.backends.base import Found, Naming, SecretStore
from pysaslauthd.backends.static import Static
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.exchange import Exchange, Exchanges, Parts
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    Accepted,
    AuthResult,
    Deadlines,
    Lookup,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.sasl.server.mechanism import (
    Challenge,
    Finished,
    Mechanism,
    Need,
    Script,
    Stored,
    Surroundings,
    Traits,
    compute,
    fetch,
    first_message,
    say,
)
from pysaslauthd.sasl.server.plain import PLAIN

USERS = Static({"joe": Secret(b"pw"), "joe@example.com": Secret(b"other")})
HERE = Surroundings("mail.test.example", Secret(b"the key of this process"))
NAMES = Names(combine=False, default_realm="test.example")
ORIGIN = Origin("smtp", "192.0.2.7")
LONG = 20.0  # seconds, for what happens at once

pytestmark = pytest.mark.usefixtures("seen_logs")


def echo(_surroundings: Surroundings, initial: bytes | None) -> Script:
    """Have the client say name and password, one after the other, and compare with what is kept."""
    name = (yield from first_message(initial)).decode()
    stored = yield from fetch(name)
    if isinstance(stored, Unavailable):
        return Finished(stored, name)
    said = yield from say(b"and?")
    return Finished(stored.verdict(is_proven=stored.password.matches(said)), name)


def peek(_surroundings: Surroundings, initial: bytes | None) -> Script:
    """Have what is kept told to the client, for a test to see."""
    stored = yield from fetch((initial or b"").decode())
    assert isinstance(stored, Stored)
    yield from say(stored.password.reveal())
    return Finished(stored.verdict(is_proven=True), stored.user)


def stumble(_surroundings: Surroundings, _initial: bytes | None) -> Script:
    """Fail as no mechanism should."""
    yield from say(b"")
    raise KeyError("oops")


def grinding(work: Callable[[], bytes]) -> Mechanism:
    """Return a mechanism that compares what *work* makes with joe's password."""

    def grind(_surroundings: Surroundings, _initial: bytes | None) -> Script:
        stored = yield from fetch("joe")
        assert isinstance(stored, Stored)
        made = yield from compute(work)
        return Finished(stored.verdict(is_proven=stored.password.matches(made)), "joe")

    return Mechanism("GRINDING", Need.STORED_PASSWORD, Traits(), grind)


ECHO, PEEK, STUMBLE = (
    Mechanism(script.__name__.upper(), Need.STORED_PASSWORD, Traits(), script)
    for script in (echo, peek, stumble)
)


class Slow:
    """A store that needs time, and may never have enough."""

    name = "slow"
    naming = Naming.JOINED

    def __init__(self, answer: Callable[[], Awaitable[Found]]) -> None:
        self._answer = answer

    def fetch(self, _lookup: Lookup, /) -> Awaitable[Found]:
        return self._answer()


async def soon() -> Found:
    return Secret(b"pw")


async def never() -> Found:
    await asyncio.Event().wait()
    raise AssertionError


async def stumbling() -> Found:
    raise KeyError("oops")


def failing() -> Awaitable[Found]:
    raise KeyError("oops")


def exchanges(
    store: SecretStore | None = USERS,
    *,
    deadline: float = 5.0,
    may_act_as: Callable[[str, str], bool] = lambda _authcid, _authzid: False,
) -> Exchanges:
    audit, deadlines = Audit(NAMES), Deadlines(deadline, {})
    engine = Authenticator(USERS, NAMES, audit, deadlines)
    parts = Parts(engine, store, NAMES, audit, deadlines)
    return Exchanges(parts, [ECHO, PLAIN], may_act_as=may_act_as)


def plain(message: bytes, source: Exchanges | None = None) -> Exchange:
    return (source or exchanges()).start(PLAIN, HERE, message, ORIGIN)


async def end_of(exchange: Exchange, *responses: bytes) -> AuthResult:
    said = await exchange.proceed(None)
    for response in responses:
        assert isinstance(said, Challenge)
        said = await exchange.proceed(response)
    assert isinstance(said, Finished)
    return said.result


async def test_a_right_password_is_a_success() -> None:
    assert await end_of(plain(b"\0joe\0pw")) == Accepted("joe", "static")


def test_what_the_client_has_said_is_not_shown() -> None:
    assert "hunter2" not in repr(plain(b"\0joe\0hunter2"))


async def test_a_wrong_password_is_a_refusal() -> None:
    result = await end_of(plain(b"\0joe\0no"))

    assert isinstance(result, Rejected)
    assert result.reason is Reason.WRONG_PASSWORD


async def test_a_name_is_split_at_its_last_at_sign() -> None:
    assert await end_of(plain(b"\0joe@example.com\0other")) == Accepted("joe", "static")


async def test_a_client_that_waits_for_its_turn_is_given_it() -> None:
    exchange = exchanges().start(PLAIN, HERE, None, ORIGIN)

    assert await exchange.proceed(None) == Challenge(b"")
    assert isinstance(await exchange.proceed(b"\0joe\0pw"), Finished)


async def test_what_is_no_message_is_a_refusal_that_says_what_is_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    result = await end_of(plain(b"joe pw"))

    assert isinstance(result, Rejected)
    assert result.reason is Reason.MALFORMED
    assert "[mech=PLAIN] [reason=PLAIN: not authzid, authcid and password]" in caplog.text


async def test_a_fault_in_a_mechanism_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    exchange = exchanges().start(STUMBLE, HERE, None, ORIGIN)

    result = await end_of(exchange, b"whatever")

    assert result == Unavailable("internal error", "STUMBLE")
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        b"\0joe\0pw",
        b"joe\0joe\0pw",
        b"ann\0joe\0pw",
        b"ann\0joe\0no",
        b"\0joe\0no",
        b"\0ann\0pw",
        b"\0joe\0",
        b"\0\0pw",
        b"joe pw",
        b"",
    ],
    ids=repr,
)
async def test_a_message_means_the_same_at_once_and_when_asked_for(message: bytes) -> None:
    at_once = await plain(message).proceed(None)
    exchange = exchanges().start(PLAIN, HERE, None, ORIGIN)
    await exchange.proceed(None)

    assert await exchange.proceed(message) == at_once


async def test_a_fault_in_reading_the_only_message_is_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def misread(_message: bytes) -> NoReturn:
        raise KeyError("oops")

    exchange = exchanges().start(PLAIN._replace(reads=misread), HERE, b"", ORIGIN)

    assert await end_of(exchange) == Unavailable("internal error", "PLAIN")
    assert "KeyError" in caplog.text


class TestStoredPasswords:
    @pytest.mark.parametrize("store", [USERS, Slow(soon)], ids=["at once", "later"])
    async def test_a_proof_of_the_password_is_a_success(self, store: SecretStore) -> None:
        exchange = exchanges(store).start(ECHO, HERE, b"joe", ORIGIN)

        assert await end_of(exchange, b"pw") == Accepted("joe", store.name)

    async def test_no_proof_is_a_refusal(self) -> None:
        exchange = exchanges().start(ECHO, HERE, b"joe", ORIGIN)

        result = await end_of(exchange, b"no")

        assert isinstance(result, Rejected)
        assert result.reason is Reason.WRONG_PASSWORD

    async def test_an_unknown_user_sees_what_a_known_one_sees(self) -> None:
        exchange = exchanges().start(ECHO, HERE, b"nobody", ORIGIN)

        assert await exchange.proceed(None) == Challenge(b"and?")

    async def test_an_unknown_user_is_refused_whatever_it_proves(self) -> None:
        exchange = exchanges().start(PEEK, HERE, b"nobody", ORIGIN)
        decoy = await exchange.proceed(None)
        assert isinstance(decoy, Challenge)

        other = exchanges().start(ECHO, HERE, b"nobody", ORIGIN)
        result = await end_of(other, decoy.data)

        assert isinstance(result, Rejected)
        assert result.reason is Reason.NO_SUCH_USER

    async def test_a_decoy_is_another_for_every_name(self) -> None:
        one = await exchanges().start(PEEK, HERE, b"nobody", ORIGIN).proceed(None)
        other = await exchanges().start(PEEK, HERE, b"no-one", ORIGIN).proceed(None)

        assert one != other

    async def test_an_answer_that_does_not_come_is_an_outage(self) -> None:
        exchange = exchanges(Slow(never), deadline=0.01).start(ECHO, HERE, b"joe", ORIGIN)

        assert await end_of(exchange) == Unavailable("no answer within 0.01 s", "slow")

    async def test_a_fault_in_the_store_is_an_outage(self) -> None:
        exchange = exchanges(Slow(failing)).start(ECHO, HERE, b"joe", ORIGIN)

        assert await end_of(exchange) == Unavailable("internal error", "slow")

    async def test_a_fault_after_a_wait_is_an_outage(self) -> None:
        exchange = exchanges(Slow(stumbling)).start(ECHO, HERE, b"joe", ORIGIN)

        assert await end_of(exchange) == Unavailable("internal error", "slow")

    def test_without_a_store_no_mechanism_is_offered_that_needs_one(self) -> None:
        assert exchanges(None).mechanisms == (PLAIN,)
        assert exchanges().mechanisms == (ECHO, PLAIN)


class TestAuthorisation:
    @pytest.mark.parametrize("authzid", [b"", b"joe", b"joe@test.example"], ids=repr)
    async def test_everybody_may_act_as_oneself(self, authzid: bytes) -> None:
        assert isinstance(await end_of(plain(authzid + b"\0joe\0pw")), Accepted)

    @pytest.mark.parametrize("authzid", [b"ann", b"joe@example.com", b"JOE"], ids=repr)
    async def test_nobody_may_act_as_somebody_else(self, authzid: bytes) -> None:
        result = await end_of(plain(authzid + b"\0joe\0pw"))

        assert isinstance(result, Rejected)
        assert result.reason is Reason.NO_AUTHORISATION

    async def test_a_wrong_password_is_told_before_that(self) -> None:
        result = await end_of(plain(b"ann\0joe\0no"))

        assert isinstance(result, Rejected)
        assert result.reason is Reason.WRONG_PASSWORD

    async def test_a_rule_may_let_one_act_as_another(self) -> None:
        allowed = exchanges(may_act_as=lambda *names: names == ("joe", "ann"))

        assert isinstance(await end_of(plain(b"ann\0joe\0pw", allowed)), Accepted)

    async def test_a_fault_in_the_rule_is_an_outage(self, caplog: pytest.LogCaptureFixture) -> None:
        def rule(_authcid: str, _authzid: str) -> bool:
            raise KeyError("oops")

        result = await end_of(plain(b"ann\0joe\0pw", exchanges(may_act_as=rule)))

        assert result == Unavailable("internal error", "static")
        assert "KeyError" in caplog.text


class TestWithoutWaiting:
    def test_what_the_backend_knows_is_there_at_once(self) -> None:
        said = plain(b"\0joe\0pw").advance(None, 0.0)

        assert isinstance(said, Finished)
        assert said.result == Accepted("joe", "static")

    def test_a_stored_password_is_there_at_once(self) -> None:
        exchange = exchanges().start(ECHO, HERE, b"joe", ORIGIN)

        assert exchange.advance(None, 0.0) == Challenge(b"and?")

    async def test_what_has_to_be_waited_for_is_returned(self) -> None:
        pending = exchanges(Slow(soon)).start(ECHO, HERE, b"joe", ORIGIN).advance(None, 0.0)

        assert isinstance(pending, Awaitable)
        assert await pending == Challenge(b"and?")


class TestAReload:
    async def test_who_asks_after_it_asks_the_backend_of_then(self) -> None:
        source = exchanges(Static({}))
        exchange = source.start(ECHO, HERE, None, ORIGIN)
        await exchange.proceed(None)

        source.follow(exchanges(USERS).parts)
        await exchange.proceed(b"joe")
        said = await exchange.proceed(b"pw")

        assert isinstance(said, Finished)
        assert said.result == Accepted("joe", "static")

    async def test_passwords_that_are_no_longer_there_are_an_outage(self) -> None:
        source = exchanges(USERS)
        exchange = source.start(ECHO, HERE, b"joe", ORIGIN)

        source.follow(exchanges(None).parts)

        assert isinstance(await end_of(exchange), Unavailable)
        assert source.mechanisms == (PLAIN,)


class TestTheLog:
    @pytest.mark.parametrize(
        ("exchange", "responses", "line"),
        [
            (
                lambda: plain(b"\0joe\0no"),
                [],
                "auth failure: [user=joe] [service=smtp] [realm=] [remote=192.0.2.7]"
                " [sasl=PLAIN] [mech=static] [reason=Unknown]",
            ),
            (
                lambda: plain(b"ann\0joe@example.com\0other"),
                [],
                "auth failure: [user=joe] [service=smtp] [realm=example.com] [remote=192.0.2.7]"
                " [sasl=PLAIN] [mech=static] [reason=may not act as ann]",
            ),
            (
                lambda: exchanges().start(ECHO, HERE, b"joe", ORIGIN),
                [b"no"],
                "auth failure: [user=joe] [service=smtp] [realm=] [remote=192.0.2.7]"
                " [sasl=ECHO] [mech=static] [reason=Unknown]",
            ),
        ],
        ids=["password", "authorisation", "proof"],
    )
    async def test_a_refusal_is_one_line(
        self,
        exchange: Callable[[], Exchange],
        responses: list[bytes],
        line: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)

        await end_of(exchange(), *responses)

        assert [record.getMessage() for record in caplog.records] == [line]

    async def test_a_success_is_one_line_for_those_who_want_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="pysaslauthd")

        await end_of(exchanges().start(ECHO, HERE, b"joe", ORIGIN), b"pw")

        (record,) = caplog.records
        assert record.getMessage().startswith("auth success: [user=joe]")


class TestComputing:
    """Work that takes long is done in a thread: `grinding` yields it."""

    async def test_its_result_is_the_answer(self) -> None:
        exchange = exchanges().start(grinding(lambda: b"pw"), HERE, None, ORIGIN)

        assert await end_of(exchange) == Accepted("joe", "static")

    async def test_it_is_done_after_a_wait_too(self) -> None:
        exchange = exchanges(Slow(soon)).start(grinding(lambda: b"pw"), HERE, None, ORIGIN)

        assert await end_of(exchange) == Accepted("joe", "slow")

    async def test_a_fault_in_it_is_an_outage(self, caplog: pytest.LogCaptureFixture) -> None:
        def stumble() -> NoReturn:
            raise KeyError("oops")

        exchange = exchanges().start(grinding(stumble), HERE, None, ORIGIN)

        assert await end_of(exchange) == Unavailable("internal error", "GRINDING")
        assert "KeyError" in caplog.text

    async def test_who_does_not_wait_for_it_makes_no_room_for_another(self) -> None:
        begun, may_end = threading.Semaphore(0), threading.Event()

        def grind() -> bytes:
            begun.release()
            may_end.wait(LONG)
            return b"pw"

        engine, mechanism = exchanges(), grinding(grind)
        first, second = (
            asyncio.ensure_future(end_of(engine.start(mechanism, HERE, None, ORIGIN)))
            for _ in range(2)
        )
        assert await asyncio.to_thread(begun.acquire, timeout=LONG)

        first.cancel()
        is_beside = await asyncio.to_thread(begun.acquire, timeout=0.05)
        may_end.set()

        assert await second == Accepted("joe", "static")
        assert first.cancelled()
        assert not is_beside

    async def test_who_gets_no_turn_in_time_is_told_of_an_outage(self) -> None:
        go_on = threading.Event()

        def grind() -> bytes:
            go_on.wait(LONG)
            return b"pw"

        mechanism, source = grinding(grind), exchanges(deadline=0.05)
        first = asyncio.create_task(source.start(mechanism, HERE, None, ORIGIN).proceed(None))
        await asyncio.sleep(0)

        result = await end_of(source.start(mechanism, HERE, None, ORIGIN))
        go_on.set()

        assert result == Unavailable("others are hashed for: no turn within 0.05 s", "GRINDING")
        assert isinstance((await first), Finished)

    async def test_where_there_are_no_threads_any_more_it_is_an_outage(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(_self: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        source, mechanism = exchanges(), grinding(lambda: b"pw")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            results = [await end_of(source.start(mechanism, HERE, None, ORIGIN)) for _ in range(2)]

        assert results == [Unavailable("internal error", "GRINDING")] * 2
        assert "can't start new thread" in caplog.text
