"""A chrooted Postfix, with Dovecot's way of asking and no Dovecot: it asks at our socket."""

import base64
import itertools
import os
import re
import signal
import smtplib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from pysaslauthd.smtp.options import KNOWN
from tests.helpers.certificates import Authority
from tests.helpers.dovecot_auth import dovecot
from tests.helpers.dovecot_door import Door, dovecot_door
from tests.helpers.postfix import HOST_NAME, Postfix, postfix_directory, running_postfix
from tests.helpers.processes import DEADLINE, free_port, free_ports, short_directory, wait_for
from tests.helpers.smtp import gsasl_auth, swaks, swaks_auth
from tests.helpers.smtp_server import trusting_context

pytestmark = pytest.mark.interop("postfix", "swaks", "gsasl")

USERS = {"joe": "joepw", "ann": "annpw"}
OF_SWAKS = ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]
OF_GSASL = [*OF_SWAKS, "SCRAM-SHA-1", "SCRAM-SHA-256"]
ASKING = {
    "smtpd_sasl_type": "dovecot",
    "smtpd_sasl_path": "private/auth",
    "smtpd_sasl_security_options": "",
}

MECHANISMS = [*OF_GSASL, "ANONYMOUS", "EXTERNAL"]
SETTINGS = f"dovecot_mechanisms = {MECHANISMS}\nfailure_delay = 0.0\n"
# forward_secrecy leaves nothing, with or without the others, and takes the longest to say so.
OTHERS = [word for word in KNOWN if word != "forward_secrecy"]
SUBSETS = ["forward_secrecy"] + [
    ",".join(words)
    for number in range(len(OTHERS) + 1)
    for words in itertools.combinations(OTHERS, number)
]
SERVICE = (
    "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_sasl_security_options={words}"
    " -o smtpd_sasl_path={path} -o max_use=1\n"
)

TLS_SERVICE = "tlsmgr unix - - n 1000? 1 tlsmgr\n"

by_swaks = pytest.mark.parametrize("mechanism", OF_SWAKS)
by_gsasl = pytest.mark.parametrize("mechanism", OF_GSASL)


class Peers(NamedTuple):
    """A Postfix and the door that it asks at."""

    door: Door
    postfix: Postfix

    @property
    def port(self) -> int:
        return self.postfix.port


@pytest.fixture(scope="module")
def peers(directory: Path) -> Iterator[Peers]:
    with (
        postfix_directory() as home,
        dovecot_door(
            directory, USERS, path=home / "spool" / "private" / "auth", settings=SETTINGS
        ) as door,
        running_postfix(home, {}, ASKING, chroot=True) as postfix,
    ):
        yield Peers(door, postfix)


