import logging

import pytest

from pysaslauthd.engine.audit import Audit, escaped
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)

JOE = AuthRequest("joe", Secret(b"hunter2"), "example.org", Origin("smtp"), 0.0)
FAR = JOE._replace(origin=Origin("smtp", "192.0.2.7;51234"))
TOLD = JOE._replace(origin=Origin("smtp", "192.0.2.7", "PLAIN", "198.51.100.1;587"))
YES = Accepted("joe", "sasldb")
NO = Rejected(Reason.WRONG_PASSWORD, "sasldb")


def line_for(
    request: AuthRequest,
    result: AuthResult,
    caplog: pytest.LogCaptureFixture,
    *,
    combine: bool = False,
) -> tuple[str, int]:
    with caplog.at_level(logging.DEBUG, "pysaslauthd"):
        Audit(Names(combine, "host")).record(request, result)
    (record,) = caplog.records
    return record.getMessage(), record.levelno


pytestmark = pytest.mark.usefixtures("seen_logs")


@pytest.mark.parametrize(
    ("request_", "result", "line", "level"),
    [
        pytest.param(
            JOE,
            NO,
            "auth failure: [user=joe] [service=smtp] [realm=example.org] [mech=sasldb]"
            " [reason=Unknown]",
            logging.INFO,
            id="no",
        ),
        pytest.param(
            JOE,
            NO._replace(text="PAM auth error"),
            "auth failure: [user=joe] [service=smtp] [realm=example.org] [mech=sasldb]"
            " [reason=PAM auth error]",
            logging.INFO,
            id="no-with-reason",
        ),
        pytest.param(
            JOE,
            NO._replace(detail="account locked: by the policy"),
            "auth failure: [user=joe] [service=smtp] [realm=example.org] [mech=sasldb]"
            " [reason=account locked: by the policy]",
            logging.INFO,
            id="no-with-detail",
        ),
        pytest.param(
            FAR,
            NO,
            "auth failure: [user=joe] [service=smtp] [realm=example.org]"
            " [remote=192.0.2.7;51234] [mech=sasldb] [reason=Unknown]",
            logging.INFO,
            id="no-from-afar",
        ),
        pytest.param(
            TOLD,
            NO,
            "auth failure: [user=joe] [service=smtp] [realm=example.org] [remote=192.0.2.7]"
            " [local=198.51.100.1;587] [sasl=PLAIN] [mech=sasldb] [reason=Unknown]",
            logging.INFO,
            id="no-with-all-that-can-be-told",
        ),
        pytest.param(
            JOE,
            YES,
            "auth success: [user=joe] [service=smtp] [realm=example.org] [mech=sasldb]",
            logging.DEBUG,
            id="yes",
        ),
        pytest.param(
            FAR,
            YES,
            "auth success: [user=joe] [service=smtp] [realm=example.org]"
            " [remote=192.0.2.7;51234] [mech=sasldb]",
            logging.DEBUG,
            id="yes-from-afar",
        ),
        pytest.param(
            JOE,
            Unavailable("/etc/sasldb2: no such file", "sasldb"),
            "auth unavailable: [user=joe] [service=smtp] [realm=example.org] [mech=sasldb]"
            " [reason=/etc/sasldb2: no such file]",
            logging.ERROR,
            id="outage",
        ),
    ],
)
def test_each_verdict_has_its_line(
    request_: AuthRequest,
    result: AuthResult,
    line: str,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert line_for(request_, result, caplog) == (line, level)


def test_the_user_is_logged_joined_under_r(caplog: pytest.LogCaptureFixture) -> None:
    line, _ = line_for(JOE, NO, caplog, combine=True)

    assert line.startswith("auth failure: [user=joe@example.org] [service=smtp]")


def test_a_success_is_logged_only_when_verbose(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pysaslauthd"):
        Audit(Names(combine=False, default_realm="h")).record(JOE, YES)

    assert caplog.records == []


def test_no_verdict_logs_the_password(caplog: pytest.LogCaptureFixture) -> None:
    for result in (YES, NO, Unavailable("down", "ldap")):
        line_for(JOE, result, caplog)
        caplog.clear()

    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        pytest.param("ann lee", "ann lee", id="plain"),
        pytest.param("jörg", "jörg", id="letters"),
        pytest.param("a]b[c", r"a\x5db\x5bc", id="brackets"),
        pytest.param("a\nb\r", r"a\nb\r", id="line-ends"),
        pytest.param("a\\nb", r"a\x5cnb", id="backslash"),
        pytest.param("a\x1b[2J", r"a\x1b\x5b2J", id="terminal-escape"),
        pytest.param("a\u2028b", r"a\u2028b", id="line-separator"),
        pytest.param("x" * 300, "x" * 256 + "...", id="long"),
    ],
)
def test_a_value_cannot_leave_its_brackets(value: str, logged: str) -> None:
    assert escaped(value) == logged
