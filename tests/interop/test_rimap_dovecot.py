"""The backend that asks an IMAP server, with a real Dovecot."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pysaslauthd.backends import rimap
from pysaslauthd.backends.rimap import Rimap
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.tls import TlsRules, make_context
from tests.helpers.certificates import Authority
from tests.helpers.dovecot import Dovecot, dovecot
from tests.helpers.processes import DEADLINE
from tests.helpers.workers import eventually

pytestmark = [pytest.mark.interop("dovecot"), pytest.mark.usefixtures("as_root")]

NONE, STARTTLS, TLS = Security
HERE, HERE_6 = "127.0.0.1", "::1"
# Dovecot takes who comes from the address that was called for secured, so this one is not.
ELSEWHERE = "127.0.0.2"

USERS = {
    "joe": b"pw",
    "ann lee": b" two words ",
    "zoë": "pässwörd €".encode(),
    'quo"te\\': b'"\\"',
    "latin": b"caf\xe9",
    "braces": b"{3}",
    "tab": b"a\x7fb",
    "long": b"x" * 900,
    "token": b"x" * 4000,
}
INJECTION = b"x\r\nsaslauthd LOGOUT"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return make_context(TlsRules(ca_file=str(authority.file)))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Dovecot]:
    with dovecot(USERS, authority.issue()) as running:
        yield running


@asynccontextmanager
async def backend(
    server: Dovecot,
    security: Security = NONE,
    context: ssl.SSLContext | None = None,
    host: str = HERE,
) -> AsyncIterator[Rimap]:
    port = server.tls_port if security is TLS else server.port
    made = Rimap(Connector(Endpoint(host, port, security), context, DEADLINE), DEADLINE, 10)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def request_for(user: str, password: bytes) -> AuthRequest:
    return AuthRequest(user, Secret(password), "", Origin("imap"), 0.0)


async def ask(
    server: Dovecot,
    security: Security = NONE,
    context: ssl.SSLContext | None = None,
    host: str = HERE,
    user: str = "joe",
    password: bytes = b"pw",
) -> AuthResult:
    async with backend(server, security, context, host) as made:
        return await made.verify(request_for(user, password))


@pytest.mark.parametrize("host", [HERE, HERE_6, "localhost"])
@pytest.mark.parametrize("security", Security)
class TestEachWay:
    async def test_lets_in(
        self, server: Dovecot, context: ssl.SSLContext, security: Security, host: str
    ) -> None:
        assert isinstance(await ask(server, security, context, host), Accepted)

    async def test_keeps_out(
        self, server: Dovecot, context: ssl.SSLContext, security: Security, host: str
    ) -> None:
        result = await ask(server, security, context, host, password=b"wrong")

        assert isinstance(result, Rejected)


async def verdicts(
    server: Dovecot,
    suffix: bytes = b"",
    security: Security = NONE,
    context: ssl.SSLContext | None = None,
) -> dict[str, type[AuthResult]]:
    """Return what the server says to all users at once, whose passwords have that *suffix*."""
    requests = [request_for(user, password + suffix) for user, password in USERS.items()]
    async with backend(server, security, context) as made:
        results = await asyncio.gather(*map(made.verify, requests))
    return dict(zip(USERS, map(type, results), strict=True))


@pytest.mark.parametrize("security", [NONE, STARTTLS])
async def test_any_password_arrives(
    server: Dovecot, context: ssl.SSLContext, security: Security
) -> None:
    right = await verdicts(server, security=security, context=context)
    wrong = await verdicts(server, b"x", security, context)

    assert right == dict.fromkeys(USERS, Accepted)
    assert wrong == dict.fromkeys(USERS, Rejected)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("IMAP4rev1", id="literals-that-wait"),
        pytest.param("IMAP4rev1 LITERAL-", id="LITERAL-"),
        pytest.param("IMAP4rev1 LOGINDISABLED", id="AUTHENTICATE"),
        pytest.param("IMAP4rev1 LOGINDISABLED SASL-IR", id="SASL-IR"),
    ],
)
def limited(request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    """Return a Dovecot that offers less."""
    with dovecot(USERS, settings=f"imap_capability = {request.param}\n") as running:
        yield running


async def test_any_password_arrives_by_other_ways(limited: Dovecot) -> None:
    assert await verdicts(limited) == dict.fromkeys(USERS, Accepted)
    assert await verdicts(limited, b"x") == dict.fromkeys(USERS, Rejected)


@pytest.mark.parametrize(
    ("user", "password"), [("joe", INJECTION), ("joe", b"pw\r\n"), ("joe", b"pw\n"), ("joe", b"\r")]
)
async def test_the_end_of_a_line_injects_nothing(
    server: Dovecot, user: str, password: bytes
) -> None:
    before = server.log().count("password having illegal chars")

    result = await ask(server, user=user, password=password)

    assert isinstance(result, Rejected)
    await eventually(
        lambda: server.log().count("password having illegal chars") == before + 1, "a complaint"
    )


async def test_it_logs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rimap, "GOODBYE", DEADLINE)  # a server that has just started is slow
    with dovecot(USERS) as server:
        async with backend(server) as made:
            for _ in range(3):
                await made.verify(request_for("joe", b"pw"))

        await eventually(
            lambda: server.log().count("Disconnected: Logged out") == 3, "three goodbyes"
        )


async def test_a_hundred_at_once_are_answered_each_for_itself(server: Dovecot) -> None:
    requests = [request_for("joe", b"pw" if number % 10 else b"no") for number in range(100)]

    async with backend(server) as made:
        results = await asyncio.gather(*map(made.verify, requests))

    expected = [Accepted if number % 10 else Rejected for number in range(100)]
    assert [type(result) for result in results] == expected


@pytest.fixture(scope="module")
def strict(authority: Authority) -> Iterator[Dovecot]:
    certificate = authority.issue([ELSEWHERE])
    with dovecot(USERS, certificate, f"listen = {HERE}, {ELSEWHERE}\n") as running:
        yield running


class TestWithoutPlaintext:
    """Dovecot's default: passwords of others go by TLS only."""

    async def test_no_password_is_sent_in_clear(self, strict: Dovecot) -> None:
        result = await ask(strict, host=ELSEWHERE)

        assert isinstance(result, Unavailable)
        assert "LOGINDISABLED" in result.detail
        assert "Plaintext authentication" not in strict.log()

    @pytest.mark.parametrize("security", [STARTTLS, TLS])
    async def test_with_tls_it_is(
        self, strict: Dovecot, context: ssl.SSLContext, security: Security
    ) -> None:
        assert isinstance(await ask(strict, security, context, ELSEWHERE), Accepted)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((Authority.issue_expired, "has expired"), id="expired"),
        pytest.param((Authority.issue_for_others, "is not for that address"), id="another-name"),
    ],
)
def faulty(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[Dovecot, str]]:
    """Return a Dovecot with a bad certificate, and what is wrong with that."""
    issue, fault = request.param
    with dovecot(USERS, issue(authority)) as running:
        yield running, fault


