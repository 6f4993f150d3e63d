"""TLS contexts from rules; what they do with servers is in test_connect_tls."""

import os
import pty
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pysaslauthd.model import Secret
from pysaslauthd.remote.tls import TlsProblem, TlsRules, explain, make_context
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.stores import as_nobody, only_root
from tests.helpers.workers import count_descriptors


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue()


def problem_of(rules: TlsRules) -> str:
    with pytest.raises(TlsProblem) as caught:
        make_context(rules)
    return str(caught.value)


def test_servers_are_checked_unless_told_otherwise() -> None:
    context = make_context(TlsRules())

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_check_can_be_left_out() -> None:
    context = make_context(TlsRules(check_peer=False))

    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_the_systems_authorities_are_those_without_others(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    (known,) = make_context(TlsRules()).get_ca_certs()

    assert known["subject"] == ((("commonName", "test authority"),),)


def test_an_authority_of_ones_own_stands_alone(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path, "the system's").file))

    (known,) = make_context(TlsRules(ca_file=str(authority.file))).get_ca_certs()

    assert known["subject"] == ((("commonName", "test authority"),),)


@pytest.mark.parametrize(
    ("minimum", "version"), [("1.2", ssl.TLSVersion.TLSv1_2), ("1.3", ssl.TLSVersion.TLSv1_3)]
)
def test_the_oldest_version_is_a_rule(minimum: str, version: ssl.TLSVersion) -> None:
    assert make_context(TlsRules(minimum=minimum)).minimum_version is version


