"""The httpform backend and web servers that do what web servers do: requests, TLS, restarts."""

import asyncio
import logging
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp.client_proto import ResponseHandler

from pysaslauthd.backends.httpform import Httpform
from pysaslauthd.model import Accepted, AuthResult, Rejected, Secret, Unavailable
from pysaslauthd.remote.connect import Connector, P
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.tls import TlsRules, make_context
from tests.contract.verifier import request_for
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.daemon import environment
from tests.helpers.peers import presenting
from tests.helpers.processes import DEADLINE, free_port
from tests.helpers.web import (
    DATA,
    LOOPBACK,
    NO,
    URI,
    YES,
    FormServer,
    Peer,
    answering,
    backend,
    form_server,
    held_server,
    scripted,
)

ACCEPTED = Accepted("joe", "httpform", "remote authentication successful")


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither aiohttp nor the event loop complains of anything that was not looked after."""
    yield
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.fixture(scope="module")
def server() -> Iterator[FormServer]:
    with form_server() as made:
        yield made


async def ask(subject: Httpform, password: bytes = b"pw", user: str = "joe") -> AuthResult:
    async with asyncio.timeout(DEADLINE):
        return await subject.verify(request_for(user, password))


class TestRequests:
    async def test_a_request_is_the_c_daemons_but_that_connections_are_kept(self) -> None:
        async with scripted(answering(YES)) as web, backend(web.port) as subject:
            await subject.verify(request_for("j@e", b"p&w", realm="r"))

            head, _, body = web.requests[0].partition(b"\r\n\r\n")
            first, *fields = head.decode().split("\r\n")
            assert first == "POST /login HTTP/1.1"
            assert sorted(fields) == [
                "Accept: */*",
                "Content-Length: 33",
                "Content-Type: application/x-www-form-urlencoded",
                f"Host: {LOOPBACK}:{web.port}",
                "User-Agent: saslauthd",
            ]
            assert body == b"user=j%40e&password=p%26w&realm=r"

    @pytest.mark.parametrize(
        "uri", ["/", "/a/../b", "//x", "/a?", "/a?b=%7e&c", "/%zz", "/#a", "/ä"]
    )
    async def test_the_uri_is_sent_as_it_is(self, uri: str) -> None:
        async with scripted(answering(YES)) as web, backend(web.port, uri=uri) as subject:
            await ask(subject)

            assert web.requests[0].startswith(f"POST {uri} HTTP/1.1\r\n".encode())

    async def test_a_long_form_arrives_whole(self, server: FormServer) -> None:
        password = b"\xff&" * 4096

        async with backend(server.port) as subject:
            result = await ask(subject, password)

        assert isinstance(result, Rejected)
        assert server.forms[-1]["password"].encode("latin-1") == password

    async def test_no_proxy_is_asked(
        self, server: FormServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://{LOOPBACK}:{free_port()}")

        async with backend(server.port) as subject:
            assert await ask(subject) == ACCEPTED

    async def test_no_file_of_passwords_is_read(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".netrc").write_text(f"machine {LOOPBACK} login a password b\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

        async with scripted(answering(YES)) as web, backend(web.port) as subject:
            await ask(subject)

            assert b"authorization" not in web.requests[0].lower()

    async def test_no_cookie_is_kept(self) -> None:
        cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: joe=in; Path=/\r\nContent-Length: 0\r\n\r\n"

        async with (
            scripted(answering(cookie, NO)) as web,
            backend(web.port, "localhost") as subject,
        ):
            await ask(subject)
            await ask(subject)

            assert b"cookie" not in web.requests[1].lower()

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirection_is_not_followed(self, status: int) -> None:
        elsewhere = (
            b"HTTP/1.1 %d Over there\r\nLocation: /yes\r\nContent-Length: 0\r\n\r\n" % status
        )

        async with scripted(answering(elsewhere, YES)) as web, backend(web.port) as subject:
            result = await ask(subject)

            assert result == Unavailable(
                f"{LOOPBACK}:{web.port}: neither yes nor no: {status} Over there", "httpform"
            )
            assert len(web.requests) == 1


class TestWhereItIs:
    async def test_it_may_be_an_ipv6_address(self) -> None:
        with form_server("::1") as server:
            async with backend(server.port, "::1") as subject:
                assert await ask(subject) == ACCEPTED

    async def test_its_address_is_named_in_brackets(self) -> None:
        async with scripted(answering(YES), "::1") as web, backend(web.port, "::1") as subject:
            await ask(subject)

            assert f"\r\nHost: [::1]:{web.port}\r\n".encode() in web.requests[0]

    async def test_it_may_be_a_name(self, server: FormServer) -> None:
        async with backend(server.port, "localhost") as subject:
            assert await ask(subject) == ACCEPTED

    async def test_a_name_that_nobody_knows_is_an_outage(self) -> None:
        async with backend(80, "nobody-here.invalid") as subject:
            result = await ask(subject)

        assert isinstance(result, Unavailable)
        assert result.detail.startswith("nobody-here.invalid: ")

    async def test_one_that_is_down_is_an_outage_until_it_is_up(self) -> None:
        port = free_port()

        async with backend(port) as subject:
            before = await ask(subject)
            with form_server(port=port):
                after = await ask(subject)

        assert before == Unavailable(f"{LOOPBACK}:{port}: Connection refused", "httpform")
        assert after == ACCEPTED


class TestConnections:
    async def test_one_is_kept_for_the_next_request(self) -> None:
        async with scripted(answering(YES, NO, YES)) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(3)]

            assert [type(result) for result in results] == [Accepted, Rejected, Accepted]
            assert web.connections == 1

    async def test_with_few_of_them_many_requests_wait_their_turn(self) -> None:
        async def handle(peer: Peer) -> None:
            while request := await peer.request():
                await peer.send(YES if b"=pw&" in request else NO)

        async with scripted(handle) as web, backend(web.port, connections=3) as subject:
            passwords = [b"pw", b"no"] * 100
            results = await asyncio.gather(*(ask(subject, password) for password in passwords))

            assert [type(result) for result in results] == [Accepted, Rejected] * 100
            assert web.most_at_once == 3

    async def test_they_end_with_the_backend(self) -> None:
        left = asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(YES)
            await peer.leaving()
            left.set()

        async with scripted(handle) as web:
            async with backend(web.port) as subject:
                await ask(subject)
                still_there = not left.is_set()

            async with asyncio.timeout(DEADLINE):
                await left.wait()
            assert still_there

    async def test_a_backend_that_was_asked_nothing_has_none_to_end(self) -> None:
        async with scripted(answering(YES)) as web:
            async with backend(web.port):
                pass

            assert web.connections == 0

    async def test_a_server_that_was_restarted_costs_no_request(self) -> None:
        port = free_port()

        async with backend(port) as subject:
            with form_server(port=port):
                before = await ask(subject)
            with form_server(port=port):
                after = await ask(subject)

        assert (before, after) == (ACCEPTED, ACCEPTED)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.issue()


@pytest.fixture
def trusting(authority: Authority) -> TlsRules:
    return TlsRules(ca_file=str(authority.file))


async def asked_by_tls(
    context: ssl.SSLContext, rules: TlsRules, host: str = LOOPBACK
) -> AuthResult:
    """Ask a server that has *context*."""
    with form_server(tls=context) as server:
        async with backend(server.port, host, tls=rules) as subject:
            return await ask(subject)


class Slow(Connector):
    """Holds the event loop until the server has said something after it was connected."""

    async def connect(self, make: Callable[[], P]) -> P:
        connected = await super().connect(make)
        assert isinstance(connected, ResponseHandler)
        assert connected.transport is not None
        connection = connected.transport.get_extra_info("socket")
        assert select.select([connection], [], [], DEADLINE)[0]
        return connected


class TestTls:
    @pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
    async def test_a_server_with_the_right_certificate_is_asked(
        self, good: Certificate, trusting: TlsRules, host: str
    ) -> None:
        assert await asked_by_tls(presenting(good), trusting, host) == ACCEPTED

    async def test_what_it_says_counts(self, good: Certificate, trusting: TlsRules) -> None:
        with form_server(tls=presenting(good)) as server:
            async with backend(server.port, tls=trusting) as subject:
                assert isinstance(await ask(subject, b"wrong"), Rejected)
                assert await ask(subject) == ACCEPTED

    @pytest.mark.parametrize(
        ("issue", "fault"),
        [
            pytest.param(
                Authority.issue_expired,
                "its certificate has expired, or its authority's has",
                id="expired",
            ),
            pytest.param(
                Authority.issue_for_others,
                "its certificate is not for that address: set a name or address that is in the"
                " certificate",
                id="other-name",
            ),
        ],
    )
    async def test_a_wrong_certificate_is_an_outage_that_says_what_is_wrong(
        self,
        authority: Authority,
        trusting: TlsRules,
        issue: Callable[[Authority], Certificate],
        fault: str,
    ) -> None:
        result = await asked_by_tls(presenting(issue(authority)), trusting)

        assert isinstance(result, Unavailable)
        assert result.detail.endswith(f": {fault}")

    async def test_so_is_one_of_an_authority_that_is_not_known(
        self, tmp_path: Path, trusting: TlsRules
    ) -> None:
        stranger = Authority(tmp_path, "stranger").issue()

        result = await asked_by_tls(presenting(stranger), trusting)

        assert isinstance(result, Unavailable)
        assert "signed by an authority that is not known here" in result.detail

    async def test_any_will_do_where_none_is_looked_at(self, authority: Authority) -> None:
        context = presenting(authority.issue_expired())

        assert await asked_by_tls(context, TlsRules(check_peer=False)) == ACCEPTED

    async def test_old_tls_is_refused(self, good: Certificate, trusting: TlsRules) -> None:
        context = presenting(good)
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        result = await asked_by_tls(context, trusting._replace(minimum="1.3"))

        assert isinstance(result, Unavailable)
        assert "it speaks no TLS as new as tls_minimum" in result.detail

    async def test_a_server_that_wants_a_certificate_gets_ours(
        self, authority: Authority, good: Certificate, trusting: TlsRules
    ) -> None:
        context = presenting(good)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
        own = authority.issue_for_client()
        identity = Secret(own.certificate.read_bytes() + own.key.read_bytes())

        assert await asked_by_tls(context, trusting._replace(identity=identity)) == ACCEPTED

    async def test_without_one_that_is_the_outage(
        self, authority: Authority, good: Certificate, trusting: TlsRules
    ) -> None:
        context = presenting(good)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)

        def refuse(connection: socket.socket) -> socket.socket:
            secured = context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            with pytest.raises(ssl.SSLError):
                secured.do_handshake()
            return secured

        with held_server(refuse) as port:
            async with backend(port, tls=trusting) as subject:
                result = await ask(subject)

        assert result == Unavailable(
            f"{LOOPBACK}:{port}: it wants a certificate of ours: tls_cert, tls_key", "httpform"
        )

    async def test_what_tls_says_after_its_beginning_is_no_answer(
        self, good: Certificate, trusting: TlsRules
    ) -> None:
        with form_server(tls=presenting(good)) as server:
            endpoint = Endpoint(LOOPBACK, server.port, Security.TLS)
            subject = Httpform(Slow(endpoint, make_context(trusting), 5.0), URI, DATA, 1)
            result = await ask(subject)
            await subject.close()

        assert result == ACCEPTED

    async def test_a_server_without_tls_is_an_outage(
        self, server: FormServer, trusting: TlsRules
    ) -> None:
        async with backend(server.port, tls=trusting) as subject:
            result = await ask(subject)

        assert isinstance(result, Unavailable)
        assert "it does not speak TLS there" in result.detail

    async def test_so_is_one_with_tls_that_is_asked_without(self, good: Certificate) -> None:
        with form_server(tls=presenting(good)) as server:
            async with backend(server.port) as subject:
                assert isinstance(await ask(subject), Unavailable)

    async def test_a_server_that_does_not_take_part_in_the_end_of_tls_holds_nobody(
        self, good: Certificate, trusting: TlsRules
    ) -> None:
        def say_yes(connection: socket.socket) -> socket.socket:
            secured = presenting(good).wrap_socket(connection, server_side=True)
            secured.recv(65_536)
            secured.sendall(YES)
            return secured

        with held_server(say_yes) as port:
            async with backend(port, tls=trusting) as subject:
                assert await ask(subject) == ACCEPTED
                async with asyncio.timeout(DEADLINE / 2):
                    await subject.close()


# Who has become another user may not be able to read what is not loaded yet.
WHAT_A_REQUEST_IMPORTS = """
import asyncio, sys
import msgspec
import pysaslauthd.app
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform
from pysaslauthd.plugins import find_mechanism
from tests.contract.verifier import request_for

