"""TLS with real servers: whom it trusts, what it says of the others, and what it leaves behind."""

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.remote.connect import Connector, Unreachable, describe
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.resolver import Address, Resolver
from pysaslauthd.remote.tls import TlsRules, make_context
from tests.helpers.certificates import Authority, Certificate, issue_self_signed
from tests.helpers.peers import (
    Client,
    NameServer,
    Peer,
    Reply,
    be_silent,
    hang_up,
    peer,
    presenting,
    reset,
    say,
)
from tests.helpers.processes import DEADLINE, Server, free_port, short_directory
from tests.helpers.workers import count_descriptors, eventually

HERE = "127.0.0.1"
SLACK = 10.0  # seconds, for a machine that has other things to do
TURNS = range(1, 13)  # of the loop: more than a handshake takes
GO = b"go ahead\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue()


@pytest.fixture(scope="module")
def trusting(authority: Authority) -> TlsRules:
    return TlsRules(ca_file=str(authority.file))


@pytest.fixture
async def server(certificate: Certificate) -> AsyncIterator[Peer]:
    async with peer(tls=presenting(certificate)) as subject:
        yield subject


def connector(
    port: int,
    rules: TlsRules,
    name: str = HERE,
    hosts: tuple[str, ...] = (HERE,),
    patience: float = DEADLINE,
    security: Security = Security.TLS,
) -> Connector:
    """Return what connects to *name* by *rules*; its addresses are *hosts*."""
    names = NameServer([Address(socket.AF_INET, (host, port)) for host in hosts])
    resolver = Resolver(name, port, names)
    return Connector(Endpoint(name, port, security), make_context(rules), patience, resolver)


async def fault_of(subject: Connector) -> str:
    """Return what is said to be wrong, without the server's name."""
    with pytest.raises(Unreachable) as caught:
        await subject.connect(Client)
    return str(caught.value).removeprefix(f"{subject.endpoint}: ")


class TestTrust:
    async def test_a_server_with_a_good_certificate_is_spoken_to(
        self, server: Peer, trusting: TlsRules
    ) -> None:
        client = await connector(server.port, trusting).connect(Client)

        assert await client.ask(b"hello") == b"hello"
        assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"

    @pytest.mark.parametrize(
        ("name", "own"),
        [
            ("mail.example.org", "mail.example.org"),
            ("MAIL.example.ORG", "mail.example.org"),
            ("mail.example.org.", "mail.example.org"),
            ("mail.example.org", "*.example.org"),
            ("bücher.example.org", "xn--bcher-kva.example.org"),
            ("fe80::1%lo", "fe80::1"),
        ],
        ids=["name", "upper", "dot", "wildcard", "idna", "scope"],
    )
    async def test_a_certificate_is_for_the_name_however_it_is_written(
        self, authority: Authority, trusting: TlsRules, name: str, own: str
    ) -> None:
        async with peer(tls=presenting(authority.issue([own]))) as server:
            client = await connector(server.port, trusting, name).connect(Client)

            assert await client.ask(b"hello") == b"hello"

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_a_certificate_may_be_for_an_address(
        self, certificate: Certificate, trusting: TlsRules, host: str
    ) -> None:
        async with peer(host=host, tls=presenting(certificate)) as server:
            endpoint = Endpoint(host, server.port, Security.TLS)
            subject = Connector(endpoint, make_context(trusting), DEADLINE)
            client = await subject.connect(Client)

            assert await client.ask(b"hello") == b"hello"

    async def test_a_unix_sockets_certificate_is_for_its_host(
        self, certificate: Certificate, trusting: TlsRules
    ) -> None:
        with short_directory("sd-") as directory:
            path = directory / "s"
            async with peer(path=path, tls=presenting(certificate)):
                endpoint = Endpoint("localhost", 0, Security.TLS, str(path))
                subject = Connector(endpoint, make_context(trusting), DEADLINE)
                client = await subject.connect(Client)

                assert await client.ask(b"hello") == b"hello"

    @pytest.mark.interop("openssl")
    async def test_authorities_may_be_in_a_directory(
        self, authority: Authority, server: Peer, tmp_path: Path
    ) -> None:
        shutil.copy(authority.file, tmp_path)
        rehash(tmp_path)
        rules = TlsRules(ca_directory=str(tmp_path))

        client = await connector(server.port, rules).connect(Client)

        assert await client.ask(b"hello") == b"hello"

    async def test_a_directory_without_links_is_read_whole(
        self, authority: Authority, server: Peer, tmp_path: Path
    ) -> None:
        shutil.copy(authority.file, tmp_path)
        (tmp_path / "README").write_text("no certificate")
        (tmp_path / "more").mkdir()
        rules = TlsRules(ca_directory=str(tmp_path))

        client = await connector(server.port, rules).connect(Client)

        assert await client.ask(b"hello") == b"hello"

    async def test_a_server_that_is_signed_by_itself_is_trusted_by_name(
        self, tmp_path: Path
    ) -> None:
        own = issue_self_signed(tmp_path)
        async with peer(tls=presenting(own)) as server:
            rules = TlsRules(ca_file=str(own.certificate))
            client = await connector(server.port, rules).connect(Client)

            assert await client.ask(b"hello") == b"hello"

    async def test_without_the_check_anybody_is_trusted(self, authority: Authority) -> None:
        async with peer(tls=presenting(authority.issue_for_others())) as server:
            client = await connector(server.port, TlsRules(check_peer=False)).connect(Client)

            assert await client.ask(b"hello") == b"hello"