def test_ciphers_are_a_rule() -> None:
    context = make_context(TlsRules(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))

    older = [c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"]
    assert older == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_ciphers_that_openssl_does_not_know_are_refused() -> None:
    problem = problem_of(TlsRules(ciphers="MY-OWN"))

    assert problem == "tls_ciphers: OpenSSL knows no cipher by 'MY-OWN'"


def of_file(path: str) -> TlsRules:
    return TlsRules(ca_file=path)


def of_directory(path: str) -> TlsRules:
    return TlsRules(ca_directory=path)


class TestAuthorities:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        path = str(tmp_path / "ca.pem")

        problem = problem_of(TlsRules(ca_file=path))

        assert problem == f"{path}: No such file or directory (tls_cacert_file)"

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        problem = problem_of(TlsRules(ca_file=str(tmp_path)))

        assert problem == f"{tmp_path}: Is a directory (tls_cacert_file)"

    @pytest.mark.parametrize(
        "content",
        [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
        ids=["empty", "garbage", "broken"],
    )
    def test_a_file_without_certificates_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "ca.pem"
        path.write_bytes(content)

        problem = problem_of(TlsRules(ca_file=str(path)))

        assert problem == f"{path}: no certificates in PEM (tls_cacert_file)"

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        path = str(tmp_path / "certs")

        problem = problem_of(TlsRules(ca_directory=path))

        assert problem == f"{path}: No such file or directory (tls_cacert_dir)"

    def test_a_file_is_no_directory(self, authority: Authority) -> None:
        problem = problem_of(TlsRules(ca_directory=str(authority.file)))

        assert problem == f"{authority.file}: Not a directory (tls_cacert_dir)"

    def test_an_empty_directory_may_be_filled_later(self, tmp_path: Path) -> None:
        make_context(TlsRules(ca_directory=str(tmp_path)))

    def test_a_bad_file_is_refused_beside_a_good_directory(self, tmp_path: Path) -> None:
        path = str(tmp_path / "ca.pem")

        problem = problem_of(TlsRules(ca_file=path, ca_directory=str(tmp_path)))

        assert problem == f"{path}: No such file or directory (tls_cacert_file)"

    @only_root
    @pytest.mark.parametrize("make_rules", [of_file, of_directory])
    def test_what_may_not_be_read_is_named(
        self, tmp_path: Path, make_rules: Callable[[str], TlsRules]
    ) -> None:
        path = tmp_path / "of-root"
        path.mkdir(mode=0o700)
        with as_nobody():
            problem = problem_of(make_rules(str(path)))

        assert problem.startswith(f"{path}: Permission denied (tls_cacert_")


class TestOurIdentity:
    def test_it_is_taken_from_memory(self, certificate: Certificate) -> None:
        make_context(TlsRules(identity=Secret(certificate.identity)))

    def test_its_order_does_not_matter(self, certificate: Certificate) -> None:
        key, own = certificate.key.read_bytes(), certificate.certificate.read_bytes()

        make_context(TlsRules(identity=Secret(key + own)))

    def test_it_leaves_no_descriptor_open(self, certificate: Certificate) -> None:
        before = count_descriptors()

        make_context(TlsRules(identity=Secret(certificate.identity)))
        problem_of(TlsRules(identity=Secret(b"garbage")))

        assert count_descriptors() == before

    def test_another_key_is_refused(self, authority: Authority, certificate: Certificate) -> None:
        mixed = certificate.certificate.read_bytes() + authority.issue().key.read_bytes()

        problem = problem_of(TlsRules(identity=Secret(mixed)))

        assert problem == "tls_cert and tls_key: key values mismatch"

    @pytest.mark.parametrize("part", ["certificate", "key", "nothing", "garbage"])
    def test_less_than_both_is_refused(self, certificate: Certificate, part: str) -> None:
        content = {
            "certificate": certificate.certificate.read_bytes(),
            "key": certificate.key.read_bytes(),
            "nothing": b"",
            "garbage": b"garbage",
        }[part]

        problem = problem_of(TlsRules(identity=Secret(content)))

        assert problem == "tls_cert and tls_key: not a certificate and its key in PEM"

    def test_a_key_with_a_password_is_refused(self, certificate: Certificate) -> None:
        problem = problem_of(TlsRules(identity=Secret(certificate.locked_identity)))

        assert problem == (
            "tls_cert and tls_key: the key has a password, which nobody is there to give"
        )

    def test_no_terminal_is_asked_for_that_password(
        self, certificate: Certificate, tmp_path: Path
    ) -> None:
        path = tmp_path / "locked.pem"
        path.write_bytes(certificate.locked_identity)

        assert on_a_terminal(REFUSE_IDENTITY, str(path)) == b"refused\r\n"

    @only_root
    def test_the_front_may_load_it(self, certificate: Certificate, tmp_path: Path) -> None:
        """It is not root, and its own /proc is root's, for nobody may look into it."""
        path = tmp_path / "identity.pem"
        path.write_bytes(certificate.identity)

        assert on_a_terminal(BE_THE_FRONT, str(path)) == b"loaded\r\n"


REFUSE_IDENTITY = """
import pathlib, sys
from pysaslauthd.model import Secret
from pysaslauthd.remote.tls import TlsProblem, TlsRules, make_context
try:
    make_context(TlsRules(identity=Secret(pathlib.Path(sys.argv[1]).read_bytes())))
except TlsProblem:
    print("refused")
"""
BE_THE_FRONT = """
import os, pathlib, sys
from pysaslauthd import privileges
from pysaslauthd.model import Secret
from pysaslauthd.remote.tls import TlsRules, make_context
identity = Secret(pathlib.Path(sys.argv[1]).read_bytes())
privileges.become(privileges.find_identity("nobody", []))
assert os.getuid() != 0 == os.stat("/proc/self/fd").st_uid
make_context(TlsRules(identity=identity))
print("loaded")
"""


def on_a_terminal(script: str, *words: str) -> bytes:
    """Run *script* on a terminal of its own that nobody types at; return what is shown."""
    return b"".join(_screen(script, *words))


def _screen(script: str, *words: str) -> Iterator[bytes]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", script, *words])  # noqa: S606
    try:
        while part := os.read(terminal, 1000):
            yield part
    except OSError:  # how Linux says that the other side is closed
        os.waitpid(pid, 0)
    finally:
        os.close(terminal)


def test_the_password_of_a_rule_does_not_show(certificate: Certificate) -> None:
    rules = TlsRules(identity=Secret(certificate.identity))

    assert "PRIVATE" not in repr(rules)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("WRONG_VERSION_NUMBER", "it does not speak TLS there"),
        ("RECORD_LAYER_FAILURE", "it does not speak TLS there"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "TLS failed: tlsv1 alert internal error"),
        (None, "TLS failed: no reason given"),
    ],
)
def test_a_fault_of_tls_is_told_in_words(reason: str | None, text: str) -> None:
    error = ssl.SSLError(1, "such")
    error.reason = reason  # type: ignore[assignment]  # there may be none

    assert explain(error) == text
