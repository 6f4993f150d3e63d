"""Other people's mail clients log in at a server that aiosmtpd and our AUTH make."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from pysaslauthd.smtp.options import Policy, SecurityOptions
from tests.helpers.certificates import Authority
from tests.helpers.processes import DEADLINE
from tests.helpers.smtp import swaks_auth
from tests.helpers.smtp_server import auth, server_context, smtp_server

OF_GSASL = ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"]
OF_SWAKS = ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    certificate = Authority(tmp_path_factory.mktemp("pki")).issue()
    made = auth(Policy(SecurityOptions.parse("noanonymous")), broken_clients=True)
    context = server_context(certificate)
    with smtp_server(made, tls_context=context, auth_required=True) as port:
        yield port


def gsasl(port: int, mechanism: str, password: str) -> str:
    """Log in with gsasl; return what it and the server said."""
    done = subprocess.run(
        [
            *("gsasl", "--smtp", "--connect", f"127.0.0.1:{port}", "--no-starttls"),
            *("--mechanism", mechanism, "--authentication-id", "joe", "--password", password),
            *("--service", "smtp", "--hostname", "127.0.0.1", "--quality-of-protection=qop-auth"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,  # once it has logged in, it ends by SIGPIPE for want of input
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


@pytest.mark.interop("gsasl")
@pytest.mark.parametrize("mechanism", OF_GSASL)
def test_gsasl_logs_in(port: int, mechanism: str) -> None:
    transcript = gsasl(port, mechanism, "joepw")

    assert "235 2.7.0 Authentication successful" in transcript


@pytest.mark.interop("gsasl")
@pytest.mark.parametrize("mechanism", OF_GSASL)
def test_gsasl_does_not_with_a_wrong_password(port: int, mechanism: str) -> None:
    transcript = gsasl(port, mechanism, "wrong")

    assert "535 5.7.8 Error: authentication failed: authentication failure" in transcript


@pytest.mark.interop("swaks")
@pytest.mark.parametrize("mechanism", OF_SWAKS)
def test_swaks_logs_in(port: int, mechanism: str) -> None:
    dialogue = swaks_auth(port, mechanism, "joe", "joepw")

    assert dialogue.code("AUTH") == 235
    assert dialogue.code("RCPT") == 250


@pytest.mark.interop("swaks")
@pytest.mark.parametrize("mechanism", OF_SWAKS)
def test_swaks_logs_in_within_tls(port: int, mechanism: str) -> None:
    dialogue = swaks_auth(port, mechanism, "joe", "joepw", "--tls")

    assert dialogue.code("RCPT") == 250


@pytest.mark.interop("swaks")
@pytest.mark.parametrize("mechanism", OF_SWAKS)
def test_swaks_does_not_with_a_wrong_password(port: int, mechanism: str) -> None:
    dialogue = swaks_auth(port, mechanism, "joe", "wrong")

    assert dialogue.code("AUTH") == 535
