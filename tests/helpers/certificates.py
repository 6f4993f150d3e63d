"""Certificates for servers under test: good ones, and such as have one fault each."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
LIFE = 30 * DAY
SIGNING = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
HERE = ("localhost", "127.0.0.1", "::1")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Certificate(NamedTuple):
    """The files of a certificate and its key, in PEM."""

    certificate: Path
    key: Path

    @property
    def identity(self) -> bytes:
        """Both in one."""
        return self.certificate.read_bytes() + self.key.read_bytes()

    @property
    def locked_identity(self) -> bytes:
        """Both in one, the key under a password."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        locked = _in_pem(key, serialization.BestAvailableEncryption(b"password"))
        return self.certificate.read_bytes() + locked


class Authority:
    """Signs certificates; its own is *file*, all files are in *directory*.

    They are what RFC 5280 wants of them: Python 3.13 looks.
    """

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._made = 0
        own = (
            _builder([name], self._key, self._name, -LIFE, LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(SIGNING, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        names: Sequence[str] = HERE,
        *,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
        key: Key | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Certificate:
        """Return a certificate for *names*, which may be addresses; times are from now."""
        own_key = key or ec.generate_private_key(ec.SECP256R1())
        made = (
            _builder(names, own_key, self._name, begins, ends)
            .add_extension(_alternatives(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        self._made += 1
        return _save(self._directory / f"{self.file.stem}-{self._made}", made, own_key)

    def issue_expired(self) -> Certificate:
        """Return one whose time is over."""
        return self.issue(begins=-2 * DAY, ends=-DAY)

    def issue_too_early(self) -> Certificate:
        """Return one whose time is to come."""
        return self.issue(begins=DAY, ends=2 * DAY)

    def issue_for_others(self) -> Certificate:
        """Return one for a name that no test asks for."""
        return self.issue(["elsewhere.example.org", "192.0.2.1"])

    def issue_for_client(self) -> Certificate:
        """Return one that is good for clients only."""
        return self.issue(usage=ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_weak(self) -> Certificate:
        """Return one whose key is too short to be trusted."""
        return self.issue(key=rsa.generate_private_key(65537, 1024))  # noqa: S505 (that is it)

    def issue_with_its_own(self) -> Certificate:
        """Return one in whose file this authority's own follows, as servers send them."""
        made = self.issue()
        made.certificate.write_bytes(made.certificate.read_bytes() + self.file.read_bytes())
        return made


def issue_self_signed(directory: Path, names: Sequence[str] = HERE) -> Certificate:
    """Return a certificate that nobody but its own key has signed; its files are in *directory*."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(names, key, _name(names[0]), -DAY, DAY)
        .add_extension(_alternatives(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _save(directory / "self-signed", made, key)


def _builder(
    names: Sequence[str],
    key: Key,
    issuer: x509.Name,
    begins: datetime.timedelta,
    ends: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(names[0]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _save(path: Path, made: x509.Certificate, key: Key) -> Certificate:
    files = Certificate(path.with_suffix(".pem"), path.with_suffix(".key"))
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(_in_pem(key, serialization.NoEncryption()))
    return files


def _in_pem(key: Key, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(map(_general_name, names))


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
