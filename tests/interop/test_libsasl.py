"""Our daemon, asked by Cyrus' testsaslauthd, its sample server, and the library itself."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pysaslauthd.stores import sasldb
from pysaslauthd.wire.mux import encode_request
from tests.helpers.daemon import Daemon, environment
from tests.helpers.libsasl_client import SASL_BADAUTH, SASL_FAIL, SASL_OK, Check, Results
from tests.helpers.processes import DEADLINE
from tests.interop.users import JOE, LATIN, LONG, REALM, SPACED, USERS, ZOE, User

pytestmark = pytest.mark.interop("saslpasswd2")

every_user = pytest.mark.parametrize("user", USERS, ids=[user.name for user in USERS])

SAID_YES = (0, '0: OK "Success."\n', "")
SAID_NO = (255, '0: NO "authentication failed"\n', "")


def cyrus_says(mux: Path, user: str, password: str, realm: str) -> tuple[int, str, str]:
    """Return the exit code, output and complaints of Cyrus' program."""
    done = subprocess.run(
        ["testsaslauthd", "-f", mux, "-u", user, "-p", password, "-r", realm, "-s", "smtp"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.interop("testsaslauthd")
class TestTestsaslauthd:
    @every_user
    def test_every_right_password_is_accepted(self, running: Daemon, user: User) -> None:
        answer = cyrus_says(running.mux, user.name, user.password, REALM)

        assert answer == SAID_YES

    @pytest.mark.parametrize(
        ("user", "password", "realm"),
        [
            pytest.param(JOE.name, "wrong", REALM, id="wrong-password"),
            pytest.param(JOE.name, "", REALM, id="empty-password"),
            pytest.param(JOE.name, JOE.password[:-1], REALM, id="password-cut-short"),
            pytest.param(JOE.name, JOE.password + "x", REALM, id="password-with-a-tail"),
            pytest.param(JOE.name, JOE.password.upper(), REALM, id="password-in-capitals"),
            pytest.param(LATIN.name, "café", REALM, id="password-in-another-encoding"),
            pytest.param(SPACED.name, SPACED.password.strip(), REALM, id="password-stripped"),
            pytest.param(LONG.name, LONG.password[:-1], REALM, id="long-password-cut-short"),
            pytest.param(JOE.name, "x" * 8000, REALM, id="password-of-8000-bytes"),
            pytest.param("nobody", JOE.password, REALM, id="unknown-user"),
            pytest.param("", JOE.password, REALM, id="empty-user"),
            pytest.param(JOE.name, JOE.password, "elsewhere.example", id="unknown-realm"),
            pytest.param(JOE.login, JOE.password, "", id="realm-within-the-name"),
        ],
    )
    def test_what_is_not_right_is_refused(
        self, running: Daemon, user: str, password: str, realm: str
    ) -> None:
        answer = cyrus_says(running.mux, user, password, realm)

        assert answer == SAID_NO

    def test_an_outage_is_no_refusal(self, running: Daemon) -> None:
        with running.without_database():
            answer = cyrus_says(running.mux, JOE.name, JOE.password, REALM)

        assert answer == (255, "0: ", "bad response from saslauthd\n")

    def test_the_first_request_after_an_outage_is_answered(self, running: Daemon) -> None:
        with running.without_database():
            cyrus_says(running.mux, JOE.name, JOE.password, REALM)

        answer = cyrus_says(running.mux, JOE.name, JOE.password, REALM)

        assert answer == SAID_YES

    def test_a_password_changed_by_saslpasswd2_counts_at_once(self, running: Daemon) -> None:
        set_password(running.database, "changing", "before")
        assert cyrus_says(running.mux, "changing", "before", REALM) == SAID_YES

        set_password(running.database, "changing", "after")
        old = cyrus_says(running.mux, "changing", "before", REALM)
        new = cyrus_says(running.mux, "changing", "after", REALM)

        assert (old, new) == (SAID_NO, SAID_YES)

    def test_a_user_deleted_by_saslpasswd2_is_refused_at_once(self, running: Daemon) -> None:
        set_password(running.database, "leaving", "right")
        assert cyrus_says(running.mux, "leaving", "right", REALM) == SAID_YES

        subprocess.run(
            ["saslpasswd2", "-d", "-f", running.database, "-u", REALM, "leaving"],
            check=True,
            timeout=DEADLINE,
        )

        assert cyrus_says(running.mux, "leaving", "right", REALM) == SAID_NO


def set_password(database: Path, user: str, password: str) -> None:
    """Make *user* or change the password with Cyrus' program, which writes in place."""
    subprocess.run(
        ["saslpasswd2", "-c", "-p", "-f", database, "-u", REALM, user],
        input=password.encode(),
        check=True,
        timeout=DEADLINE,
    )


class TestRawSocket:
    def test_a_right_password_of_8000_bytes_is_accepted(self, running: Daemon) -> None:
        password = os.urandom(8000).hex()[:8000].encode()
        # Both passwd tools cut at 2048 bytes, so the record is written directly.
        record = {sasldb.key(b"token", REALM.encode()): password}
        sasldb.edit(str(running.database), lambda found: found.update(record))

        assert ask(running.mux, b"token", password) == b"\0\2OK"

    def test_a_wrong_password_of_8000_bytes_is_refused(self, running: Daemon) -> None:
        assert ask(running.mux, JOE.name.encode(), b"x" * 8000) == b"\0\2NO"


def ask(mux: Path, login: bytes, password: bytes) -> bytes:
    """Return the whole reply to one request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(mux))
        client.sendall(encode_request(login, password, b"smtp", REALM.encode()))
        return client.recv(4096)


@pytest.fixture(scope="module")
def configuration(directory: Path, running: Daemon) -> Path:
    """Return a directory in which applications of libsasl named `sample` find their settings."""
    path = directory / "conf"
    path.mkdir()
    (path / "sample.conf").write_text(
        f"pwcheck_method: saslauthd\nsaslauthd_path: {running.mux}\nmech_list: PLAIN LOGIN\n"
    )
    return path


def client_lines(mechanism: str, challenges: list[bytes], user: User) -> bytes:
    """Return what sasl-sample-client sends to a server with these *challenges*.

    Without a terminal it reads the password where it reads the server's lines.
    """
    server_lines = b"".join(
        b"S: " + base64.b64encode(text) + b"\n" for text in (mechanism.encode(), *challenges)
    )
    whose = ("-m", mechanism, "-a", user.login, "-u", user.login)
    done = subprocess.run(
        ["stdbuf", "-oL", "sasl-sample-client", "-s", "smtp", "-n", "mail.test.example", *whose],
        input=server_lines + os.fsencode(user.password) + b"\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        timeout=DEADLINE,
        check=False,  # its input ends before the application protocol begins
    )
    return b"".join(re.findall(rb"C: .*\n", done.stdout))


def sample_server(mechanism: str, lines: bytes, configuration: Path) -> str:
    """Return what sasl-sample-server says to a client's *lines*."""
    done = subprocess.run(
        ["stdbuf", "-oL", "sasl-sample-server", "-s", "smtp", "-m", mechanism],
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE,
        check=False,  # as above
        env={**os.environ, "SASL_CONF_PATH": str(configuration)},
    )
    return done.stdout.decode(errors="backslashreplace")


@pytest.mark.interop("sasl-sample-server", "sasl-sample-client", "stdbuf")
class TestSamplePrograms:
    """Cyrus' own pair of programs: its client speaks to its server, which asks our daemon."""

    every_mechanism = pytest.mark.parametrize(
        ("mechanism", "challenges"),
        [
            pytest.param("PLAIN", [], id="PLAIN"),
            pytest.param("LOGIN", [b"Username:", b"Password:"], id="LOGIN"),
        ],
    )

    @every_mechanism
    @every_user
    def test_a_right_password_completes_the_exchange(
        self, configuration: Path, user: User, mechanism: str, challenges: list[bytes]
    ) -> None:
        lines = client_lines(mechanism, challenges, user)

        transcript = sample_server(mechanism, lines, configuration)

        assert "Negotiation complete" in transcript

    @every_mechanism
    def test_a_wrong_password_is_an_authentication_failure(
        self, configuration: Path, mechanism: str, challenges: list[bytes]
    ) -> None:
        lines = client_lines(mechanism, challenges, User(JOE.name, "wrong"))

        transcript = sample_server(mechanism, lines, configuration)

        assert "SASL negotiation: authentication failure" in transcript

    @every_mechanism
    def test_an_outage_is_a_generic_failure(
        self, running: Daemon, configuration: Path, mechanism: str, challenges: list[bytes]
    ) -> None:
        lines = client_lines(mechanism, challenges, JOE)

        with running.without_database():
            transcript = sample_server(mechanism, lines, configuration)

        assert "SASL negotiation: generic failure" in transcript


def pipe(end: IO[bytes] | None) -> IO[bytes]:
    """Return a process's pipe, which is there since it was asked for."""
    assert end is not None
    return end


class LibsaslClient:
    """A process that stays and uses the library as a mail server does."""

    def __init__(self, configuration: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.libsasl_client", configuration],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=environment()["PYTHONPATH"],
        )
        self._questions = pipe(self._process.stdin)
        self._results = pipe(self._process.stdout)

    def ask(self, user: User, password: str, times: int = 1) -> Results:
        """Return the results of so many checks, each of which is a connection."""
        check = Check(user.login, password, times)
        self._questions.write(json.dumps(check).encode() + b"\n")
        self._questions.flush()
        return Results(*json.loads(self._results.readline()))

    def end(self) -> None:
        """Close its input, which ends it."""
        self._process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="module")
def client(configuration: Path) -> Iterator[LibsaslClient]:
    client = LibsaslClient(configuration)
    yield client
    client.end()


class TestLibrary:
    @every_user
    def test_a_right_password_is_sasl_ok(self, client: LibsaslClient, user: User) -> None:
        assert client.ask(user, user.password).codes == [SASL_OK]

    def test_a_wrong_password_is_sasl_badauth(self, client: LibsaslClient) -> None:
        assert client.ask(JOE, "wrong").codes == [SASL_BADAUTH]

    def test_an_outage_is_sasl_fail(self, running: Daemon, client: LibsaslClient) -> None:
        with running.without_database():
            assert client.ask(JOE, JOE.password).codes == [SASL_FAIL]

    def test_a_stopped_daemon_is_sasl_fail(self, running: Daemon, client: LibsaslClient) -> None:
        with running.stopped():
            assert client.ask(JOE, JOE.password).codes == [SASL_FAIL]

    def test_two_hundred_outages_cost_the_client_no_descriptor(
        self, running: Daemon, client: LibsaslClient
    ) -> None:
        before = client.ask(JOE, JOE.password)

        with running.without_database():
            outages = client.ask(JOE, JOE.password, times=200)

        assert outages == Results([SASL_FAIL] * 200, before.descriptors)

    def test_a_client_that_saw_an_outage_is_answered_afterwards(
        self, running: Daemon, client: LibsaslClient
    ) -> None:
        with running.without_database():
            client.ask(ZOE, ZOE.password)

        assert client.ask(ZOE, ZOE.password).codes == [SASL_OK]
