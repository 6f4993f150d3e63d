"""The daemon with `-a rimap` and a real Dovecot, its privileges dropped; root only."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.accounts import require_root
from tests.helpers.certificates import Authority
from tests.helpers.dovecot import Dovecot, dovecot
from tests.helpers.imap_server import GREETING, SILENCE, imap_server
from tests.helpers.instance import COMMAND, ask, run
from tests.helpers.processes import free_port, short_directory
from tests.helpers.worker_daemon import FRONT, OUTAGE, WorkerDaemon, worker_daemon

pytestmark = pytest.mark.interop("dovecot")

PASSWORD = "right horse"
YES = b"OK remote authentication successful"
NO = b"NO remote server rejected your credentials"


@pytest.fixture(autouse=True, scope="module")
def _as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def authority(_as_root: None) -> Iterator[Authority]:
    """Return an authority whose file everybody may read: the front is not root."""
    with short_directory("sd-") as path:
        yield Authority(path)


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Dovecot]:
    with dovecot({"joe": PASSWORD.encode()}, authority.issue()) as running:
        yield running


def settings(server: str, authority: Authority, more: str = "") -> str:
    return f"""
{more}
[rimap]
server = "{server}"
tls_cacert_file = "{authority.file}"
"""


@pytest.fixture(
    scope="module",
    params=["imap://127.0.0.1:{port}", "imap+starttls://localhost:{port}", "imaps://[::1]:{tls}"],
    ids=["imap", "starttls", "imaps"],
)
def daemon(
    request: pytest.FixtureRequest, server: Dovecot, authority: Authority
) -> Iterator[WorkerDaemon]:
    url = request.param.format(port=server.port, tls=server.tls_port)
    with worker_daemon("rimap", settings(url, authority)) as running:
        yield running


def test_it_lets_in(daemon: WorkerDaemon) -> None:
    assert daemon.ask("imap", "joe", PASSWORD) == YES
    assert "auth success: [user=joe] [service=imap] [realm=] [mech=rimap]" in daemon.lines()


def test_it_keeps_out(daemon: WorkerDaemon) -> None:
    assert daemon.ask("imap", "joe", "wrong") == NO
    assert (
        "auth failure: [user=joe] [service=imap] [realm=] [mech=rimap]"
        " [reason=remote server rejected your credentials]"
    ) in daemon.lines()


def test_it_is_asked_by_one_who_is_not_root(daemon: WorkerDaemon) -> None:
    front = daemon.status(FRONT)

    assert "\nUid:\t0\t" not in front
    assert "\nCapEff:\t0000000000000000\n" in front


def test_it_answers_after_a_reload(daemon: WorkerDaemon) -> None:
    daemon.reload()

    assert daemon.ask("imap", "joe", PASSWORD) == YES


def test_the_option_names_the_server_too(server: Dovecot) -> None:
    with worker_daemon("rimap", "", "-O", f"127.0.0.1/{server.port}") as running:
        assert running.ask("imap", "joe", PASSWORD) == YES


def test_a_server_that_is_gone_is_an_outage_and_no_reason_not_to_start() -> None:
    port = free_port()
    with worker_daemon("rimap", "", "-O", f"127.0.0.1/{port}") as running:
        assert running.ask("imap") == OUTAGE
        (line,) = [line for line in running.lines() if line.startswith("auth unavailable")]

    assert f"127.0.0.1:{port}" in line
    assert line.endswith("Connection refused]")


def test_a_name_that_does_not_resolve_is_an_outage_and_no_reason_not_to_start() -> None:
    with worker_daemon("rimap", "", "-O", "imaps://nowhere.invalid") as running:
        assert running.ask("imap") == OUTAGE
        (line,) = [line for line in running.lines() if line.startswith("auth unavailable")]

    assert "nowhere.invalid: " in line


def test_a_server_that_does_not_answer_is_an_outage_at_the_deadline() -> None:
    with (
        imap_server(GREETING, SILENCE) as silent,
        worker_daemon("rimap", "deadline = 2", "-O", f"127.0.0.1/{silent.port}") as running,
    ):
        assert running.ask("imap") == OUTAGE
        assert running.ask("imap") == OUTAGE
        assert silent.heard == [b'saslauthd LOGIN "joe" "right horse"\r\n'] * 2


def test_under_r_the_server_is_asked_for_user_and_realm() -> None:
    users = {"joe@example.org": PASSWORD.encode()}
    with (
        dovecot(users) as server,
        worker_daemon("rimap", "", "-r", "-O", f"127.0.0.1/{server.port}") as running,
    ):
        assert ask(running.mux, "joe", PASSWORD, "example.org") == YES
        assert ask(running.mux, "joe", PASSWORD, "example.com") == NO


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param([], "rimap_init: no hostname specified", id="none"),
        pytest.param(["-O", "a:143"], "-O: not a host: 'a:143'", id="odd"),
        pytest.param(
            ["-O", "imap.example.org"],
            "-O: passwords would go unencrypted to imap.example.org",
            id="cleartext",
        ),
    ],
)
def test_without_a_server_that_may_be_asked_it_does_not_start(
    tmp_path: Path, options: list[str], problem: str
) -> None:
    done = run([*COMMAND, "-a", "rimap", "-m", str(tmp_path), *options])

    assert done.returncode == 1
    assert problem in done.stderr
