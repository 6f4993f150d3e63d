"""The backend that asks an IMAP server, with one that does as the test says."""

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from pysaslauthd.backends import rimap
from pysaslauthd.backends.base import Naming
from pysaslauthd.backends.rimap import PENALTY, Rimap
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
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.tls import TlsRules, make_context
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.imap_server import (
    GREETING,
    HANG_UP,
    HEAR,
    NO,
    OK,
    READ,
    RESET,
    SILENCE,
    START_TLS,
    Act,
    imap_server,
)
from tests.helpers.processes import DEADLINE, free_port
from tests.helpers.workers import count_descriptors, eventually

LOGIN = b'saslauthd LOGIN "joe" "pw"\r\n'
LOGOUT = b"saslauthd LOGOUT\r\n"
BARE_GREETING = b"* OK ready\r\n"
STARTS_TLS = b"saslauthd1 STARTTLS\r\n"
CAPABLE = b"* CAPABILITY IMAP4rev1\r\nsaslauthd2 OK\r\n"
GO_AHEAD = b"saslauthd1 OK go ahead\r\n"
SHORT = 0.2  # seconds, for what must not happen
PATIENCE = 0.8  # seconds, which are to run out, but not before the script is where it is to end
HERE = "127.0.0.1"

NONE, STARTTLS, TLS = Security


@asynccontextmanager
async def backend(
    port: int,
    security: Security = NONE,
    context: ssl.SSLContext | None = None,
    patience: float = DEADLINE,
    connections: int = 10,
) -> AsyncIterator[Rimap]:
    """Return a backend for the server at *port*; it is closed when the block ends."""
    connector = Connector(Endpoint(HERE, port, security), context, patience)
    made = Rimap(connector, patience, connections)
    await made.open()
    try:
        yield made
    finally:
        made.retire()
        await made.close()


def request_for(password: bytes = b"pw", user: str = "joe") -> AuthRequest:
    return AuthRequest(user, Secret(password), "", Origin("imap"), 0.0)


async def ask(port: int, password: bytes = b"pw", patience: float = DEADLINE) -> AuthResult:
    """Ask the server at *port* once."""
    async with backend(port, patience=patience) as made:
        return await made.verify(request_for(password))


async def problem_of(port: int, password: bytes = b"pw", patience: float = DEADLINE) -> str:
    """Return why the server at *port* cannot be asked, without its name."""
    result = await ask(port, password, patience)
    assert isinstance(result, Unavailable)
    assert result.backend == "rimap"
    server, _, problem = result.detail.partition(": ")
    assert server == f"{HERE}:{port}"
    return problem


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue()


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return make_context(TlsRules(ca_file=str(authority.file)))


def test_it_knows_users_by_one_name() -> None:
    assert Rimap.name == "rimap"
    assert Rimap.naming is Naming.JOINED
    assert Rimap.waits
    assert not Rimap.uses_address


async def test_yes_is_the_c_daemons() -> None:
    with imap_server(GREETING, HEAR, OK) as server:
        result = await ask(server.port)

    assert result == Accepted("joe", "rimap", "remote authentication successful")


async def test_no_is_the_c_daemons() -> None:
    with imap_server(GREETING, HEAR, NO) as server:
        result = await ask(server.port)

    assert result == Rejected(
        Reason.WRONG_PASSWORD, "rimap", "remote server rejected your credentials"
    )


async def test_no_may_have_a_reason() -> None:
    with imap_server(GREETING, HEAR, b"saslauthd NO [EXPIRED] too late\r\n") as server:
        result = await ask(server.port)

    assert isinstance(result, Rejected)
    assert result.reason is Reason.PASSWORD_EXPIRED


@pytest.mark.parametrize("answer", [OK, NO, b"saslauthd BAD x\r\n"], ids=["ok", "no", "bad"])
async def test_it_logs_out(answer: bytes) -> None:
    with imap_server(GREETING, HEAR, answer) as server:
        await ask(server.port)

        assert await server.all_heard() == [LOGIN + LOGOUT]


async def test_it_logs_out_where_somebody_has_logged_in() -> None:
    with imap_server(b"* PREAUTH root\r\n") as server:
        await ask(server.port)

        assert await server.all_heard() == [LOGOUT]


