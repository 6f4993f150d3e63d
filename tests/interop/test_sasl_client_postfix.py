"""Our client halves log in over SMTP at a real Postfix, which asks Cyrus SASL and its sasldb."""

import os
from collections.abc import Iterator

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials, find
from tests.helpers.postfix import HOST_NAME, Postfix, postfix_directory, running_postfix
from tests.helpers.processes import wait_for
from tests.helpers.sasl_servers import REFUSAL, Reply, authenticate
from tests.helpers.smtp_sasl import SmtpServer
from tests.interop.test_sasl_client import MECHANISMS, pairs
from tests.interop.users import JOE, LATIN, LONG, REALM, ZOE, User, make_database

pytestmark = pytest.mark.interop("postfix", "saslpasswd2")

RECIPIENT = "RCPT TO:<ann@foreign.example>"


@pytest.fixture(scope="module")
def postfix(as_root: None) -> Iterator[Postfix]:
    with postfix_directory() as directory:
        make_database(directory / "sasldb2")
        sasl = {
            "pwcheck_method": "auxprop",
            "auxprop_plugin": "sasldb",
            "sasldb_path": directory / "sasldb2",
            "mech_list": " ".join(MECHANISMS),
        }
        with running_postfix(directory, sasl, {"smtpd_sasl_local_domain": REALM}) as running:
            yield running


@pytest.fixture
def server(postfix: Postfix) -> Iterator[SmtpServer]:
    with SmtpServer(postfix.port) as server:
        yield server


def log_in(server: SmtpServer, mechanism: str, user: User) -> Reply:
    password = Secret(os.fsencode(user.password))
    credentials = Credentials(user.name, password, service="smtp", host=HOST_NAME)
    return authenticate(server, ClientExchange(find(mechanism), credentials))


@pairs(MECHANISMS, [JOE, ZOE, LATIN, LONG])
def test_a_right_password_lets_in(server: SmtpServer, mechanism: str, user: User) -> None:
    assert log_in(server, mechanism, user).is_success
    assert server.client.say("MAIL FROM:<>") == ["250 2.1.0 Ok"]
    assert server.client.say(RECIPIENT) == ["250 2.1.5 Ok"]


@pairs(MECHANISMS, [JOE, ZOE, User("nobody", "right")])
def test_a_wrong_password_does_not(server: SmtpServer, mechanism: str, user: User) -> None:
    assert log_in(server, mechanism, user._replace(password="wrong")) == REFUSAL
    assert server.said.startswith("535 5.7.8 Error: authentication failed: ")
    assert server.client.say("MAIL FROM:<>") == ["250 2.1.0 Ok"]
    assert server.client.say(RECIPIENT)[0].startswith("554 5.7.1 ")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_postfix_knows_who_it_is_and_by_what(
    postfix: Postfix, server: SmtpServer, mechanism: str
) -> None:
    before = len(postfix.log())
    log_in(server, mechanism, JOE)
    server.client.say("MAIL FROM:<>")
    server.client.say(RECIPIENT)

    line = f"sasl_method={mechanism}, sasl_username={JOE.login}"
    wait_for(lambda: line in postfix.log()[before:], "the login in Postfix's log")
