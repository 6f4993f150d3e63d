"""The httpform backend and nginx: its answers, kept connections, TLS, and its own outages."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd.backends.httpform import Httpform
from pysaslauthd.model import Accepted, AuthResult, Rejected, Unavailable
from pysaslauthd.remote.tls import TlsRules
from tests.contract.verifier import request_for
from tests.helpers.certificates import Authority
from tests.helpers.nginx import Nginx, nginx
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.web import backend

pytestmark = pytest.mark.interop("nginx")

PASSWORD = "p&w=ä%".encode()
RIGHT = "user=joe&password=p%26w%3D%C3%A4%25&realm=r"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory("sd-") as made:
        yield made


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, place: Path, authority: Authority) -> Iterator[Nginx]:
    certificate = authority.issue() if request.param == "https" else None
    with nginx(place, RIGHT, certificate) as made:
        yield made


@pytest.fixture
def tls(request: pytest.FixtureRequest, authority: Authority) -> TlsRules | None:
    secured = request.node.callspec.params["server"] == "https"
    return TlsRules(ca_file=str(authority.file)) if secured else None


async def ask(subject: Httpform, password: bytes = PASSWORD) -> AuthResult:
    async with asyncio.timeout(DEADLINE):
        return await subject.verify(request_for("joe", password))


async def test_it_says_yes_to_the_right_form_and_no_to_any_other(
    server: Nginx, tls: TlsRules | None
) -> None:
    async with backend(server.port, tls=tls) as subject:
        results = [await ask(subject, password) for password in (PASSWORD, b"wrong", PASSWORD)]

    assert [type(result) for result in results] == [Accepted, Rejected, Accepted]


async def test_many_questions_share_few_connections(server: Nginx, tls: TlsRules | None) -> None:
    """And nginx ends each of them after ten requests, which costs no answer."""
    async with backend(server.port, tls=tls, connections=4) as subject:
        passwords = [PASSWORD, b"wrong"] * 100
        results = await asyncio.gather(*(ask(subject, password) for password in passwords))

    assert [type(result) for result in results] == [Accepted, Rejected] * 100
    assert len(set(server.connections())) <= 20 + 4


@pytest.mark.parametrize(
    ("uri", "answer"),
    [
        ("/moved", "301 Moved Permanently"),
        ("/nowhere", "404 Not Found"),
        ("/throttled", "429 Too Many Requests"),
        ("/down", "502 Bad Gateway"),
    ],
)
async def test_what_is_neither_yes_nor_no_is_an_outage(
    server: Nginx, tls: TlsRules | None, uri: str, answer: str
) -> None:
    async with backend(server.port, tls=tls, uri=uri) as subject:
        result = await ask(subject)

    assert isinstance(result, Unavailable)
    assert result.detail.endswith(f": neither yes nor no: {answer}")
