"""What `-a httpform` refuses at the start, and what of its settings reaches the backend."""

import sys
from pathlib import Path

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Unavailable
from pysaslauthd.plugins import MECHANISMS
from tests.contract.verifier import request_for, settled
from tests.helpers.workers import serving

HTTPFORM = MECHANISMS["httpform"]


def check(table: Httpform, *allowed: str) -> None:
    HTTPFORM.check(Settings(mechanism="httpform", httpform=table, allow_cleartext=allowed))


def refusal(table: Httpform, *allowed: str) -> list[str]:
    with pytest.raises(StartupError) as refused:
        check(table, *allowed)
    return list(refused.value.lines)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_passwords_may_go_unencrypted_to_this_machine(host: str) -> None:
    check(Httpform(host=host))


@pytest.mark.parametrize("host", ["www.example.org", "192.0.2.1", "2001:db8::1"])
def test_they_may_not_to_another(host: str) -> None:
    problem, cure = refusal(Httpform(host=host))

    assert problem == f"httpform_tls: passwords would go unencrypted to {host}"
    assert "httpform_tls: yes (tls = true in [httpform])" in cure
    assert f"--allow-cleartext {host}" in cure


def test_they_may_to_one_that_is_allowed() -> None:
    check(Httpform(host="www.example.org"), "www.example.org")


def test_with_tls_they_may_go_anywhere() -> None:
    check(Httpform(host="www.example.org", tls=True))


def test_authorities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")

    (problem,) = refusal(Httpform(tls=True, tls_cacert_file=missing))

    assert problem == f"httpform: {missing}: No such file or directory (tls_cacert_file)"


def test_without_aiohttp_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    problem, cure = refusal(Httpform())

    assert "aiohttp" in problem
    assert cure == "install it: pip install 'pysaslauthd[http]'"


@pytest.mark.parametrize(
    ("table", "server"),
    [
        (Httpform(uri="/"), "localhost:80"),
        (Httpform(tls=True), "localhost:443"),
        (Httpform(host="::1", port=8080), "[::1]:8080"),
        (Httpform(tls=True, port=8443), "localhost:8443"),
    ],
)
async def test_the_port_is_that_of_http_or_https_unless_told(table: Httpform, server: str) -> None:
    settings = Settings(mechanism="httpform", httpform=table)

    backend = HTTPFORM.make(settings, serving())
    result = await settled(backend.verify(request_for("joe", b"pw")))
    await backend.close()

    assert isinstance(result, Unavailable)
    assert result.detail.startswith(f"{server}: ")
