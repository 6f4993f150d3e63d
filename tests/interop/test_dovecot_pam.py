"""PAM behind the Dovecot door: the client's address, and modules that take their time."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pysaslauthd.engine.authenticator import REPLY_BY
from tests.helpers.accounts import account, needs_account_tools
from tests.helpers.daemon import daemon
from tests.helpers.dovecot_client import CLOSED, DovecotClient
from tests.helpers.pam import PERMIT, Service, pam_service, stack_that_sleeps
from tests.helpers.processes import accepts, short_directory, wait_for

pytestmark = needs_account_tools

PASSWORD = "right"
SETTINGS = 'mechanism = "pam"\nfailure_delay = 0.0\n'


@pytest.fixture(scope="module")
def user(as_root: None) -> Iterator[str]:
    with account(PASSWORD) as name:
        yield name


@contextmanager
def by_pam(settings: str) -> Iterator[Path]:
    """Run a daemon that asks PAM; return its socket."""
    with short_directory("sd-") as directory:
        configuration, path = directory / "toml", directory / "run" / "auth"
        configuration.write_text(settings)
        with daemon(directory, backend=("--config", str(configuration), f"--dovecot={path}")):
            wait_for(lambda: accepts(path), "the socket")
            yield path


@contextmanager
def connected(path: Path) -> Iterator[DovecotClient]:
    with DovecotClient(path) as client:
        client.say(b"VERSION\t1\t2\nCPID\t77\n")
        yield client


@pytest.fixture(scope="module")
def path(as_root: None) -> Iterator[Path]:
    with by_pam(SETTINGS) as path:
        yield path


@pytest.fixture
def client(path: Path) -> Iterator[DovecotClient]:
    with connected(path) as client:
        yield client


@pytest.fixture
def hurried(as_root: None) -> Iterator[DovecotClient]:
    """Return a client of a daemon that waits for no module longer than a second."""
    with by_pam(f"{SETTINGS}deadline = 1.0\n") as path, connected(path) as client:
        yield client


@pytest.fixture
def quick(as_root: None) -> Iterator[Service]:
    with pam_service(PERMIT) as service:
        yield service


@pytest.fixture
def slow(as_root: None) -> Iterator[Service]:
    with pam_service(stack_that_sleeps(60)) as service:
        yield service


def auth(number: int, service: Service, user: str, *more: str) -> bytes:
    response = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    fields = ["AUTH", str(number), "PLAIN", f"service={service.name}", *more, f"resp={response}"]
    return "\t".join(fields).encode() + b"\n"


def test_only_what_shows_pam_the_password_is_offered(client: DovecotClient) -> None:
    offered = {line for line in client.greeting if line.startswith(b"MECH")}

    assert offered == {b"MECH\tPLAIN\tplaintext", b"MECH\tLOGIN\tplaintext"}


@pytest.mark.parametrize(
    ("address", "answer"), [("192.0.2.7", b"OK\t1\tuser=%b"), ("192.0.2.8", b"FAIL\t1\tuser=%b")]
)
def test_the_clients_address_is_what_modules_go_by(
    client: DovecotClient, user: str, quick: Service, tmp_path: Path, address: str, answer: bytes
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7\n")
    by_host = f"pam_listfile.so item=rhost sense=allow file={hosts} onerr=fail"
    quick.write(f"auth required {by_host}\naccount required pam_permit.so\n")

    client.say(auth(1, quick, user, f"rip={address}", "lip=127.0.0.1"))

    assert client.hear() == answer % user.encode()


def test_a_module_that_hangs_keeps_no_other_request_waiting(
    client: DovecotClient, user: str, quick: Service, slow: Service
) -> None:
    client.say(auth(1, slow, user) + auth(2, quick, user))

    assert client.hear() == b"OK\t2\tuser=%b" % user.encode()


def test_a_module_that_hangs_is_an_outage(hurried: DovecotClient, user: str, slow: Service) -> None:
    hurried.say(auth(1, slow, user))

    assert hurried.hear() == CLOSED


def test_a_request_that_is_cancelled_leaves_its_number(
    client: DovecotClient, user: str, quick: Service, slow: Service
) -> None:
    client.say(auth(1, slow, user) + b"CANCEL\t1\n" + auth(1, quick, user))

    assert client.hear() == b"OK\t1\tuser=%b" % user.encode()


def test_who_wants_no_delay_has_none_that_a_module_wants(
    client: DovecotClient, user: str, quick: Service
) -> None:
    quick.write(
        "auth optional pam_faildelay.so delay=60000000\n"
        "auth required pam_deny.so\naccount required pam_permit.so\n"
    )

    began = time.monotonic()
    client.say(auth(1, quick, user, "nodelay"))

    assert client.hear() == b"FAIL\t1\tuser=%b" % user.encode()
    assert time.monotonic() - began < REPLY_BY / 2
