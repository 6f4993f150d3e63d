"""What -PLUS mechanisms bind to, as openssl says it, and libsasl bound to it at pysaslsmtpd."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pysaslauthd.server.binding import end_point
from tests.helpers.daemon import command, environment
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.sasl_clients import ClientProcess, SaslClient, Wish, log_in
from tests.helpers.sasl_servers import REFUSAL
from tests.helpers.smtp_sasl import SmtpServer
from tests.helpers.submission import Submission, submission

pytestmark = pytest.mark.interop("openssl")

RSA = ("-newkey", "rsa:2048")
PSS = (*RSA, "-sigopt", "rsa_padding_mode:pss")
ECDSA = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
END_POINT = "tls-server-end-point"
PLUS = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS"]


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return done.stdout


def certificate(directory: Path, *options: str, name: str = "mail") -> Path:
    """Return a file with a certificate and its key that openssl makes with *options*."""
    made, key = directory / f"{name}.pem", directory / f"{name}.key"
    subject = ("-subj", f"/CN={name}.test.example")
    openssl("req", "-x509", "-nodes", *options, *subject, "-keyout", key, "-out", made)
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made


def fingerprint(file: Path, hash_name: str) -> bytes:
    """Return the hash of the certificate in *file*, as openssl computes it."""
    said = openssl("x509", "-in", file, "-noout", "-fingerprint", f"-{hash_name}")
    return bytes.fromhex(said.partition("=")[2].replace(":", ""))


@pytest.mark.parametrize(
    ("options", "hash_name"),
    [
        pytest.param((*RSA, "-md5"), "sha256", id="rsa-md5"),
        pytest.param((*RSA, "-sha1"), "sha256", id="rsa-sha1"),
        pytest.param((*RSA, "-sha224"), "sha224", id="rsa-sha224"),
        pytest.param((*RSA, "-sha256"), "sha256", id="rsa-sha256"),
        pytest.param((*RSA, "-sha384"), "sha384", id="rsa-sha384"),
        pytest.param((*RSA, "-sha512"), "sha512", id="rsa-sha512"),
        pytest.param((*RSA, "-sha3-256"), "sha3-256", id="rsa-sha3-256"),
        pytest.param((*PSS, "-sha384"), "sha384", id="rsa-pss-sha384"),
        pytest.param((*ECDSA, "-sha1"), "sha256", id="ecdsa-sha1"),
        pytest.param((*ECDSA, "-sha256"), "sha256", id="ecdsa-sha256"),
        pytest.param((*ECDSA, "-sha512"), "sha512", id="ecdsa-sha512"),
    ],
)
def test_a_certificate_is_hashed_as_it_was_signed_but_never_weakly(
    tmp_path: Path, options: tuple[str, ...], hash_name: str
) -> None:
    file = certificate(tmp_path, *options)

    assert end_point(file.read_bytes()) == (END_POINT, fingerprint(file, hash_name))


def test_of_a_chain_the_first_certificate_counts(tmp_path: Path) -> None:
    own = certificate(tmp_path, *ECDSA, "-sha384", name="own")
    issuer = certificate(tmp_path, *ECDSA, "-sha256", name="issuer")

    bound = end_point(own.read_bytes() + issuer.read_bytes())

    assert bound.data == fingerprint(own, "sha384")


@pytest.mark.parametrize("algorithm", ["ed25519", "ed448"])
def test_a_signature_without_a_hash_function_has_none(tmp_path: Path, algorithm: str) -> None:
    file = certificate(tmp_path, "-newkey", algorithm)

    with pytest.raises(ValueError, match=f"a certificate with such a signature has no {END_POINT}"):
        end_point(file.read_bytes())


@pytest.mark.parametrize("pem", [b"", b"no certificate"], ids=["empty", "something-else"])
def test_what_is_no_certificate_has_none(pem: bytes) -> None:
    with pytest.raises(ValueError, match="PEM"):
        end_point(pem)


@pytest.fixture(scope="module")
def running() -> Iterator[Submission]:
    """Return a server with a certificate that is hashed in another way than most are."""
    with short_directory("sm-") as directory:
        file = certificate(directory, *RSA, "-sha384")
        tls = ("--tls-cert", str(file), "--mech-list", " ".join([*PLUS, "SCRAM-SHA-256"]))
        with submission(directory, *tls, "--local-domain", "example.org") as server:
            yield server


@pytest.fixture
def server(running: Submission) -> Iterator[SmtpServer]:
    with SmtpServer(running.port, within_tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def libsasl() -> Iterator[SaslClient]:
    client = ClientProcess(sys.executable, "-m", "tests.helpers.libsasl_login")
    yield client
    client.end()


def bound(server: SmtpServer, mechanism: str, password: str = "joepw") -> Wish:
    """Return the wish of a client that binds itself to the certificate which it sees."""
    seen = hashlib.sha384(server.client.certificate()).digest()
    return Wish(mechanism, "joe", password, channel_type=END_POINT, channel_data=seen)


def test_plus_is_offered_within_tls_only(running: Submission, server: SmtpServer) -> None:
    with SmtpServer(running.port) as in_the_clear:
        assert "250-AUTH SCRAM-SHA-256" in in_the_clear.lines

    offered = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS"
    assert f"250-AUTH {offered}" in server.lines


@pytest.mark.parametrize("mechanism", PLUS)
def test_whoever_sees_this_servers_certificate_logs_in(
    running: Submission, server: SmtpServer, libsasl: SaslClient, mechanism: str
) -> None:
    before = len(running.log())

    assert log_in(server, libsasl, bound(server, mechanism)).is_success
    said = "auth success: [user=joe] [service=smtp] [realm=] [remote=127.0.0.1]"
    assert f"{said} [sasl={mechanism}] [mech=sasldb]" in running.log()[before:]


@pytest.mark.parametrize("mechanism", PLUS)
def test_a_wrong_password_does_not(server: SmtpServer, libsasl: SaslClient, mechanism: str) -> None:
    assert log_in(server, libsasl, bound(server, mechanism, "wrong")) == REFUSAL
    assert server.said == "535 5.7.8 Error: authentication failed: authentication failure"


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"channel_data": b"\xff" * 48}, id="certificate"),
        pytest.param({"channel_data": b""}, id="nothing"),
        pytest.param({"channel_type": "tls-unique"}, id="type"),
    ],
)
def test_whoever_is_bound_to_something_else_does_not(
    server: SmtpServer, libsasl: SaslClient, elsewhere: dict[str, Any]
) -> None:
    wish = bound(server, "SCRAM-SHA-256-PLUS")._replace(**elsewhere)

    assert log_in(server, libsasl, wish) == REFUSAL


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param([], "--mech-list: SCRAM-SHA-256-PLUS needs TLS: --tls-cert", id="no-tls"),
        pytest.param(
            ["--tls-cert", "mail.pem"],
            "--tls-cert mail.pem, for SCRAM-SHA-256-PLUS: a certificate with such a signature",
            id="ed25519",
        ),
    ],
)
def test_a_server_that_can_bind_to_nothing_does_not_start(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    certificate(tmp_path, "-newkey", "ed25519")
    plus = ["-a", "sasldb", "--listen", "192.0.2.1", "--mech-list", "SCRAM-SHA-256-PLUS"]

    done = subprocess.run(
        [*command("smtpd"), *plus, *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert done.returncode == 78
    assert complaint in done.stderr
