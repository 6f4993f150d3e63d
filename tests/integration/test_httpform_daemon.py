"""The daemon with -a httpform: started by root, its front nobody's; root only."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.accounts import require_root
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.instance import COMMAND, ask, run
from tests.helpers.peers import presenting
from tests.helpers.processes import free_port, short_directory
from tests.helpers.web import DATA, LOOPBACK, URI, FormServer, form_server
from tests.helpers.worker_daemon import FRONT, OUTAGE, WorkerDaemon, worker_daemon

PASSWORD = "pw"
WRONG = "hunter2 is wrong"
YES = b"OK remote authentication successful"
NO_ADDRESSES = "find_address = false\n"  # of the test itself, in the log
NO = b"NO No such user, or wrong password"


@pytest.fixture(autouse=True, scope="module")
def _as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def authority(_as_root: None) -> Iterator[Authority]:
    """An authority whose files lie where the front can read what it may."""
    with short_directory("sd-") as directory:
        yield Authority(directory)


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """What the daemon shows; only root may read its key."""
    made = authority.issue_for_client()
    made.key.chmod(0o600)
    return made


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[FormServer]:
    """A server that wants to see a certificate."""
    with form_server(tls=presenting(authority.issue(), clients=authority.file)) as made:
        yield made


@pytest.fixture(scope="module")
def daemon(server: FormServer, authority: Authority, own: Certificate) -> Iterator[WorkerDaemon]:
    file = own.key.with_name("saslauthd.conf")
    file.write_text(f"""
# as the C daemon has it
httpform_port: {server.port}
httpform_uri: {URI}
httpform_data: {DATA}

# and what it has not
httpform_tls: yes
httpform_tls_cacert_file: {authority.file}
httpform_tls_cert: {own.certificate}
httpform_tls_key: {own.key}
""")
    file.chmod(0o600)
    with worker_daemon("httpform", NO_ADDRESSES, "-O", str(file)) as made:
        yield made


def answer(daemon: WorkerDaemon, password: str = PASSWORD, user: str = "joe") -> bytes:
    return ask(daemon.mux, user, password, "r")


def test_the_right_password_is_right(daemon: WorkerDaemon) -> None:
    assert answer(daemon) == YES


def test_a_wrong_one_is_refused_with_the_servers_reason(daemon: WorkerDaemon) -> None:
    assert answer(daemon, WRONG) == NO
    assert daemon.lines()[-1] == (
        "auth failure: [user=joe] [service=imap] [realm=r] [mech=httpform]"
        " [reason=No such user, or wrong password]"
    )


def test_there_is_a_front_and_no_worker(daemon: WorkerDaemon) -> None:
    answer(daemon)

    assert len(daemon.processes(FRONT)) == 1
    assert daemon.processes("httpf") == []


def test_it_still_answers_when_it_has_read_its_settings_again(daemon: WorkerDaemon) -> None:
    daemon.reload()

    assert answer(daemon) == YES
    assert answer(daemon, WRONG) == NO


def test_an_outage_is_told_with_its_cause_and_without_the_password() -> None:
    port = free_port()
    table = f'[httpform]\nhost = "{LOOPBACK}"\nport = {port}\nuri = "{URI}"\ndata = "{DATA}"\n'

    with worker_daemon("httpform", NO_ADDRESSES + table) as daemon:
        during = answer(daemon, WRONG)
        with form_server(port=port):
            after = answer(daemon)

        assert during == OUTAGE
        assert after == YES
        assert (
            "auth unavailable: [user=joe] [service=imap] [realm=r] [mech=httpform]"
            f" [reason={LOOPBACK}:{port}: Connection refused]"
        ) in daemon.lines()
        assert not any(WRONG in line for line in daemon.lines())


def test_under_r_the_name_is_joined_and_the_realm_stays() -> None:
    with form_server() as server:
        settings = f'[httpform]\nport = {server.port}\nuri = "{URI}"\ndata = "{DATA}"\n'
        with worker_daemon("httpform", settings, "-r") as daemon:
            answer(daemon)

        assert server.forms == [{"user": "joe@r", "password": PASSWORD, "realm": "r"}]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(
            "httpform_uri: /x\n",
            "auth_httpform_init formdata and uri must be specified",
            id="no-data",
        ),
        pytest.param(
            "httpform_uri: /x\nhttpform_data: x\nhttpform_host: www.example.org\n",
            "httpform_tls: passwords would go unencrypted to www.example.org",
            id="cleartext",
        ),
    ],
)
def test_what_cannot_be_used_is_no_start(tmp_path: Path, lines: str, problem: str) -> None:
    file = tmp_path / "saslauthd.conf"
    file.write_text(lines)
    (tmp_path / "run").mkdir()

    done = run([*COMMAND, "-a", "httpform", "-O", str(file), "-m", str(tmp_path / "run"), "-f"])

    assert done.returncode == 1
    assert problem in done.stderr