async def test_a_server_that_goes_on_talking_hears_the_logout() -> None:
    more = b"* OK [ALERT] and another thing\r\n" * 2000
    with imap_server(GREETING, HEAR, OK + more, more) as server:
        result = await ask(server.port)

        assert isinstance(result, Accepted)
        assert await server.all_heard() == [LOGIN + LOGOUT]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        pytest.param([HANG_UP], "it hung up before its greeting", id="hangs-up"),
        pytest.param([b"* OK", HANG_UP], "it hung up before its greeting", id="half-a-greeting"),
        pytest.param(
            [GREETING, HEAR, HANG_UP], "it hung up before its answer to LOGIN", id="hangs-up-later"
        ),
        pytest.param(
            [GREETING, HEAR, OK[:-1], HANG_UP],
            "it hung up before its answer to LOGIN",
            id="half-an-answer",
        ),
        pytest.param(
            [GREETING, HEAR, RESET],
            "Connection reset by peer before its answer to LOGIN",
            id="reset-later",
        ),
        pytest.param(
            [BARE_GREETING, HEAR, HANG_UP],
            "it hung up before its answer to CAPABILITY",
            id="hangs-up-between",
        ),
        pytest.param(
            [b"* BYE too many\r\n"], "it takes no connection now: * BYE too many", id="bye"
        ),
        pytest.param(
            [b"* PREAUTH root\r\n"],
            "it takes us for somebody who has logged in (PREAUTH): * PREAUTH root",
            id="preauth",
        ),
        pytest.param(
            [b"HTTP/1.1 400 Bad\r\n"],
            "it does not greet as an IMAP server does: HTTP/1.1 400 Bad",
            id="http",
        ),
        pytest.param(
            [b"* \x1b[2J\0\xff\r\n"],
            r"it does not greet as an IMAP server does: * \x1b[2J\x00\xff",
            id="garbage",
        ),
        pytest.param([b"x" * 9000], "a line of more than 8192 bytes", id="endless-line"),
        pytest.param(
            [BARE_GREETING, HEAR, b"* X\r\n" * 20000], "more than 65536 bytes", id="endless-lines"
        ),
        pytest.param(
            [GREETING, HEAR, b"saslauthd NO [UNAVAILABLE] try later\r\n"],
            "it answered NO (UNAVAILABLE) to LOGIN: saslauthd NO [UNAVAILABLE] try later",
            id="unavailable",
        ),
        pytest.param(
            [GREETING, HEAR, b"* BYE crashed\r\n"],
            "it answered BYE to LOGIN: * BYE crashed",
            id="bye-later",
        ),
        pytest.param(
            [GREETING, HEAR, b"a1 OK\r\n"],
            "an answer to something else than LOGIN: a1 OK",
            id="other-tag",
        ),
    ],
)
async def test_anything_else_is_an_outage_that_says_what_it_is(
    script: list[Act], problem: str
) -> None:
    with imap_server(*script) as server:
        found = await problem_of(server.port)

    assert found == problem


async def test_a_reset_at_once_is_an_outage() -> None:
    with imap_server(RESET) as server:
        assert "Connection reset by peer" in await problem_of(server.port)


async def test_where_nobody_listens_is_an_outage() -> None:
    assert "Connection refused" in await problem_of(free_port())


@pytest.mark.parametrize(
    ("script", "awaited"),
    [
        pytest.param([SILENCE], "greeting", id="greeting"),
        pytest.param([b"* OK", SILENCE], "greeting", id="half-a-greeting"),
        pytest.param([BARE_GREETING, SILENCE], "answer to CAPABILITY", id="capability"),
        pytest.param([BARE_GREETING, HEAR, CAPABLE, SILENCE], "answer to LOGIN", id="literal"),
    ],
)
async def test_a_server_that_is_silent_before_the_login_is_given_up_in_time(
    script: list[Act], awaited: str
) -> None:
    with imap_server(*script) as server:
        found = await problem_of(server.port, password=b"p\tw", patience=PATIENCE)

    assert found == f"no {awaited} within {PATIENCE:g} s"