@pytest.mark.parametrize("security", [STARTTLS, TLS])
class TestCertificates:
    async def test_a_bad_one_is_an_outage_that_names_its_fault(
        self, faulty: tuple[Dovecot, str], context: ssl.SSLContext, security: Security
    ) -> None:
        server, fault = faulty

        result = await ask(server, security, context)

        assert isinstance(result, Unavailable)
        assert f"its certificate {fault}" in result.detail
        assert f"{HERE}:" in result.detail

    async def test_so_is_one_of_an_authority_nobody_knows(
        self, server: Dovecot, tmp_path: Path, security: Security
    ) -> None:
        stranger = make_context(TlsRules(ca_file=str(Authority(tmp_path, "stranger").file)))

        result = await ask(server, security, stranger)

        assert isinstance(result, Unavailable)
        assert "its certificate is signed by" in result.detail

    async def test_where_none_is_checked_any_will_do(
        self, faulty: tuple[Dovecot, str], security: Security
    ) -> None:
        server, _ = faulty

        result = await ask(server, security, make_context(TlsRules(check_peer=False)))

        assert isinstance(result, Accepted)


@pytest.mark.parametrize(
    ("security", "problem"),
    [
        pytest.param(STARTTLS, "it answered BAD to STARTTLS", id="starttls"),
        pytest.param(TLS, "Connection refused", id="imaps"),
    ],
)
async def test_a_server_without_tls_is_an_outage(
    limited: Dovecot, context: ssl.SSLContext, security: Security, problem: str
) -> None:
    result = await ask(limited, security, context)

    assert isinstance(result, Unavailable)
    assert problem in result.detail


class TestOutages:
    @pytest.fixture
    def own(self) -> Iterator[Dovecot]:
        with dovecot(USERS) as running:
            yield running

    async def test_a_server_that_is_gone_is_one_until_it_is_back(self, own: Dovecot) -> None:
        async with backend(own) as made:
            before = await made.verify(request_for("joe", b"pw"))
            own.stop()
            meanwhile = await made.verify(request_for("joe", b"pw"))
            own.start()
            after = await made.verify(request_for("joe", b"pw"))

        assert isinstance(before, Accepted)
        assert isinstance(meanwhile, Unavailable)
        assert "Connection refused" in meanwhile.detail
        assert isinstance(after, Accepted)

    async def test_a_server_that_cannot_look_users_up_is_one(self, own: Dovecot) -> None:
        own.users.unlink()
        own.users.touch(mode=0)

        result = await ask(own)

        assert isinstance(result, Unavailable)
        assert "it answered NO (UNAVAILABLE) to LOGIN" in result.detail
