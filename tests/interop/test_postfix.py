"""Our daemon and our database tool behind a real Postfix, with swaks as the mail client."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tests.helpers.daemon import Daemon, daemon, put, run_directory
from tests.helpers.postfix import HOST_NAME, Postfix, postfix_directory, running_postfix
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.smtp import swaks, swaks_auth
from tests.interop.users import (
    JOE,
    LATIN,
    LONG,
    REALM,
    USERS,
    User,
    make_database,
    own_as_debian_does,
)

pytestmark = pytest.mark.interop("postfix", "swaks", "saslpasswd2")

every_user = pytest.mark.parametrize("user", USERS, ids=[user.name for user in USERS])
plain_and_login = pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])


@pytest.fixture(scope="module")
def postfix(running: Daemon) -> Iterator[Postfix]:
    """Return a Postfix that asks our daemon."""
    sasl = {
        "pwcheck_method": "saslauthd",
        "saslauthd_path": running.mux,
        "mech_list": "PLAIN LOGIN ANONYMOUS",
    }
    main = {
        "smtpd_sasl_security_options": "noanonymous",
        "smtpd_sasl_local_domain": REALM,
        "broken_sasl_auth_clients": "yes",
    }
    with postfix_directory() as directory, running_postfix(directory, sasl, main) as running_one:
        yield running_one


@pytest.fixture(autouse=True)
def _show_the_mail_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what Postfix logged during a test: pytest shows it where the test fails."""
    names = {"postfix", "chrooted", "with_database"} & set(request.fixturenames)
    servers: list[Postfix] = [request.getfixturevalue(name) for name in sorted(names)]
    before = [len(server.log()) for server in servers]
    yield
    for server, start in zip(servers, before, strict=True):
        sys.stdout.write(server.log()[start:])


