"""Other people's mail clients, each of which logs in as joe by a mechanism that it is told."""

import os
import smtplib
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.helpers.processes import DEADLINE
from tests.helpers.smtp import swaks_auth

HOST = "127.0.0.1"
SENDER, RECIPIENT = "joe@example.org", "ann@foreign.example"
MESSAGE = "Subject: x\n\nx\n"


class Login(NamedTuple):
    """What a client is to do; *authority* signed the server's certificate: STARTTLS comes first."""

    port: int
    mechanism: str
    password: str
    authority: Path | None = None


class Outcome(NamedTuple):
    """What the client makes of the server's last word, and what was said."""

    is_satisfied: bool
    transcript: str


def curl(login: Login) -> Outcome:
    """Log in with curl, and send a message."""
    tls = () if login.authority is None else ("--ssl-reqd", "--cacert", login.authority)
    return _run(
        *("curl", "--disable", "--silent", "--verbose", *tls),
        *("--login-options", f"AUTH={login.mechanism}", "--user", f"joe:{login.password}"),
        *("--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", "-"),
        f"smtp://{HOST}:{login.port}/client.test.example",
        text=MESSAGE,
    )


def msmtp(login: Login) -> Outcome:
    """Log in with msmtp, and send a message."""
    tls: tuple[str, ...] = ("--tls=off",)
    if login.authority is not None:
        tls = ("--tls=on", "--tls-starttls=on", f"--tls-trust-file={login.authority}")
    return _run(
        *("msmtp", "--debug", "--file=/dev/null", f"--host={HOST}", f"--port={login.port}", *tls),
        *(f"--auth={login.mechanism.lower()}", "--user=joe"),
        *(f"--passwordeval=echo {login.password}", f"--from={SENDER}", RECIPIENT),
        text=MESSAGE,
    )


def with_smtplib(login: Login) -> Outcome:
    """Log in with Python's smtplib, and send a message."""
    with smtplib.SMTP(HOST, login.port, "client.test.example", DEADLINE) as client:
        if login.authority is not None:
            client.starttls(context=ssl.create_default_context(cafile=login.authority))
        client.ehlo()
        client.user, client.password = "joe", login.password
        way = getattr(client, f"auth_{login.mechanism.lower().replace('-', '_')}")
        try:
            code, said = client.auth(login.mechanism, way)
            client.sendmail(SENDER, RECIPIENT, MESSAGE)
        except smtplib.SMTPAuthenticationError as error:
            return Outcome(is_satisfied=False, transcript=_reply(error.smtp_code, error.smtp_error))
        return Outcome(is_satisfied=True, transcript=_reply(code, said))


def smtptest(login: Login) -> Outcome:
    """Log in with Cyrus' own client, whose mechanisms are libsasl's."""
    tls = () if login.authority is None else ("-t", "")  # no certificate of its own
    said = _run(
        *("smtptest", "-p", str(login.port), "-m", login.mechanism, *tls),
        *("-a", "joe", "-u", "joe", "-w", login.password, "-r", "example.org", HOST),
    )
    return said._replace(is_satisfied="\nAuthenticated.\n" in said.transcript)


def gsasl(login: Login) -> Outcome:
    """Log in with the client of GNU SASL."""
    tls: tuple[str, ...] = ("--no-starttls",)
    if login.authority is not None:
        # It takes SCRAM without -PLUS within TLS for a downgrade, unless it need not look.
        tls = ("--starttls", "--no-cb", f"--x509-ca-file={login.authority}")
    said = _run(
        *("gsasl", "--smtp", "--connect", f"{HOST}:{login.port}", *tls),
        *("--mechanism", login.mechanism, "--authentication-id", "joe"),
        *("--password", login.password, "--service", "smtp", "--hostname", HOST),
        "--quality-of-protection=qop-auth",
    )
    # How it ends once it has logged in depends on when its input does.
    trusts = "Client authentication finished (server trusted)" in said.transcript
    return said._replace(is_satisfied=trusts)


def swaks(login: Login) -> Outcome:
    """Log in with swaks, which then goes on to RCPT."""
    tls: tuple[str, ...] = ()
    if login.authority is not None:
        tls = ("--tls", "--tls-verify", "--tls-ca-path", str(login.authority))
    dialogue = swaks_auth(login.port, login.mechanism, "joe", login.password, *tls)
    return Outcome(dialogue.code("RCPT") == 250, dialogue.transcript)


def _reply(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


def _run(program: str, *arguments: str | Path, text: str = "") -> Outcome:
    """Run a client, whose exit code says whether it is satisfied."""
    done = subprocess.run(
        [program, *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        timeout=DEADLINE,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
    )
    return Outcome(done.returncode == 0, done.stdout)
