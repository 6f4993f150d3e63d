"""Several pysaslsmtpd at one port, with --reuse-port and without."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import ServerFailed, short_directory, wait_for
from tests.helpers.smtp_server import Client
from tests.helpers.submission import Submission, submission

JOE = "AUTH PLAIN " + base64.b64encode(b"\0joe\0joepw").decode()
DOMAIN = ("--local-domain", "example.org")


@pytest.fixture
def own() -> Iterator[Path]:
    with short_directory("sm-") as directory:
        yield directory


@pytest.fixture
def others() -> Iterator[Path]:
    with short_directory("sm-") as directory:
        yield directory


def log_in(port: int) -> list[str]:
    with Client(port) as client:
        client.say("EHLO client.test.example")
        return client.say(JOE)


def has_served(server: Submission) -> bool:
    return "auth success: [user=joe]" in server.log()


def test_instances_that_share_a_port_serve_both(own: Path, others: Path) -> None:
    with (
        submission(own, *DOMAIN, "--reuse-port") as first,
        submission(others, *DOMAIN, "--reuse-port", port=first.port) as second,
    ):

        def both_have_served() -> bool:
            assert log_in(first.port)[0].startswith("235 ")
            return has_served(first) and has_served(second)

        # The system chooses by a hash of the client's port, so that two in a row may be one's.
        wait_for(both_have_served, "a login at each of both")


def test_an_instance_that_is_left_serves_alone(own: Path, others: Path) -> None:
    with submission(own, *DOMAIN, "--reuse-port") as first:
        with submission(others, *DOMAIN, "--reuse-port", port=first.port):
            pass

        assert log_in(first.port)[0].startswith("235 ")


@pytest.mark.parametrize(
    ("first_has", "second_has"),
    [
        pytest.param([], [], id="neither"),
        pytest.param(["--reuse-port"], [], id="the-first-only"),
        pytest.param([], ["--reuse-port"], id="the-second-only"),
    ],
)
def test_instances_that_do_not_both_share_do_not_both_start(
    own: Path, others: Path, first_has: list[str], second_has: list[str]
) -> None:
    with submission(own, *DOMAIN, *first_has) as first:
        with (
            pytest.raises(ServerFailed) as failure,
            submission(others, *second_has, port=first.port),
        ):
            pass

        complaint = f"cannot listen on 127.0.0.1 port {first.port}: Address already in use"
        assert "exit code 78" in str(failure.value)
        assert complaint in str(failure.value)
        assert log_in(first.port)[0].startswith("235 ")
