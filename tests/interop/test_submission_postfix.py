"""pysaslsmtpd before a real Postfix that heeds XCLIENT: swaks submits, Postfix takes the mail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.postfix import Postfix, postfix_directory, running_postfix
from tests.helpers.processes import short_directory, wait_for
from tests.helpers.smtp import swaks, swaks_auth
from tests.helpers.submission import Submission, submission

pytestmark = pytest.mark.interop("postfix", "swaks")

OWNERS = "joe@example.org=joe@example.org, ann@example.org=ann@example.org"
HERE = ("--from", "joe@example.org", "--to", "ann@foreign.example", "--no-quit-after")


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """Return a Postfix that lets this machine say who its clients are."""
    main = {
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        "smtpd_sender_login_maps": f"inline:{{{OWNERS}}}",
        "smtpd_sender_restrictions": "reject_sender_login_mismatch",
        "smtpd_recipient_limit": "2",
    }
    sasl = {"pwcheck_method": "auxprop", "mech_list": "PLAIN"}
    with postfix_directory() as directory, running_postfix(directory, sasl, main) as running:
        yield running


@pytest.fixture(scope="module")
def running(postfix: Postfix) -> Iterator[Submission]:
    relay = ("--relay", f"127.0.0.1:{postfix.port}", "--local-domain", "example.org")
    with short_directory("sm-") as directory, submission(Path(directory), *relay) as server:
        yield server


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"])
def test_whoever_logs_in_may_send_and_postfix_knows_who(
    running: Submission, postfix: Postfix, mechanism: str
) -> None:
    dialogue = swaks_auth(running.port, mechanism, "joe", "joepw", *HERE)

    assert "queued as" in dialogue.transcript
    wait_for(lambda: "sasl_username=joe@example.org" in postfix.log(), "the login in Postfix's log")


def test_whoever_does_not_log_in_may_not(running: Submission) -> None:
    dialogue = swaks(running.port, *HERE)

    assert dialogue.code("MAIL") == 530


def test_whoever_fails_may_not(running: Submission) -> None:
    dialogue = swaks_auth(running.port, "PLAIN", "joe", "wrong", *HERE)

    assert dialogue.code("AUTH") == 535
    assert "queued as" not in dialogue.transcript


def test_postfixs_own_rules_for_senders_hold(running: Submission) -> None:
    ann = ("--from", "ann@example.org", *HERE[2:])
    dialogue = swaks_auth(running.port, "PLAIN", "joe", "joepw", *ann)

    assert dialogue.replies("RCPT") == [
        "553 5.7.1 <ann@example.org>: Sender address rejected: not owned by user joe@example.org"
    ]
