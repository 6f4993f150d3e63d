"""Other people's mail clients log in at pysaslsmtpd, and do not with a wrong password."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.mail_clients import (
    Login,
    Outcome,
    curl,
    gsasl,
    msmtp,
    smtptest,
    swaks,
    with_smtplib,
)
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.submission import Behind, Submission, behind, submission

OLD = ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5")
SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256")
CLIENTS = {
    curl: OLD,  # Debian's is built without GNU SASL, so it knows no SCRAM
    msmtp: (*OLD, *SCRAM),
    with_smtplib: ("PLAIN", "LOGIN", "CRAM-MD5"),
    smtptest: (*OLD, *SCRAM, "SCRAM-SHA-512"),
    gsasl: (*OLD, *SCRAM),
    swaks: OLD,
}
RIGHT, WRONG = "joepw", "wrong"
AT_ONCE = 8  # clients: each refusal is held for a second


class Case(NamedTuple):
    """A client, and what it is to do."""

    client: Callable[[Login], Outcome]
    mechanism: str
    password: str
    within_tls: bool = False


CASES = [
    Case(client, mechanism, password, within_tls)
    for client, mechanisms in CLIENTS.items()
    for mechanism in mechanisms
    for password in (RIGHT, WRONG)
    for within_tls in (False, True)
]


def every(password: str) -> pytest.MarkDecorator:
    """Let a test run for every client, each mechanism that it knows, without TLS and within."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=name(case), marks=pytest.mark.interop(program(case)))
            for case in CASES
            if case.password == password
        ],
    )


def name(case: Case) -> str:
    return f"{program(case)}-{case.mechanism}{'-starttls' if case.within_tls else ''}"


def program(case: Case) -> str:
    return "python3" if case.client is with_smtplib else case.client.__name__


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with short_directory("sm-") as directory:
        yield directory


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def running(directory: Path, authority: Authority) -> Iterator[Submission]:
    certificate = authority.issue()
    with (
        behind(Behind()) as port,
        submission(
            directory,
            *("--relay", f"127.0.0.1:{port}", "--local-domain", "example.org"),
            *("--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.key)),
        ) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def outcomes(running: Submission, authority: Authority) -> Iterator[dict[Case, Future[Outcome]]]:
    """Return what becomes of every case; some are under way at once."""

    def log_in(case: Case) -> Outcome:
        trusted = authority.file if case.within_tls else None
        return case.client(Login(running.port, case.mechanism, case.password, trusted))

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {case: pool.submit(log_in, case) for case in CASES}
    finally:
        pool.shutdown(cancel_futures=True)


@every(RIGHT)
def test_a_right_password_lets_in(outcomes: dict[Case, Future[Outcome]], case: Case) -> None:
    is_satisfied, transcript = outcomes[case].result()

    assert "235 2.7.0 Authentication successful" in transcript
    assert is_satisfied, transcript


@every(WRONG)
def test_a_wrong_password_does_not(outcomes: dict[Case, Future[Outcome]], case: Case) -> None:
    is_satisfied, transcript = outcomes[case].result()

    assert "535 5.7.8 Error: authentication failed: authentication failure" in transcript
    assert not is_satisfied, transcript


@pytest.mark.interop(*{program(case) for case in CASES})
def test_each_has_used_the_mechanism_that_it_was_told(
    outcomes: dict[Case, Future[Outcome]], running: Submission
) -> None:
    wait(outcomes.values(), DEADLINE)

    used = re.findall(r"auth (success|failure): .* \[sasl=([^]]+)\]", running.log())
    verdict = {RIGHT: "success", WRONG: "failure"}
    assert Counter(used) == Counter((verdict[case.password], case.mechanism) for case in CASES)
