"""The finder beside a real Postfix, whose libsasl sends no address.

A test is the daemon: it takes smtpd's question, looks who asks, and answers.
"""

import smtplib
import socket
import socketserver
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import ClassVar, NamedTuple

import pytest

from pysaslauthd.wire.mux import Limits, decode_request, encode_reply
from pysaslauthd.workers.addresses import AddressFinder
from tests.helpers.daemon import run_directory
from tests.helpers.postfix import Postfix, postfix_directory, running_postfix
from tests.helpers.processes import DEADLINE

pytestmark = pytest.mark.interop("postfix")

SASL = {"pwcheck_method": "saslauthd", "mech_list": "PLAIN LOGIN"}
ONE_PROCESS = {"default_process_limit": 1}  # so that one smtpd serves all clients in turn


class Asking(NamedTuple):
    """A Postfix, and the socket at which its smtpd asks."""

    postfix: Postfix
    door: socket.socket

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.postfix.port, "client.test.example", DEADLINE)

    def found_for(self, client: smtplib.SMTP, finder: AddressFinder, reply: str = "OK") -> str:
        """Let *client* log in, and answer *reply*; return the address that was found meanwhile."""
        with ThreadPoolExecutor(1) as thread:
            login = thread.submit(log_in, client)
            found = self._answer(finder, reply)
            assert login.result() == {"OK": 235, "NO": 535}[reply]
        return found

    def _answer(self, finder: AddressFinder, reply: str) -> str:
        with self.door.accept()[0] as connection:
            request = connection.recv(4096)
            assert decode_request(request, 0.0, Limits()) is not None
            found = finder.find(connection)
            connection.sendall(encode_reply(reply))
        return found


def log_in(client: smtplib.SMTP) -> int:
    client.ehlo_or_helo_if_needed()
    return client.docmd("AUTH", "PLAIN AGpvZQByaWdodA==")[0]


def address(client: smtplib.SMTP) -> str:
    assert client.sock is not None
    host, port = client.sock.getsockname()
    return f"{host};{port}"


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        yield listener


class Policy(socketserver.StreamRequestHandler):
    """A policy service that minds nothing; smtpd keeps its connection."""

    connected: ClassVar[set[object]] = set()

    def handle(self) -> None:
        self.connected.add(self.client_address)
        for line in self.rfile:
            if line == b"\n":
                self.wfile.write(b"action=DUNNO\n\n")
        self.connected.remove(self.client_address)


@pytest.fixture(scope="module")
def policy_port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Policy) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def asking(directory: Path, main: Mapping[str, object]) -> Iterator[Asking]:
    """Run a Postfix that asks in *directory*."""
    mux = run_directory(directory) / "mux"
    sasl = {**SASL, "saslauthd_path": mux}
    with (
        listening(mux) as door,
        postfix_directory() as home,
        running_postfix(home, sasl, main) as postfix,
    ):
        yield Asking(postfix, door)


@pytest.fixture(scope="module")
def usual(directory: Path) -> Iterator[Asking]:
    with asking(directory / "usual", {}) as behind:
        yield behind


@pytest.fixture(scope="module")
def with_policy(directory: Path, policy_port: int) -> Iterator[Asking]:
    """Return a Postfix whose one smtpd also has a TCP connection that it has made."""
    policy = {
        "smtpd_client_restrictions": f"check_policy_service inet:127.0.0.1:{policy_port}",
        "smtpd_delay_reject": "no",  # so it is asked when a client connects
    }
    with asking(directory / "policy", {**ONE_PROCESS, **policy}) as behind:
        yield behind


@pytest.fixture(scope="module")
def one_process(directory: Path) -> Iterator[Asking]:
    with asking(directory / "one", ONE_PROCESS) as behind:
        yield behind


@pytest.fixture(scope="module")
def chrooted(as_root: None) -> Iterator[Asking]:
    with postfix_directory() as home:
        inside = run_directory(home / "spool" / "var" / "run" / "saslauthd") / "mux"
        with (
            listening(inside) as door,
            running_postfix(home, SASL, chroot=True) as postfix,
        ):
            yield Asking(postfix, door)


@pytest.fixture(autouse=True)
def _show_the_mail_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what Postfix logged: pytest shows it where the test fails."""
    yield
    for name in {"usual", "with_policy", "one_process", "chrooted"} & set(request.fixturenames):
        behind: Asking = request.getfixturevalue(name)
        sys.stdout.write(behind.postfix.log())


def test_the_address_is_the_mail_clients(usual: Asking) -> None:
    with usual.client() as client:
        found = usual.found_for(client, AddressFinder())

        assert found == address(client)


def test_the_address_is_the_mail_clients_in_a_chroot(chrooted: Asking) -> None:
    with chrooted.client() as client:
        found = chrooted.found_for(client, AddressFinder())

        assert found == address(client)


def test_a_connection_that_smtpd_made_does_not_count(with_policy: Asking) -> None:
    with with_policy.client() as client:
        found = with_policy.found_for(client, AddressFinder())

        assert (found, len(Policy.connected)) == (address(client), 1)


def test_a_second_try_of_a_client_has_the_same_address(usual: Asking) -> None:
    finder = AddressFinder()
    with usual.client() as client:
        usual.found_for(client, finder, reply="NO")

        assert usual.found_for(client, finder) == address(client)


def test_one_smtpd_has_the_address_of_the_client_it_serves(one_process: Asking) -> None:
    finder = AddressFinder()
    found, expected = [], []

    for _ in range(3):
        with one_process.client() as client:
            found.append(one_process.found_for(client, finder))
            expected.append(address(client))

    assert found == expected


def test_clients_at_the_same_time_have_their_own_addresses(usual: Asking) -> None:
    finder = AddressFinder()
    with ExitStack() as stack:
        clients = [stack.enter_context(usual.client()) for _ in range(3)]

        found = [usual.found_for(client, finder) for client in clients]

        assert found == [address(client) for client in clients]