class TestAskingTheDaemon:
    @plain_and_login
    @every_user
    def test_a_right_password_gets_235(self, postfix: Postfix, mechanism: str, user: User) -> None:
        dialogue = swaks_auth(postfix.port, mechanism, user.login, user.password)

        assert dialogue.code("AUTH") == 235

    def test_whoever_logged_in_may_relay(self, postfix: Postfix) -> None:
        dialogue = swaks_auth(postfix.port, "PLAIN", JOE.login, JOE.password)

        assert dialogue.code("RCPT") == 250

    def test_whoever_did_not_log_in_may_not_relay(self, postfix: Postfix) -> None:
        dialogue = swaks(postfix.port)

        assert dialogue.code("RCPT") == 554

    def test_a_name_without_a_realm_gets_the_local_domain(self, postfix: Postfix) -> None:
        dialogue = swaks_auth(postfix.port, "PLAIN", JOE.name, JOE.password)

        assert dialogue.code("AUTH") == 235

    @plain_and_login
    @pytest.mark.parametrize(
        ("user", "password"),
        [
            pytest.param(JOE, "wrong", id="wrong"),
            pytest.param(JOE, JOE.password + "x", id="with-a-tail"),
            pytest.param(LATIN, "café", id="in-another-encoding"),
            pytest.param(LONG, LONG.password[:-1], id="long-cut-short"),
            pytest.param(User("nobody", ""), "right", id="unknown-user"),
        ],
    )
    def test_a_wrong_password_gets_535(
        self, postfix: Postfix, mechanism: str, user: User, password: str
    ) -> None:
        dialogue = swaks_auth(postfix.port, mechanism, user.login, password)

        assert dialogue.code("AUTH") == 535

    @plain_and_login
    def test_a_missing_database_gets_454(
        self, running: Daemon, postfix: Postfix, mechanism: str
    ) -> None:
        with running.without_database():
            dialogue = swaks_auth(postfix.port, mechanism, JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 454

    def test_a_wrong_password_gets_454_too_while_nobody_can_know(
        self, running: Daemon, postfix: Postfix
    ) -> None:
        with running.without_database():
            dialogue = swaks_auth(postfix.port, "PLAIN", JOE.login, "wrong")

        assert dialogue.code("AUTH") == 454

    def test_a_database_that_is_back_serves_without_a_restart(
        self, running: Daemon, postfix: Postfix
    ) -> None:
        with running.without_database():
            swaks_auth(postfix.port, "PLAIN", JOE.login, JOE.password)

        dialogue = swaks_auth(postfix.port, "PLAIN", JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 235

    @plain_and_login
    def test_a_stopped_daemon_gets_454(
        self, running: Daemon, postfix: Postfix, mechanism: str
    ) -> None:
        with running.stopped():
            dialogue = swaks_auth(postfix.port, mechanism, JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 454

    def test_a_daemon_that_is_back_serves_without_a_restart_of_postfix(
        self, running: Daemon, postfix: Postfix
    ) -> None:
        with running.stopped():
            swaks_auth(postfix.port, "PLAIN", JOE.login, JOE.password)

        dialogue = swaks_auth(postfix.port, "PLAIN", JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 235


class TestOffering:
    def test_noanonymous_keeps_anonymous_out_of_the_offer(self, postfix: Postfix) -> None:
        dialogue = swaks(postfix.port)

        assert dialogue.offered() == {"PLAIN", "LOGIN"}

    def test_broken_clients_are_shown_the_old_form_too(self, postfix: Postfix) -> None:
        replies = swaks(postfix.port).replies("EHLO")

        assert {"250-AUTH PLAIN LOGIN", "250-AUTH=PLAIN LOGIN"} <= set(replies)


@pytest.fixture(scope="module")
def chrooted(as_root: None) -> Iterator[Postfix]:
    with postfix_directory() as home, short_directory("sd-") as directory:
        inside = run_directory(home / "spool" / "var" / "run" / "saslauthd") / "mux"
        make_database(directory / "sasldb2")
        sasl = {"pwcheck_method": "saslauthd", "mech_list": "PLAIN LOGIN"}
        with (
            daemon(directory, more_sockets=[inside]),
            running_postfix(home, sasl, chroot=True) as postfix,
        ):
            yield postfix


class TestChroot:
    """smtpd opens the socket after its chroot, at the library's default path below the queue."""

    @plain_and_login
    def test_a_second_socket_in_the_chroot_serves_right_passwords(
        self, chrooted: Postfix, mechanism: str
    ) -> None:
        dialogue = swaks_auth(chrooted.port, mechanism, JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 235

    @plain_and_login
    def test_a_second_socket_in_the_chroot_refuses_wrong_passwords(
        self, chrooted: Postfix, mechanism: str
    ) -> None:
        dialogue = swaks_auth(chrooted.port, mechanism, JOE.login, "wrong")

        assert dialogue.code("AUTH") == 535


@pytest.fixture(scope="module")
def with_database(as_root: None, lacking: Callable[[str], NoReturn]) -> Iterator[Postfix]:
    support = subprocess.run(
        ["swaks", "--support"], capture_output=True, text=True, timeout=DEADLINE, check=False
    ).stdout
    if "AUTH DIGEST-MD5 supported" not in support or "AUTH CRAM-MD5 supported" not in support:
        lacking("needs swaks with CRAM-MD5 and DIGEST-MD5 (Perl's Digest::HMAC, Authen::SASL)")
    with postfix_directory() as directory:
        database = directory / "sasldb2"
        put(database, REALM, JOE.name, JOE.password.encode())
        put(database, REALM, "changed", b"before")
        put(database, REALM, "changed", b"after")
        put(database, HOST_NAME, "here", b"right")
        own_as_debian_does(database)
        sasl = {
            "pwcheck_method": "auxprop",
            "auxprop_plugin": "sasldb",
            "sasldb_path": database,
            "mech_list": "PLAIN LOGIN CRAM-MD5 DIGEST-MD5",
        }
        with running_postfix(directory, sasl) as postfix:
            yield postfix


class TestReadingOurDatabase:
    """A file that pysaslpasswd wrote, opened by libsasl itself: no daemon is asked."""

    every_mechanism = pytest.mark.parametrize(
        "mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]
    )

    @every_mechanism
    def test_a_right_password_gets_235(self, with_database: Postfix, mechanism: str) -> None:
        dialogue = swaks_auth(with_database.port, mechanism, JOE.login, JOE.password)

        assert dialogue.code("AUTH") == 235

    @every_mechanism
    def test_a_wrong_password_gets_535(self, with_database: Postfix, mechanism: str) -> None:
        dialogue = swaks_auth(with_database.port, mechanism, JOE.login, "wrong")

        assert dialogue.code("AUTH") == 535

    @every_mechanism
    def test_a_user_of_postfix_own_host_name_needs_no_realm(
        self, with_database: Postfix, mechanism: str
    ) -> None:
        dialogue = swaks_auth(with_database.port, mechanism, "here", "right")

        assert dialogue.code("AUTH") == 235

    def test_a_changed_password_replaces_the_old_one(self, with_database: Postfix) -> None:
        old = swaks_auth(with_database.port, "CRAM-MD5", f"changed@{REALM}", "before")
        new = swaks_auth(with_database.port, "CRAM-MD5", f"changed@{REALM}", "after")

        assert (old.code("AUTH"), new.code("AUTH")) == (535, 235)

    def test_a_user_added_while_postfix_runs_is_served_at_once(
        self, with_database: Postfix
    ) -> None:
        put(with_database.directory / "sasldb2", REALM, "late", b"right")

        dialogue = swaks_auth(with_database.port, "DIGEST-MD5", f"late@{REALM}", "right")

        assert dialogue.code("AUTH") == 235