@pytest.fixture(autouse=True)
def _show_the_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what was logged during a test: pytest shows it where the test fails."""
    if "peers" not in request.fixturenames:
        yield
        return
    door, postfix = request.getfixturevalue("peers")
    before = len(door.daemon.log()), len(postfix.log())
    yield
    sys.stdout.write(door.daemon.log()[before[0] :] + postfix.log()[before[1] :])


@pytest.fixture
def session(peers: Peers) -> Iterator[smtplib.SMTP]:
    """Return a client of one smtpd, which asks over one connection all the time."""
    with smtplib.SMTP("127.0.0.1", peers.port, timeout=DEADLINE) as client:
        client.ehlo()
        yield client


def log_in(session: smtplib.SMTP, password: str = "joepw") -> int:
    return session.docmd("AUTH", f"PLAIN {message(password)}")[0]


def message(password: str) -> str:
    return base64.b64encode(f"\0joe\0{password}".encode()).decode()


class TestMechanisms:
    @by_swaks
    def test_a_right_password_gets_235(self, peers: Peers, mechanism: str) -> None:
        assert swaks_auth(peers.port, mechanism, "joe", "joepw").code("AUTH") == 235

    @by_swaks
    def test_a_wrong_password_gets_535(self, peers: Peers, mechanism: str) -> None:
        assert swaks_auth(peers.port, mechanism, "joe", "wrong").code("AUTH") == 535

    @by_gsasl
    def test_gnu_sasl_with_a_right_password_gets_235(self, peers: Peers, mechanism: str) -> None:
        assert gsasl_auth(peers.port, mechanism, "joe", "joepw") == 235

    @by_gsasl
    def test_gnu_sasl_with_a_wrong_password_gets_535(self, peers: Peers, mechanism: str) -> None:
        assert gsasl_auth(peers.port, mechanism, "joe", "wrong") == 535

    @by_gsasl
    def test_an_unknown_user_gets_535(self, peers: Peers, mechanism: str) -> None:
        assert gsasl_auth(peers.port, mechanism, "zoe", "joepw") == 535

    def test_anybody_is_anonymous(self, peers: Peers) -> None:
        assert gsasl_auth(peers.port, "ANONYMOUS", "joe", "joepw") == 235

    @pytest.mark.parametrize(("authzid", "code"), [("joe", 235), ("ann", 535)])
    @pytest.mark.parametrize("mechanism", ["PLAIN", "DIGEST-MD5", "SCRAM-SHA-256"])
    def test_users_act_as_themselves_only(
        self, peers: Peers, mechanism: str, authzid: str, code: int
    ) -> None:
        as_somebody = f"--authorization-id={authzid}"

        assert gsasl_auth(peers.port, mechanism, "joe", "joepw", as_somebody) == code

    def test_a_name_may_have_its_realm(self, peers: Peers) -> None:
        dialogue = swaks_auth(peers.port, "PLAIN", f"joe@{HOST_NAME}", "joepw")

        assert dialogue.code("AUTH") == 235

    def test_whoever_logged_in_may_relay(self, peers: Peers) -> None:
        assert swaks_auth(peers.port, "PLAIN", "joe", "joepw").code("RCPT") == 250

    def test_whoever_did_not_log_in_may_not(self, peers: Peers) -> None:
        assert swaks(peers.port).code("RCPT") == 554

    def test_postfix_logs_whose_password_was_wrong(
        self, peers: Peers, session: smtplib.SMTP
    ) -> None:
        before = len(peers.postfix.log())

        log_in(session, "wrong")

        line = "authentication failed: (reason unavailable), sasl_username=joe"
        wait_for(lambda: line in peers.postfix.log()[before:], "Postfix's line")

    def test_an_exchange_that_is_given_up_leaves_room_for_others(
        self, session: smtplib.SMTP
    ) -> None:
        given_up = [session.docmd(line)[0] for line in ["AUTH LOGIN", "*"] * 5]

        assert given_up == [334, 501] * 5
        assert log_in(session) == 235


class TestWhereClientsAre:
    def test_is_in_our_line_about_a_refusal(self, peers: Peers, session: smtplib.SMTP) -> None:
        before = len(peers.door.daemon.log())

        log_in(session, "wrong")

        assert re.search(
            r"auth failure: \[user=joe\] \[service=smtp\] .*\[remote=127\.0\.0\.1\]"
            r" \[local=127\.0\.0\.1\] \[sasl=PLAIN\]",
            peers.door.daemon.log()[before:],
        )


class Offers(NamedTuple):
    """What the same Postfix offers who asks a real Dovecot, and who asks us."""

    dovecot: set[str] | None
    here: set[str] | None


def offered(port: int) -> set[str] | None:
    """Return the mechanisms in the reply to EHLO; None where there is no greeting."""
    with (
        suppress(smtplib.SMTPServerDisconnected),
        smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE) as client,
    ):
        client.ehlo()
        return set(client.esmtp_features.get("auth", "").split())
    return None


@pytest.fixture(scope="module")
def offers(as_root: None) -> dict[str, Offers]:
    """Return what is offered for each set of words; all are asked at once, for that takes time."""
    ports = free_ports(2 * len(SUBSETS))
    with (
        short_directory("da-") as of_dovecot,
        dovecot(of_dovecot, {}, [], " ".join(MECHANISMS).lower()) as theirs,
        short_directory("sd-") as own,
        dovecot_door(own, USERS, settings=SETTINGS) as door,
        postfix_directory() as home,
    ):
        theirs.chmod(0o666)
        asked = itertools.product(SUBSETS, (theirs, door.path))
        services = "".join(
            SERVICE.format(port=port, words=words, path=path)
            for port, (words, path) in zip(ports, asked, strict=True)
        )
        with (
            running_postfix(home, {}, {**ASKING, "smtpd_sasl_path": theirs}, services=services),
            ThreadPoolExecutor(8) as pool,
        ):
            found = list(pool.map(offered, ports))
    return dict(zip(SUBSETS, map(Offers, found[::2], found[1::2]), strict=True))


class TestOffer:
    @pytest.mark.interop("dovecot")
    @pytest.mark.parametrize("words", SUBSETS, ids=lambda words: words.replace(",", "+"))
    def test_options_leave_what_they_leave_of_dovecots(
        self, words: str, offers: dict[str, Offers]
    ) -> None:
        assert offers[words].here == offers[words].dovecot


@pytest.fixture(scope="module")
def cautious(as_root: None) -> Iterator[Postfix]:
    """Return a Postfix with TLS that asks over TCP, where no password may be read along."""
    settings = f"{SETTINGS}dovecot_secured_only = true\n"
    address = f"127.0.0.1:{free_port()}"
    with (
        short_directory("sd-") as own,
        dovecot_door(own, USERS, f"inet:{address}", settings=settings),
        postfix_directory() as home,
    ):
        certificate = Authority(own).issue()
        main = {
            **ASKING,
            "smtpd_sasl_path": f"inet:{address}",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": certificate.certificate,
            "smtpd_tls_key_file": certificate.key,
        }
        with running_postfix(home, {}, main, services=TLS_SERVICE) as postfix:
            yield postfix


class TestSecuredOnly:
    @pytest.fixture
    def session(self, cautious: Postfix) -> Iterator[smtplib.SMTP]:
        with smtplib.SMTP("127.0.0.1", cautious.port, timeout=DEADLINE) as client:
            client.ehlo()
            yield client

    def test_a_password_in_the_clear_is_refused_and_it_is_said_why(
        self, session: smtplib.SMTP
    ) -> None:
        code, text = session.docmd("AUTH", f"PLAIN {message('joepw')}")

        assert code == 535
        assert b"Plaintext authentication disallowed" in text

    def test_a_password_within_tls_is_taken(self, session: smtplib.SMTP) -> None:
        session.starttls(context=trusting_context())
        session.ehlo()

        assert log_in(session) == 235

    def test_what_shows_no_password_is_taken_in_the_clear(self, cautious: Postfix) -> None:
        assert gsasl_auth(cautious.port, "SCRAM-SHA-256", "joe", "joepw") == 235


class TestOutage:
    @by_gsasl
    @pytest.mark.parametrize("password", ["joepw", "wrong"])
    def test_a_missing_database_gets_454(self, peers: Peers, mechanism: str, password: str) -> None:
        with peers.door.daemon.without_database():
            assert gsasl_auth(peers.port, mechanism, "joe", password) == 454

    def test_a_database_that_is_back_serves_the_same_client(
        self, peers: Peers, session: smtplib.SMTP
    ) -> None:
        with peers.door.daemon.without_database():
            without = log_in(session)

        assert (without, log_in(session)) == (454, 235)

    def test_a_front_that_dies_is_not_noticed(self, peers: Peers, session: smtplib.SMTP) -> None:
        log_in(session, "wrong")

        peers.door.kill_front()

        assert log_in(session) == 235

    def test_a_reload_is_not_noticed(self, peers: Peers, session: smtplib.SMTP) -> None:
        log_in(session, "wrong")
        reloads = peers.door.daemon.log().count("reloaded")

        os.kill(peers.door.daemon.pid, signal.SIGHUP)
        wait_for(lambda: peers.door.daemon.log().count("reloaded") > reloads, "a reload")

        assert log_in(session) == 235

    def test_a_client_who_comes_when_the_front_dies_is_greeted(self, peers: Peers) -> None:
        peers.door.kill_front()

        assert swaks_auth(peers.port, "PLAIN", "joe", "joepw").code("AUTH") == 235

    def test_a_daemon_that_is_gone_gets_454(self, peers: Peers, session: smtplib.SMTP) -> None:
        with peers.door.stopped():
            without = log_in(session)

        assert (without, log_in(session)) == (454, 235)