async def test_the_answer_to_the_login_may_take_longer() -> None:
    gate = threading.Event()
    with imap_server(GREETING, HEAR, gate, OK) as server:
        async with backend(server.port, patience=PATIENCE) as made:
            asking = asyncio.create_task(made.verify(request_for()))
            finished, _ = await asyncio.wait({asking}, timeout=PATIENCE + SHORT)
            gate.set()

            assert finished == set()
            assert isinstance(await asking, Accepted)


async def note_of(asking: "asyncio.Task[AuthResult]") -> list[str]:
    """Return the notes of a request that is cancelled."""
    asking.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await asking
    return cancelled.value.__notes__


@pytest.mark.parametrize(
    ("greeting", "note"),
    [
        pytest.param(BARE_GREETING, "the answer of {} to CAPABILITY", id="capability"),
        pytest.param(GREETING, "the answer of {} to LOGIN", id="login"),
    ],
)
async def test_cancelled_it_says_what_it_was_waiting_for(greeting: bytes, note: str) -> None:
    with imap_server(greeting, SILENCE) as server:
        async with backend(server.port) as made:
            asking = asyncio.create_task(made.verify(request_for()))
            await eventually(lambda: server.heard not in ([], [b""]), "a command")

            notes = await note_of(asking)

    assert notes[0] == "while waiting for " + note.format(f"{HERE}:{server.port}")


async def test_cancelled_when_it_has_asked_it_says_what_may_make_it_wait() -> None:
    with imap_server(GREETING, SILENCE) as server:
        async with backend(server.port) as made:
            asking = asyncio.create_task(made.verify(request_for()))
            await eventually(lambda: server.heard not in ([], [b""]), "a command")

            notes = await note_of(asking)

    assert notes[1:] == [PENALTY]


async def test_cancelled_before_the_greeting_it_says_so() -> None:
    with imap_server(b"* OK", SILENCE) as server:
        async with backend(server.port) as made:
            asking = asyncio.create_task(made.verify(request_for()))
            await eventually(lambda: bool(server.is_open), "a connection")
            await asyncio.wait({asking}, timeout=SHORT)

            notes = await note_of(asking)

    assert notes == [f"while waiting for the greeting of {HERE}:{server.port}"]


async def test_cancelled_it_leaves_no_connection() -> None:
    before = count_descriptors()
    with imap_server(GREETING, SILENCE) as server:
        async with backend(server.port) as made:
            asking = asyncio.create_task(made.verify(request_for()))
            await eventually(lambda: server.heard == [LOGIN], "LOGIN")

            await note_of(asking)

            await eventually(lambda: not any(server.is_open), "end of the connection")

        assert await server.all_heard() == [LOGIN]
    await eventually(lambda: count_descriptors() <= before, "closed descriptors")


