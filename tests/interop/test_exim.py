"""Exim, which asks at our sockets: by its dovecot driver, and by its saslauthd condition."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.helpers.dovecot_door import Door, dovecot_door
from tests.helpers.exim import (
    SASLAUTHD_AUTHENTICATORS,
    USER,
    Exim,
    dovecot_authenticators,
    require_exim,
    running_exim,
)
from tests.helpers.postfix import join_group
from tests.helpers.processes import wait_for
from tests.helpers.smtp import gsasl_auth, swaks, swaks_auth

pytestmark = pytest.mark.interop("swaks", "gsasl", "unshare")

OF_SWAKS = ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]
OF_GSASL = [*OF_SWAKS, "SCRAM-SHA-1", "SCRAM-SHA-256"]

by_gsasl = pytest.mark.parametrize("mechanism", OF_GSASL)
plain_and_login = pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])


class Peers(NamedTuple):
    """Our daemon and two Exims that ask it."""

    door: Door
    by_dovecot: Exim
    by_saslauthd: Exim


@pytest.fixture(scope="module")
def peers(directory: Path, lacking: Callable[[str], NoReturn]) -> Iterator[Peers]:
    require_exim(lacking)
    join_group(USER, "sasl")
    with (
        dovecot_door(directory, {"joe": "joepw"}, settings="failure_delay = 0.0\n") as door,
        running_exim(dovecot_authenticators(door.path, *OF_GSASL)) as by_dovecot,
        running_exim(SASLAUTHD_AUTHENTICATORS, door.daemon.run_directory) as by_saslauthd,
    ):
        yield Peers(door, by_dovecot, by_saslauthd)


@pytest.fixture(autouse=True)
def _show_the_logs(request: pytest.FixtureRequest, peers: Peers) -> Iterator[None]:
    """Print what was logged during a test: pytest shows it where the test fails."""
    logs = (peers.door.daemon.log, peers.by_dovecot.log, peers.by_saslauthd.log)
    before = [len(log()) for log in logs]
    yield
    for log, start in zip(logs, before, strict=True):
        sys.stdout.write(log()[start:])


class TestDovecotDriver:
    @pytest.mark.parametrize("mechanism", OF_SWAKS)
    def test_a_right_password_gets_235(self, peers: Peers, mechanism: str) -> None:
        dialogue = swaks_auth(peers.by_dovecot.port, mechanism, "joe", "joepw")

        assert dialogue.code("AUTH") == 235

    @pytest.mark.parametrize("mechanism", OF_SWAKS)
    def test_a_wrong_password_gets_535(self, peers: Peers, mechanism: str) -> None:
        dialogue = swaks_auth(peers.by_dovecot.port, mechanism, "joe", "wrong")

        assert dialogue.code("AUTH") == 535

    @pytest.mark.parametrize(("password", "code"), [("joepw", 235), ("wrong", 535)])
    @by_gsasl
    def test_gnu_sasl_gets_the_same(
        self, peers: Peers, mechanism: str, password: str, code: int
    ) -> None:
        assert gsasl_auth(peers.by_dovecot.port, mechanism, "joe", password) == code

    def test_whoever_logged_in_may_relay(self, peers: Peers) -> None:
        dialogue = swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "joepw")

        assert dialogue.code("RCPT") == 250

    def test_whoever_did_not_log_in_may_not(self, peers: Peers) -> None:
        assert swaks(peers.by_dovecot.port).code("RCPT") == 550

    def test_exim_logs_whose_password_was_wrong(self, peers: Peers) -> None:
        before = len(peers.by_dovecot.log())

        swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "wrong")

        line = "535 Incorrect authentication data (set_id=joe)"
        wait_for(lambda: line in peers.by_dovecot.log()[before:], "Exim's line")

    def test_where_clients_are_is_in_our_line_about_a_refusal(self, peers: Peers) -> None:
        before = len(peers.door.daemon.log())

        swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "wrong")

        assert re.search(
            r"auth failure: \[user=joe\] \[service=smtp\] .*\[remote=127\.0\.0\.1\]"
            r" \[local=127\.0\.0\.1\] \[sasl=PLAIN\]",
            peers.door.daemon.log()[before:],
        )

    @by_gsasl
    def test_a_missing_database_gets_435(self, peers: Peers, mechanism: str) -> None:
        with peers.door.daemon.without_database():
            code = gsasl_auth(peers.by_dovecot.port, mechanism, "joe", "joepw")

        assert code == 435

    def test_a_database_that_is_back_serves(self, peers: Peers) -> None:
        with peers.door.daemon.without_database():
            swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "joepw")

        dialogue = swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "joepw")

        assert dialogue.code("AUTH") == 235

    def test_a_front_that_dies_is_not_noticed(self, peers: Peers) -> None:
        peers.door.kill_front()

        dialogue = swaks_auth(peers.by_dovecot.port, "PLAIN", "joe", "joepw")

        assert dialogue.code("AUTH") == 235


class TestSaslauthdCondition:
    @pytest.mark.parametrize(("password", "code"), [("joepw", 235), ("wrong", 535)])
    @plain_and_login
    def test_a_password_is_right_or_not(
        self, peers: Peers, mechanism: str, password: str, code: int
    ) -> None:
        dialogue = swaks_auth(peers.by_saslauthd.port, mechanism, "joe", password)

        assert dialogue.code("AUTH") == code

    @plain_and_login
    def test_a_missing_database_gets_435(self, peers: Peers, mechanism: str) -> None:
        with peers.door.daemon.without_database():
            dialogue = swaks_auth(peers.by_saslauthd.port, mechanism, "joe", "joepw")

        assert dialogue.code("AUTH") == 435

    def test_whoever_logged_in_may_relay(self, peers: Peers) -> None:
        dialogue = swaks_auth(peers.by_saslauthd.port, "PLAIN", "joe", "joepw")

        assert dialogue.code("RCPT") == 250
