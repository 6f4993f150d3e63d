"""What the backends that ask servers elsewhere share."""

import ssl
from pathlib import Path

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Tls
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret
from pysaslauthd.plugins.elsewhere import refuse_cleartext, tls_context
from pysaslauthd.remote.endpoint import Endpoint, Security
from tests.helpers.certificates import Authority

CLEAR = Endpoint("mail.example.org", 143, Security.NONE)


def settings(*allowed: str) -> Settings:
    return Settings(mechanism="rimap", allow_cleartext=allowed)


def problem_of(table: Tls) -> str:
    with pytest.raises(StartupError) as caught:
        tls_context(table, "rimap")
    return str(caught.value)


def test_a_table_is_a_context(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    table = Tls(
        tls_cacert_file=str(authority.file),
        tls_cacert_dir=str(tmp_path),
        tls_minimum="1.3",
        tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
        tls_identity=Secret(authority.issue().identity),
    )

    context = tls_context(table, "rimap")

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert len(context.get_ca_certs()) == 1


def test_a_table_may_check_nothing() -> None:
    assert tls_context(Tls(tls_check_peer=False), "rimap").verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            Tls(tls_cacert_file="/nowhere/ca.pem"),
            "/nowhere/ca.pem: No such file or directory (tls_cacert_file)",
        ),
        (
            Tls(tls_cacert_dir="/nowhere/certs"),
            "/nowhere/certs: No such file or directory (tls_cacert_dir)",
        ),
        (Tls(tls_ciphers="MY-OWN"), "tls_ciphers: OpenSSL knows no cipher by 'MY-OWN'"),
        (
            Tls(tls_identity=Secret(b"garbage")),
            "tls_cert and tls_key: not a certificate and its key in PEM",
        ),
    ],
    ids=["file", "directory", "ciphers", "identity"],
)
def test_a_table_that_is_none_names_backend_and_setting(table: Tls, problem: str) -> None:
    assert problem_of(table) == f"rimap: {problem}"


@pytest.mark.parametrize(
    "endpoint",
    [
        CLEAR._replace(security=Security.TLS),
        CLEAR._replace(security=Security.STARTTLS),
        CLEAR._replace(host="localhost"),
        CLEAR._replace(host="127.0.0.1"),
        CLEAR._replace(path="/run/imap"),
    ],
    ids=["tls", "starttls", "name", "address", "unix"],
)
def test_a_private_way_needs_no_permission(endpoint: Endpoint) -> None:
    refuse_cleartext(endpoint, settings(), "-O", "use TLS")


def test_a_way_in_clear_is_refused_with_its_cures() -> None:
    with pytest.raises(StartupError) as caught:
        refuse_cleartext(CLEAR, settings("other.example.org"), "-O mail.example.org", "use imaps")

    assert caught.value.lines == (
        "-O mail.example.org: passwords would go unencrypted to mail.example.org",
        "use imaps; or allow it: --allow-cleartext mail.example.org"
        " (allow_cleartext in the configuration file)",
    )


def test_a_way_in_clear_can_be_allowed() -> None:
    refuse_cleartext(CLEAR, settings("mail.example.org"), "-O", "use TLS")