def rehash(directory: Path) -> None:
    """Make the links by which OpenSSL finds authorities in *directory*."""
    subprocess.run(["openssl", "rehash", directory], check=True, timeout=DEADLINE)


UNKNOWN = (
    "is signed by an authority that is not known here: name its file in tls_cacert_file,"
    " or have the server send the certificates between"
)


class TestDistrust:
    @pytest.mark.parametrize(
        ("issue", "fault"),
        [
            (Authority.issue_expired, "has expired, or its authority's has"),
            (
                Authority.issue_too_early,
                "is not valid yet, or its authority's is not: is the clock of this machine right?",
            ),
            (
                Authority.issue_for_others,
                "is not for that address: set a name or address that is in the certificate",
            ),
            (Authority.issue_for_client, "is not for servers"),
        ],
        ids=["expired", "too-early", "other-address", "client"],
    )
    async def test_a_faulty_certificate_is_refused_with_its_fault(
        self,
        authority: Authority,
        trusting: TlsRules,
        issue: Callable[[Authority], Certificate],
        fault: str,
    ) -> None:
        async with peer(tls=presenting(issue(authority))) as server:
            assert await fault_of(connector(server.port, trusting)) == f"its certificate {fault}"
            assert not server.connections

    async def test_another_name_is_refused(self, server: Peer, trusting: TlsRules) -> None:
        fault = await fault_of(connector(server.port, trusting, "mail.example.org"))

        assert fault == (
            f"{HERE}: its certificate is not for that name: set one that is in the certificate"
        )

    @pytest.mark.parametrize("name", [".", "%lo"])
    async def test_a_name_that_no_certificate_is_for_is_refused(
        self, server: Peer, trusting: TlsRules, name: str
    ) -> None:
        fault = await fault_of(connector(server.port, trusting, name))

        assert fault == "no certificate can be for such a name"

    async def test_an_unknown_authority_is_refused(self, server: Peer, tmp_path: Path) -> None:
        rules = TlsRules(ca_file=str(Authority(tmp_path, "another").file))

        assert await fault_of(connector(server.port, rules)) == f"its certificate {UNKNOWN}"

    async def test_an_authority_is_not_known_by_being_sent(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        rules = TlsRules(ca_file=str(Authority(tmp_path, "another").file))
        async with peer(tls=presenting(authority.issue_with_its_own())) as server:
            assert await fault_of(connector(server.port, rules)) == f"its certificate {UNKNOWN}"

    async def test_a_server_that_is_signed_by_itself_is_refused(
        self, trusting: TlsRules, tmp_path: Path
    ) -> None:
        async with peer(tls=presenting(issue_self_signed(tmp_path))) as server:
            assert await fault_of(connector(server.port, trusting)) == (
                "its certificate is signed by itself only:"
                " name it in tls_cacert_file if it is the right one"
            )

    async def test_what_openssl_finds_besides_is_told_in_its_words(
        self, authority: Authority, trusting: TlsRules
    ) -> None:
        weak = presenting(authority.issue_weak(), ciphers="DEFAULT@SECLEVEL=0")
        async with peer(tls=weak) as server:
            assert await fault_of(connector(server.port, trusting)) == (
                "its certificate cannot be trusted: EE certificate key too weak"
            )

    async def test_after_a_faulty_one_the_next_address_is_tried(
        self, authority: Authority, trusting: TlsRules
    ) -> None:
        expired, good = presenting(authority.issue_expired()), presenting(authority.issue())
        async with (
            peer(tls=expired) as server,
            peer(host="127.0.0.2", port=server.port, tls=good),
        ):
            subject = connector(server.port, trusting, "localhost", (HERE, "127.0.0.2"))
            client = await subject.connect(Client)

            assert await client.ask(b"hello") == b"hello"


class TestNoTls:
    async def test_a_server_that_greets_in_clear_speaks_none(self, trusting: TlsRules) -> None:
        async with peer(say(b"* OK ready\r\n")) as server:
            fault = await fault_of(connector(server.port, trusting))

            assert fault == "it does not speak TLS there"
            await eventually(lambda: not server.connections, "the connection's end")

    @pytest.mark.parametrize(
        ("leave", "fault"),
        [(hang_up, "it hung up"), (reset, "Connection reset by peer")],
        ids=["hang-up", "reset"],
    )
    async def test_a_server_that_leaves_is_told(
        self, trusting: TlsRules, leave: Reply, fault: str
    ) -> None:
        async with peer(leave) as server:
            told = await fault_of(connector(server.port, trusting))

            assert told == f"{fault} when TLS began: does it speak TLS there?"

    async def test_a_silent_server_has_its_share_of_the_time(self, trusting: TlsRules) -> None:
        async with peer(be_silent) as server:
            began = time.monotonic()
            fault = await fault_of(connector(server.port, trusting, patience=0.6))

            assert re.fullmatch(r"no connection within 0\.[0-6] s", fault)
            assert 0.6 <= time.monotonic() - began < 0.6 + SLACK
            await eventually(lambda: not server.connections, "the connection's end")

    @pytest.mark.interop("openssl")
    async def test_a_version_that_is_too_old_is_refused(
        self, certificate: Certificate, trusting: TlsRules
    ) -> None:
        async with openssl(certificate, "-tls1", "-cipher", "ALL:@SECLEVEL=0") as port:
            fault = await fault_of(connector(port, trusting))

            assert fault == "it speaks no TLS as new as tls_minimum"

    @pytest.mark.interop("openssl")
    async def test_the_oldest_version_is_a_rule(
        self, certificate: Certificate, trusting: TlsRules
    ) -> None:
        async with openssl(certificate, "-tls1_2") as port:
            fault = await fault_of(connector(port, trusting._replace(minimum="1.3")))
            client = await connector(port, trusting).connect(Client)

            assert fault == "it speaks no TLS as new as tls_minimum"
            assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.2"
            client.transport.abort()
            await client.end()


@pytest.mark.interop("openssl")
class TestOurCertificate:
    @pytest.fixture
    async def port(self, authority: Authority, certificate: Certificate) -> AsyncIterator[int]:
        async with openssl(certificate, *wanting_ours(authority), "-rev") as port:
            yield port

    async def test_it_is_shown_to_who_wants_it(
        self, authority: Authority, port: int, trusting: TlsRules
    ) -> None:
        rules = trusting._replace(identity=Secret(authority.issue_for_client().identity))
        client = await connector(port, rules).connect(Client)

        assert await client.ask(b"hello\n") == b"olleh\n"

    async def test_a_server_that_misses_it_says_so(self, port: int, trusting: TlsRules) -> None:
        client = await connector(port, trusting).connect(Client)

        assert words_for(await client.end()) == "it wants a certificate of ours: tls_cert, tls_key"

    async def test_a_server_that_does_not_know_its_authority_says_so(
        self, port: int, trusting: TlsRules, tmp_path: Path
    ) -> None:
        strange = Authority(tmp_path, "another").issue_for_client()
        rules = trusting._replace(identity=Secret(strange.identity))
        client = await connector(port, rules).connect(Client)

        assert words_for(await client.end()) == (
            "it does not know the authority of our certificate (tls_cert)"
        )

    async def test_an_older_server_that_misses_it_only_refuses(
        self, authority: Authority, certificate: Certificate, trusting: TlsRules
    ) -> None:
        async with openssl(certificate, *wanting_ours(authority), "-tls1_2") as port:
            assert await fault_of(connector(port, trusting)) == (
                "it refuses TLS: it may want a certificate of ours (tls_cert, tls_key),"
                " or other tls_ciphers"
            )


def wanting_ours(authority: Authority) -> list[str]:
    """Return what makes openssl's server want a certificate of *authority* from its clients."""
    return ["-Verify", "1", "-verify_return_error", "-CAfile", str(authority.file)]


def words_for(error: Exception | None) -> str:
    """Return what is said of a connection that has ended for *error*."""
    assert isinstance(error, OSError)
    return describe(error)


class TestWhoGivesUp:
    """Leaves nothing open, however far it has come."""

    @pytest.mark.parametrize("turns", TURNS)
    async def test_it_leaves_nothing_open(
        self, server: Peer, trusting: TlsRules, turns: int
    ) -> None:
        subject = connector(server.port, trusting)
        before = count_descriptors()

        await give_up_after(turns, subject.connect(Client))

        await eventually(lambda: count_descriptors() == before, "the end of both sides")
        assert not server.connections

    async def test_failures_leave_nothing_open_either(self, server: Peer, tmp_path: Path) -> None:
        rules = TlsRules(ca_file=str(Authority(tmp_path, "another").file))
        subject = connector(server.port, rules)
        await fault_of(subject)
        before = count_descriptors()

        for _ in range(5):
            await fault_of(subject)

        await eventually(lambda: count_descriptors() <= before, "the end of both sides")


async def give_up_after(turns: int, work: Coroutine[None, None, Client]) -> None:
    """Cancel *work* after so many turns of the loop; if it is done by then, hang up."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        task.result().transport.close()


class TestStartTls:
    """A dialogue in clear until the server says GO."""

    @pytest.fixture
    async def server(self, certificate: Certificate) -> AsyncIterator[Peer]:
        async with peer(upgrading(presenting(certificate))) as subject:
            yield subject

    async def test_what_follows_is_encrypted(self, server: Peer, trusting: TlsRules) -> None:
        subject, client = await greeted(server, trusting)

        client.transport = await subject.start_tls(client.transport, client)

        assert await client.ask(b"hello") == b"hello"
        assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"

    async def test_a_faulty_certificate_ends_the_connection(
        self, authority: Authority, trusting: TlsRules
    ) -> None:
        context = presenting(authority.issue_for_others())
        async with peer(upgrading(context)) as server:
            subject, client = await greeted(server, trusting)

            fault = await fault_of_upgrade(subject, client)

            assert fault == (
                "its certificate is not for that address: set a name or address that is in the"
                " certificate"
            )
            assert client.transport.is_closing()

    async def test_a_server_that_goes_on_in_clear_is_left(self, trusting: TlsRules) -> None:
        async with peer(say(GO)) as server:
            subject, client = await greeted(server, trusting)

            assert await fault_of_upgrade(subject, client) == "it does not speak TLS there"
            await eventually(lambda: not server.connections, "the connection's end")

    async def test_a_silent_server_is_left_in_time(self, trusting: TlsRules) -> None:
        async with peer(say_once(GO)) as server:
            subject, client = await greeted(server, trusting, patience=0.6)
            began = time.monotonic()

            assert await fault_of_upgrade(subject, client) == "no TLS within 0.6 s"
            assert 0.6 <= time.monotonic() - began < 0.6 + SLACK
            await eventually(lambda: not server.connections, "the connection's end")

    async def test_a_server_that_hangs_up_during_the_handshake_is_told(
        self, trusting: TlsRules
    ) -> None:
        async with peer(say_once(GO, then=hang_up)) as server:
            subject, client = await greeted(server, trusting)

            assert await fault_of_upgrade(subject, client) == "it hung up"

    async def test_a_server_that_has_hung_up_is_told_at_once(self, trusting: TlsRules) -> None:
        async with peer(say_once(GO)) as server:
            subject, client = await greeted(server, trusting)
            next(iter(server.connections)).close()
            await eventually(client.transport.is_closing, "the connection's end")

            assert await fault_of_upgrade(subject, client) == "it hung up before TLS"

    async def test_a_connection_that_is_no_more_is_told_at_once(self, trusting: TlsRules) -> None:
        async with peer(say_once(GO)) as server:
            subject, client = await greeted(server, trusting)
            next(iter(server.connections)).abort()
            await client.end()

            assert await fault_of_upgrade(subject, client) == "it hung up before TLS"

    async def test_tls_that_is_not_prepared_is_refused(
        self, server: Peer, trusting: TlsRules
    ) -> None:
        _, client = await greeted(server, trusting)
        subject = Connector(Endpoint(HERE, server.port, Security.NONE), None, DEADLINE)

        assert await fault_of_upgrade(subject, client) == "TLS has not been prepared"

    @pytest.mark.parametrize("turns", TURNS)
    async def test_who_gives_up_leaves_nothing_open(
        self, server: Peer, trusting: TlsRules, turns: int
    ) -> None:
        before = count_descriptors()
        subject, client = await greeted(server, trusting)

        await give_up_after(turns, upgraded(subject, client))

        await eventually(lambda: count_descriptors() == before, "the end of both sides")


async def greeted(
    server: Peer, rules: TlsRules, patience: float = DEADLINE
) -> tuple[Connector, Client]:
    """Return a client that has been told to go ahead, and its connector."""
    subject = connector(server.port, rules, security=Security.STARTTLS, patience=patience)
    client = await subject.connect(Client)
    assert await client.ask(b"STARTTLS\n") == GO
    return subject, client


async def upgraded(subject: Connector, client: Client) -> Client:
    client.transport = await subject.start_tls(client.transport, client)
    return client


async def fault_of_upgrade(subject: Connector, client: Client) -> str:
    async with asyncio.timeout(DEADLINE / 2):  # longer is a hang
        with pytest.raises(Unreachable) as caught:
            await subject.start_tls(client.transport, client)
    return str(caught.value).removeprefix(f"{subject.endpoint}: ")


def say_once(text: bytes, then: Reply = be_silent) -> Reply:
    """Return what answers *text* to what it hears first, and does *then* with all the rest."""
    answers = iter([say(text)])
    return lambda transport, data: next(answers, then)(transport, data)


def upgrading(context: ssl.SSLContext) -> Reply:
    """Return what says GO to what it hears first, speaks TLS from then on, and repeats."""
    upgrades: list[asyncio.Task[None]] = []

    async def upgrade(transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        protocol = transport.get_protocol()
        assert isinstance(protocol, asyncio.Protocol)
        with contextlib.suppress(OSError):  # the client may not like it
            made = await loop.start_tls(transport, protocol, context, server_side=True)
            if made is not None:
                protocol.connection_made(made)

    def reply(transport: asyncio.Transport, data: bytes) -> None:
        if transport.get_extra_info("ssl_object") is not None:
            transport.write(data)
        else:
            transport.write(GO)
            upgrades.append(asyncio.get_running_loop().create_task(upgrade(transport)))

    return reply


@asynccontextmanager
async def openssl(certificate: Certificate, *options: str) -> AsyncIterator[int]:
    """Run openssl's server with *options* while the block runs; its port."""
    port = free_port()
    argv = ["openssl", "s_server", "-accept", f"{HERE}:{port}", "-quiet", *options]
    argv += ["-cert", str(certificate.certificate), "-key", str(certificate.key)]
    with short_directory("sd-") as directory, Server(argv, directory / "output") as server:
        server.wait_until(lambda: is_served(port))
        yield port


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HERE, port)) == 0
