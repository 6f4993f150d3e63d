"""`-a ldap` with a real slapd, as a daemon: what only root may read, reloads, outages; as root."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers import instance
from tests.helpers.accounts import require_root
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.processes import short_directory, wait_for
from tests.helpers.slapd import (
    GROUPS,
    PEOPLE,
    SERVICE,
    SERVICE_PASSWORD,
    SUFFIX,
    Slapd,
    group,
    person,
    slapd,
)
from tests.helpers.worker_daemon import FRONT, LDAP, OUTAGE, PASSWORD, WorkerDaemon, worker_daemon

pytestmark = pytest.mark.interop("slapd", "slapadd", "ldapwhoami", "ldapmodify")

ENTRIES = person("joe", PASSWORD) + person("ann", PASSWORD) + group("mail", [f"uid=joe,{PEOPLE}"])
NO_CAPABILITY = "CapEff:\t0000000000000000"


class Place:
    """A directory that wants our certificate, and the file of daemons that ask it."""

    def __init__(self, directory: Path, running: Slapd, authority: Authority) -> None:
        self.slapd = running
        self.authority = authority
        self.identity: Certificate = authority.issue_for_client()
        self.identity.key.chmod(0o600)
        self.file = directory / "saslauthd.conf"
        self.file.touch(mode=0o600)

    def write(self, *lines: str) -> None:
        """Write the file that only root can read; *lines* stand behind what is always there."""
        always = [
            f"ldap_servers: {self.slapd.tls_uri}",
            f"ldap_search_base: {SUFFIX}",
            f"ldap_bind_dn: {SERVICE}",
            f"ldap_password: {SERVICE_PASSWORD}",
            f"ldap_tls_cacert_file: {self.authority.file}",
            f"ldap_tls_cert: {self.identity.certificate}",
            f"ldap_tls_key: {self.identity.key}",
        ]
        self.file.write_text("".join(f"{line}\n" for line in [*always, *lines]))


@pytest.fixture(scope="module")
def place(lacking: Callable[[str], NoReturn]) -> Iterator[Place]:
    require_root(lacking)
    with short_directory("sd-") as directory:
        authority = Authority(directory)
        demand = f"TLSCACertificateFile {authority.file}\nTLSVerifyClient demand"
        with slapd(ENTRIES, authority.issue(), server=demand) as running:
            yield Place(directory, running, authority)


@pytest.fixture
def daemon(place: Place) -> Iterator[WorkerDaemon]:
    place.write()
    with worker_daemon("ldap", "", "-O", str(place.file)) as running:
        yield running


def test_it_answers_by_what_only_root_may_read(daemon: WorkerDaemon) -> None:
    assert daemon.ask("imap") == b"OK"
    assert daemon.ask("imap", password="wrong") == b"NO"
    assert daemon.ask("imap", user="nobody") == b"NO"


def test_who_asks_the_directory_is_not_root(daemon: WorkerDaemon) -> None:
    front = daemon.status(FRONT)

    assert NO_CAPABILITY in front
    assert "Uid:\t0" not in front


def test_no_secret_is_logged(daemon: WorkerDaemon) -> None:
    daemon.ask("imap")
    daemon.ask("imap", password="a wrong one")

    told = daemon.server.output()
    assert "auth failure" in told
    assert not any(secret in told for secret in (PASSWORD, "a wrong one", SERVICE_PASSWORD))


def test_a_reload_follows_the_file(daemon: WorkerDaemon, place: Place) -> None:
    before = daemon.ask("imap", user="ann")
    place.write(f"ldap_group_dn: cn=mail,{GROUPS}", "ldap_group_attr: member")

    daemon.reload()

    assert before == b"OK"
    assert daemon.ask("imap", user="ann") == b"NO"
    assert daemon.ask("imap") == b"OK"


def test_a_reload_of_a_bad_file_changes_nothing(daemon: WorkerDaemon, place: Place) -> None:
    place.write("ldap_filter: (uid=%u")

    os.kill(daemon.server.pid, 1)
    wait_for(lambda: any("not reloaded" in line for line in daemon.lines()), "the refusal")

    assert daemon.ask("imap") == b"OK"


def test_a_directory_that_is_down_is_an_outage_until_it_is_up(
    daemon: WorkerDaemon, place: Place
) -> None:
    with place.slapd.stopped():
        meanwhile = daemon.ask("imap")

    assert meanwhile == OUTAGE
    wait_for(lambda: daemon.ask("imap") == b"OK", "the directory is asked again")


def test_it_starts_while_the_directory_is_down(place: Place) -> None:
    place.write()
    with place.slapd.stopped(), worker_daemon("ldap", "", "-O", str(place.file)) as running:
        assert running.ask("imap") == OUTAGE
        assert any("Connection refused" in line for line in running.lines())


def test_what_it_compares_itself_is_compared_in_workers_without_power(place: Place) -> None:
    place.write("ldap_auth_method: custom")
    with worker_daemon("ldap", "", "-O", str(place.file)) as running:
        assert running.ask("imap") == b"OK"
        assert running.ask("imap", password="wrong") == b"NO"
        assert NO_CAPABILITY in running.status(LDAP)


def test_a_table_will_do_too(place: Place) -> None:
    table = f"""
[ldap]
servers = ["{place.slapd.socket_uri}"]
search_base = "{SUFFIX}"
"""
    with worker_daemon("ldap", table) as running:
        assert running.ask("imap") == b"OK"


def test_with_r_a_filter_has_the_realm_too(place: Place) -> None:
    place.write("ldap_filter: (&(uid=%U)(!(uid=%r)))")
    with worker_daemon("ldap", "", "-O", str(place.file), "-r") as running:
        joe_of = [running.ask("imap", realm=realm) for realm in ("example.org", "joe")]

    assert joe_of == [b"OK", b"NO"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(
            "ldap_servers: ldap://directory.example.org/",
            "ldap_servers: passwords would go unencrypted to directory.example.org",
            id="cleartext",
        ),
        pytest.param("ldap_servers:", "line 1: keyword ldap_servers: no value", id="no-value"),
        pytest.param(
            "ldap_use_sasl: yes\nldap_mech: GSSAPI", "GSSAPI is not supported yet", id="gssapi"
        ),
    ],
)
def test_what_cannot_be_is_said_at_the_start(tmp_path: Path, lines: str, problem: str) -> None:
    file = tmp_path / "saslauthd.conf"
    file.write_text(f"{lines}\n")

    done = instance.run([*instance.COMMAND, "-a", "ldap", "-O", str(file), "-m", str(tmp_path)])

    assert done.returncode == 1
    assert problem in done.stderr


def test_an_authority_that_the_front_cannot_read_is_named(place: Place) -> None:
    hidden = place.file.with_name("hidden.pem")
    hidden.write_bytes(place.authority.file.read_bytes())
    hidden.chmod(0o600)
    place.write(f"ldap_tls_cacert_file: {hidden}")
    run = place.file.with_name("run")
    run.mkdir(mode=0o755)

    done = instance.run([*instance.COMMAND, "-a", "ldap", "-O", str(place.file), "-m", str(run)])

    assert done.returncode == 1
    assert f"ldap: {hidden}: Permission denied (tls_cacert_file must be readable for" in done.stderr
    assert "Traceback" not in done.stderr