@pytest.fixture
def full_queue() -> Iterator[int]:
    """Return a port whose server does not accept, and whose queue is full."""
    with socket.socket() as listener:
        listener.bind((HERE, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection((HERE, port)), socket.socket() as second:
            second.settimeout(0)
            second.connect_ex((HERE, port))
            yield port


async def test_cancelled_while_connecting_it_says_so(full_queue: int) -> None:
    async with backend(full_queue) as made:
        asking = asyncio.create_task(made.verify(request_for()))
        await asyncio.wait({asking}, timeout=SHORT)

        notes = await note_of(asking)

    assert notes == [f"while waiting for a connection to {HERE}:{full_queue}"]


async def test_a_connection_that_does_not_come_about_is_given_up_in_time(full_queue: int) -> None:
    problem = await problem_of(full_queue, patience=SHORT)

    assert re.fullmatch(r"no connection within 0\.[0-2] s", problem)


class TestTheBound:
    """There are so many connections at most."""

    async def test_who_comes_later_waits(self) -> None:
        gate = threading.Event()
        with imap_server(GREETING, HEAR, gate, OK) as server:
            async with backend(server.port, connections=2) as made:
                asking = [asyncio.create_task(made.verify(request_for())) for _ in range(5)]
                await eventually(lambda: server.heard == [LOGIN] * 2, "two logins")
                finished, _ = await asyncio.wait(set(asking), timeout=SHORT)
                most = len(server.heard)
                gate.set()
                results = await asyncio.gather(*asking)

        assert finished == set()
        assert most == 2
        assert all(isinstance(result, Accepted) for result in results)

    async def test_they_are_served_in_their_order(self) -> None:
        with imap_server(GREETING, HEAR, OK) as server:
            async with backend(server.port, connections=1) as made:
                asking = [made.verify(request_for(user=f"user{number}")) for number in range(20)]
                await asyncio.gather(*asking)

        expected = [b'saslauthd LOGIN "user%d" "pw"\r\n' % number for number in range(20)]
        assert await server.all_heard() == [login + LOGOUT for login in expected]

    async def test_who_waits_too_long_says_for_what(self) -> None:
        with imap_server(GREETING, SILENCE) as server:
            async with backend(server.port, connections=1) as made:
                first = asyncio.create_task(made.verify(request_for()))
                await eventually(lambda: server.heard == [LOGIN], "LOGIN")
                second = asyncio.create_task(made.verify(request_for()))
                await asyncio.sleep(0)

                notes = await note_of(second)
                await note_of(first)

        assert notes == [f"while waiting for one of 1 connections to {HERE}:{server.port}"]

    @pytest.mark.parametrize(
        "script",
        [
            pytest.param([HANG_UP], id="hangs-up"),
            pytest.param([b"garbage\r\n", SILENCE], id="garbage"),
            pytest.param([GREETING, HEAR, RESET], id="reset"),
            pytest.param([GREETING, HEAR, OK], id="yes"),
            pytest.param([SILENCE], id="silence"),
        ],
    )
    async def test_none_is_lost(self, script: list[Act]) -> None:
        with imap_server(*script) as server:
            async with backend(server.port, connections=1, patience=SHORT) as made:
                for _ in range(4):
                    await made.verify(request_for())

                await eventually(lambda: len(server.heard) == 4, "four connections")

    async def test_none_is_lost_where_nobody_listens(self) -> None:
        async with backend(free_port(), connections=1) as made:
            results = [await made.verify(request_for()) for _ in range(4)]

        assert all(isinstance(result, Unavailable) for result in results)

    async def test_a_goodbye_counts(self) -> None:
        gate = threading.Event()
        with imap_server(GREETING, HEAR, OK, HEAR, gate) as server:
            async with backend(server.port, connections=1) as made:
                await made.verify(request_for())
                second = asyncio.create_task(made.verify(request_for()))
                await eventually(lambda: server.heard[0].endswith(LOGOUT), "LOGOUT")
                finished, _ = await asyncio.wait({second}, timeout=SHORT)
                most = len(server.heard)
                gate.set()

                assert isinstance(await second, Accepted)

        assert finished == set()
        assert most == 1

    async def test_a_goodbye_without_an_end_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rimap, "GOODBYE", SHORT)
        with imap_server(GREETING, HEAR, OK, SILENCE) as server:
            async with backend(server.port, connections=1) as made:
                first = await made.verify(request_for())
                second = await made.verify(request_for())

        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert await server.all_heard() == [LOGIN + LOGOUT] * 2

    async def test_to_close_is_to_wait_for_goodbyes(self) -> None:
        gate = threading.Event()
        with imap_server(GREETING, HEAR, OK, gate) as server:
            async with backend(server.port) as made:
                await made.verify(request_for())
                closing = asyncio.create_task(made.close())
                finished, _ = await asyncio.wait({closing}, timeout=SHORT)
                gate.set()
                await closing

        assert finished == set()


PASSWORD = b'S3cr"et'


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(b'BAD unknown command: LOGIN joe S3cr"et\r\n', id="plain"),
        pytest.param(b'saslauthd BAD LOGIN "joe" "S3cr\\"et"\r\n', id="quoted"),
        pytest.param(b'saslauthd NO [UNAVAILABLE] LOGIN "joe" "S3cr\r\n', id="cut"),
        pytest.param(b'* BYE LOGIN JOE S3CR"ET\r\n', id="upper-case"),
    ],
)
async def test_an_outage_repeats_no_password(echo: bytes) -> None:
    with imap_server(GREETING, HEAR, echo) as server:
        problem = await problem_of(server.port, PASSWORD)

    assert "s3c" not in problem.lower()
    assert problem.endswith(": (not shown: it may repeat the password)")


async def test_what_cannot_be_asked_is_an_outage() -> None:
    async with backend(free_port()) as made:
        result = await made.verify(request_for(b"p\0w"))

    assert result == Unavailable("IMAP carries no NUL byte", "rimap")