plain, secure, closed, authority = sys.argv[1:]
form = "user=%u&password=%p&realm=%r"
up = Httpform(port=int(plain), uri="/login", data=form)
with_tls = msgspec.structs.replace(up, port=int(secure), tls=True, tls_cacert_file=authority)
down = msgspec.structs.replace(up, port=int(closed))

async def ask(table):
    settings = Settings(mechanism="httpform", httpform=table)
    backend = find_mechanism(settings).make(settings, None)
    await backend.open()
    for password in (b"pw", b"no"):
        print(type(await backend.verify(request_for("joe", password))).__name__)
    backend.retire()
    await backend.close()

find_mechanism(Settings(mechanism="httpform")).preload()
before = set(sys.modules)
for table in (up, with_tls, down):
    asyncio.run(ask(table))
print(*(set(sys.modules) - before))
"""


def test_a_request_imports_nothing_after_the_preload(
    server: FormServer, authority: Authority, good: Certificate
) -> None:
    with form_server(tls=presenting(good)) as secure:
        ports = [server.port, secure.port, free_port()]
        done = subprocess.run(
            [sys.executable, "-c", WHAT_A_REQUEST_IMPORTS, *map(str, ports), authority.file],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
            env=environment(),
        )

    assert done.stdout.split() == ["Accepted", "Rejected"] * 2 + ["Unavailable"] * 2
