import importlib.util
import logging
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from pysaslauthd.cli import smtpd
from pysaslauthd.cli.smtpd import main
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.processes import free_port

BACKEND = ["-a", "sasldb"]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Take back what a command that has started does to the log."""
    loggers = [logging.getLogger(name) for name in ("pysaslauthd", "asyncio")]
    before = [(one.propagate, one.handlers[:], one.level) for one in loggers]
    yield
    for one, (propagate, handlers, level) in zip(loggers, before, strict=True):
        one.propagate, one.handlers = propagate, handlers
        one.setLevel(level)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_option(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0

    text = capsys.readouterr().out
    assert [name for name in smtpd.LONG if f"--{name}" not in text] == []


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_version_names_the_backends(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert "backends: sasldb " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--nonsense"], "unrecognized option '--nonsense'", id="option"),
        pytest.param([*BACKEND, "x"], "what is 'x'?", id="operand"),
        pytest.param([*BACKEND, *BACKEND], "-a was given twice", id="two-backends"),
        pytest.param(BACKEND, "no --listen HOST:PORT", id="nowhere"),
        pytest.param([*BACKEND, "--listen", "[::1"], "--listen: not a host: '[::1'", id="listen"),
        pytest.param(
            [*BACKEND, "--listen", "a", "--recipients", "0"],
            "--recipients takes a number greater than zero, not '0'",
            id="recipients",
        ),
    ],
)
def test_a_wrong_command_line_is_64(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--listen", "127.0.0.1"], "no mechanism: set it there", id="no-backend"),
        pytest.param(
            ["-a", "nis", "--listen", "127.0.0.1"], "unknown authentication", id="backend"
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--security-options", "none"],
            "unknown security option 'none': known are noanonymous, noplaintext",
            id="security-options",
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--mech-list", "PLAIN NTLM"],
            "--mech-list: there is no mechanism NTLM",
            id="mech-list",
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--mech-list", "anonymous"],
            "--mech-list: ANONYMOUS: whoever hands in mail must have a password",
            id="anonymous",
        ),
        pytest.param(
            [*BACKEND, "--listen-tls", "127.0.0.1"], "--listen-tls needs --tls-cert", id="no-cert"
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--tls-cert", "/nonexistent"],
            "--tls-cert /nonexistent: No such file or directory",
            id="cert",
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--mech-list", "EXTERNAL"],
            "--mech-list: EXTERNAL: whoever hands in mail must have a password",
            id="external",
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--tls-security-options", "no"],
            "--tls-security-options: unknown security option 'no'",
            id="tls-security-options",
        ),
        pytest.param(
            [*BACKEND, "--listen", "127.0.0.1", "--tls-key", "/nonexistent"],
            "--tls-key needs --tls-cert",
            id="key-alone",
        ),
        pytest.param(
            [*BACKEND, "--listen", "192.0.2.1:2525"], "cannot listen on 192.0.2.1", id="address"
        ),
    ],
)
def test_what_cannot_start_is_78(
    arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 78
    assert complaint in capfd.readouterr().err


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "aiosmtplib" else importlib.util.spec_from_loader(name, None)

    monkeypatch.setattr(importlib.util, "find_spec", find)

    assert main([*BACKEND, "--listen", f"127.0.0.1:{free_port()}"]) == 78
    assert "pip install 'pysaslauthd[smtp]'" in capfd.readouterr().err


def test_a_file_of_tls_that_is_none_is_named_before_a_port_is_taken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("no certificate")

    assert main([*BACKEND, "--listen", "192.0.2.1", "--tls-cert", str(file)]) == 78
    assert f"--tls-cert {file}: there is no certificate in PEM in it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        pytest.param("nonexistent", "nonexistent: No such file or directory", id="missing"),
        pytest.param(
            "test-authority.pem", "authority.pem: there is no private key in PEM in it", id="no-key"
        ),
        pytest.param("other.key", "the key is not that of the certificate", id="anothers"),
        pytest.param("broken.key", "broken.key: [", id="broken"),
    ],
)
def test_a_key_that_does_not_fit_is_told_from_the_certificate(
    tmp_path: Path, key: str, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    mine, others = authority.issue(), authority.issue()
    others.key.rename(tmp_path / "other.key")
    (tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nx\n")
    tls = ["--tls-cert", str(mine.certificate), "--tls-key", str(tmp_path / key)]

    assert main([*BACKEND, "--listen", "192.0.2.1", *tls]) == 78
    complained = capfd.readouterr().err
    assert complaint in complained
    assert f"--tls-key {tmp_path}" in complained


def test_a_key_that_needs_a_passphrase_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = Authority(tmp_path).issue()
    key = load_pem_private_key(made.key.read_bytes(), None)
    locked = BestAvailableEncryption(b"hunter2")
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    tls = ["--tls-cert", str(made.certificate), "--tls-key", str(made.key)]

    assert main([*BACKEND, "--listen", "192.0.2.1", *tls]) == 78
    assert f"--tls-key {made.key}: it is encrypted" in capfd.readouterr().err


@pytest.mark.parametrize("issue", [Authority.issue_expired, Authority.issue_too_early])
def test_a_certificate_whose_time_is_not_now_is_warned_of(
    tmp_path: Path, issue: Callable[[Authority], Certificate], capfd: pytest.CaptureFixture[str]
) -> None:
    made = issue(Authority(tmp_path))
    tls = ["--tls-cert", str(made.certificate), "--tls-key", str(made.key)]

    assert main([*BACKEND, "--listen", "192.0.2.1", *tls]) == 78
    assert f"--tls-cert {made.certificate}: it is valid from " in capfd.readouterr().err


def test_what_is_set_in_vain_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*BACKEND, "--listen", "192.0.2.1", "--own-senders"]) == 78

    said = capfd.readouterr().err
    assert "no --relay: whoever logs in is told 451 for every message" in said
    assert "--own-senders without --local-domain" in said