@pytest.mark.usefixtures("seen_logs")
class TestTheLog:
    async def lines(self, caplog: pytest.LogCaptureFixture, level: int, answer: bytes) -> list[str]:
        """Return what is logged from *level* on when LOGIN is answered so."""
        caplog.set_level(level, "pysaslauthd.backends.rimap")
        with imap_server(GREETING, HEAR, answer) as server:
            await ask(server.port, PASSWORD)
        return [record.message for record in caplog.records if "rimap" in record.name]

    async def test_has_what_the_server_says_to_a_refusal(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        lines = await self.lines(caplog, logging.DEBUG, b"saslauthd NO go away\r\n")

        assert lines == ["auth_rimap: 'joe': saslauthd NO go away"]

    async def test_has_an_alert_in_any_case(self, caplog: pytest.LogCaptureFixture) -> None:
        lines = await self.lines(caplog, logging.INFO, b"saslauthd NO [ALERT] use the web\r\n")

        assert lines == ["auth_rimap: 'joe': saslauthd NO [ALERT] use the web"]

    async def test_has_no_password(self, caplog: pytest.LogCaptureFixture) -> None:
        lines = await self.lines(caplog, logging.DEBUG, b"saslauthd NO not " + PASSWORD + b"\r\n")

        assert lines == ["auth_rimap: 'joe': (not shown: it may repeat the password)"]

    @pytest.mark.parametrize("answer", [OK, b"saslauthd NO go away\r\n"], ids=["yes", "no"])
    async def test_has_nothing_else(self, caplog: pytest.LogCaptureFixture, answer: bytes) -> None:
        assert await self.lines(caplog, logging.INFO, answer) == []


class TestStartTls:
    @pytest.fixture
    def script(self) -> list[Act]:
        return [BARE_GREETING, HEAR, GO_AHEAD, START_TLS, HEAR, CAPABLE, HEAR, OK]

    async def test_all_that_matters_is_said_under_tls(
        self, script: list[Act], certificate: Certificate, context: ssl.SSLContext
    ) -> None:
        with imap_server(*script, certificate=certificate) as server:
            async with backend(server.port, STARTTLS, context) as made:
                result = await made.verify(request_for())

            heard = await server.all_heard()

        assert isinstance(result, Accepted)
        assert heard == [
            STARTS_TLS + b"saslauthd2 CAPABILITY\r\n" + LOGIN + LOGOUT,
        ]

    async def test_what_comes_before_tls_does_not_count(
        self, certificate: Certificate, context: ssl.SSLContext
    ) -> None:
        script: list[Act] = [BARE_GREETING, HEAR, GO_AHEAD + CAPABLE, START_TLS]
        with imap_server(*script, certificate=certificate) as server:
            async with backend(server.port, STARTTLS, context) as made:
                result = await made.verify(request_for())

            heard = await server.all_heard()

        assert isinstance(result, Unavailable)
        assert "went on unencrypted" in result.detail
        assert heard == [STARTS_TLS]

    @pytest.mark.parametrize(
        ("script", "problem"),
        [
            pytest.param(
                [BARE_GREETING, HEAR, b"saslauthd1 BAD what?\r\n"],
                "it answered BAD to STARTTLS: saslauthd1 BAD what?",
                id="bad",
            ),
            pytest.param(
                [BARE_GREETING, HEAR, HANG_UP], "it hung up before its answer to STARTTLS", id="end"
            ),
            pytest.param(
                [BARE_GREETING, HEAR, GO_AHEAD, READ, HANG_UP], "hung up", id="end-of-tls"
            ),
            pytest.param(
                [BARE_GREETING, HEAR, GO_AHEAD, READ, b"* OK I do not speak it\r\n" * 100],
                "it does not speak TLS there",
                id="no-tls",
            ),
            pytest.param(
                [BARE_GREETING, HEAR, SILENCE],
                f"no answer to STARTTLS within {PATIENCE} s",
                id="mute",
            ),
            pytest.param(
                [BARE_GREETING, HEAR, GO_AHEAD, SILENCE],
                f"no TLS within {PATIENCE} s",
                id="mute-tls",
            ),
        ],
    )
    async def test_without_it_no_password_is_sent(
        self, context: ssl.SSLContext, script: list[Act], problem: str
    ) -> None:
        with imap_server(*script) as server:
            async with backend(server.port, STARTTLS, context, patience=PATIENCE) as made:
                result = await made.verify(request_for(PASSWORD))

            heard = await server.all_heard()

        assert isinstance(result, Unavailable)
        assert problem in result.detail
        assert b"S3cr" not in heard[0]

    async def test_a_certificate_that_is_not_known_is_refused(
        self, script: list[Act], certificate: Certificate
    ) -> None:
        with imap_server(*script, certificate=certificate) as server:
            async with backend(server.port, STARTTLS, make_context(TlsRules())) as made:
                result = await made.verify(request_for())

            heard = await server.all_heard()

        assert isinstance(result, Unavailable)
        assert "its certificate is signed by an authority that is not known" in result.detail
        assert heard == [STARTS_TLS]

    async def test_cancelled_it_says_what_it_was_waiting_for(self, context: ssl.SSLContext) -> None:
        before = count_descriptors()
        with imap_server(BARE_GREETING, HEAR, GO_AHEAD, SILENCE) as server:
            async with backend(server.port, STARTTLS, context, connections=1) as made:
                asking = asyncio.create_task(made.verify(request_for()))
                await eventually(lambda: len(server.heard) == 1, "a connection")
                await eventually(lambda: len(server.heard[0]) > len(GO_AHEAD), "a TLS hello")

                notes = await note_of(asking)

                await eventually(lambda: not any(server.is_open), "end of the connection")
            port = server.port

        assert notes == [f"while waiting for TLS with {HERE}:{port}"]
        await eventually(lambda: count_descriptors() <= before, "closed descriptors")

    async def test_none_of_the_connections_is_lost(self, context: ssl.SSLContext) -> None:
        with imap_server(BARE_GREETING, HEAR, GO_AHEAD, HANG_UP) as server:
            async with backend(server.port, STARTTLS, context, connections=1) as made:
                results = [await made.verify(request_for()) for _ in range(4)]

        assert all(isinstance(result, Unavailable) for result in results)


class TestTls:
    async def test_it_logs_out(self, certificate: Certificate, context: ssl.SSLContext) -> None:
        with imap_server(START_TLS, GREETING, HEAR, OK, certificate=certificate) as server:
            async with backend(server.port, TLS, context, connections=1) as made:
                results = [await made.verify(request_for()) for _ in range(3)]

            heard = await server.all_heard()

        assert all(isinstance(result, Accepted) for result in results)
        assert heard == [LOGIN + LOGOUT] * 3

    @pytest.mark.parametrize(
        ("script", "problem"),
        [
            pytest.param([START_TLS, HANG_UP], "before its greeting", id="hangs-up"),
            pytest.param(
                [START_TLS, GREETING, HEAR, HANG_UP], "before its answer to LOGIN", id="later"
            ),
            pytest.param(
                [START_TLS, GREETING, HEAR, RESET], "before its answer to LOGIN", id="reset"
            ),
            pytest.param([START_TLS, SILENCE], f"no greeting within {PATIENCE} s", id="mute"),
            pytest.param([SILENCE], f"no connection within {PATIENCE} s", id="no-tls"),
        ],
    )
    async def test_an_outage_names_its_cause(
        self,
        certificate: Certificate,
        context: ssl.SSLContext,
        script: list[Act],
        problem: str,
    ) -> None:
        before = count_descriptors()
        with imap_server(*script, certificate=certificate) as server:
            async with backend(server.port, TLS, context, patience=PATIENCE, connections=1) as made:
                results = [await made.verify(request_for()) for _ in range(2)]

        assert all(isinstance(one, Unavailable) and problem in one.detail for one in results)
        await eventually(lambda: count_descriptors() <= before, "closed descriptors")

    async def test_a_goodbye_without_an_end_is_ended(
        self,
        certificate: Certificate,
        context: ssl.SSLContext,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(rimap, "GOODBYE", SHORT)
        script: list[Act] = [START_TLS, GREETING, HEAR, OK, SILENCE]
        with imap_server(*script, certificate=certificate) as server:
            async with backend(server.port, TLS, context, connections=1) as made:
                results = [await made.verify(request_for()) for _ in range(2)]

        assert all(isinstance(result, Accepted) for result in results)
