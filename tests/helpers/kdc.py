"""KDCs of the tests' own on loopback, with realms, users and keytabs; and one that pretends.

MIT's krb5kdc with its own tools; nothing of it is outside its directory.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.helpers.certificates import Authority
from tests.helpers.processes import DEADLINE, Server, ServerFailed, free_port

needs_kdc = pytest.mark.interop("krb5kdc", "kdb5_util", "kadmin.local")

REALM, OTHER_REALM = "r", "OTHER.EXAMPLE"
SERVER = "mail.example"
PASSWORD = "pw"
UTF8_PASSWORD = "пароль"
TRUST = "krbtgt/r@OTHER.EXAMPLE"

PREAUTHENTICATED = f"addprinc -pw {PASSWORD} +requires_preauth"
SERVERS = ["addprinc -randkey host/mail.example", "addprinc -randkey host/other.example"]
USERS = [
    f"{PREAUTHENTICATED} joe",
    f"{PREAUTHENTICATED} joe/mail",
    f"addprinc -pw {UTF8_PASSWORD} +requires_preauth ann",
    f"addprinc -pw {PASSWORD} open",  # whoever asks gets what a password can be tried on
    f"addprinc -pw {PASSWORD} -e arcfour-hmac:normal quick",  # no work for the processor
    f"{PREAUTHENTICATED} -pwexpire yesterday aged",
    f"{PREAUTHENTICATED} +needchange fresh",
    f"{PREAUTHENTICATED} -expire yesterday gone",
    f"{PREAUTHENTICATED} -allow_tix locked",
    f"{PREAUTHENTICATED} +requires_hwauth carded",
]
OTHER_USERS = [f"{PREAUTHENTICATED} joe", f"{PREAUTHENTICATED} eve"]

CLIENTS = """
[libdefaults]
 default_realm = r
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 allow_rc4 = true
[realms]
 r = {{
  kdc = 127.0.0.1:{port}
 }}
 OTHER.EXAMPLE = {{
  kdc = 127.0.0.1:{port}
 }}
 DEAD = {{
  kdc = 127.0.0.1:{nobodys_port}
 }}
[domain_realm]
 .example = r
"""
KDC = """
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realms}
[logging]
 kdc = FILE:{directory}/kdc.log
"""
KDC_REALM = """
 {name} = {{
  database_name = {directory}/{name}.db
  key_stash_file = {directory}/{name}.stash
 }}
"""
# Tickets for certificates (RFC 4556) and for anybody (RFC 8062), by Debian's krb5-pkinit.
CERTIFYING = """
[libdefaults]
 pkinit_anchors = FILE:{authority}
 pkinit_identities = FILE:{host.certificate},{host.key}
 pkinit_kdc_hostname = kdc.example
 pkinit_eku_checking = none
[kdcdefaults]
 pkinit_anchors = FILE:{authority}
 pkinit_identity = FILE:{kdc.certificate},{kdc.key}
 pkinit_eku_checking = none
"""
CERTIFIED = [
    "addprinc -randkey WELLKNOWN/ANONYMOUS",
    "modprinc +requires_preauth host/mail.example",
    "setstr host/mail.example pkinit_cert_match <SUBJECT>^CN=mail.example$",
]


class Kdc:
    """A KDC for *realms*, which `start` lets answer; *config* is the krb5.conf of its clients."""

    def __init__(self, directory: Path, realms: Sequence[str]) -> None:
        directory.mkdir()
        self.config = directory / "krb5.conf"
        self._directory = directory
        self._realms = realms
        self._port = free_port()
        self._server: Server | None = None
        clients = CLIENTS.format(port=self._port, nobodys_port=free_port())
        self.config.write_text(clients)
        self._profile = directory / "kdc.conf"
        parts = (KDC_REALM.format(name=name, directory=directory) for name in realms)
        self._profile.write_text(
            KDC.format(port=self._port, directory=directory, realms="".join(parts))
        )
        for realm in realms:
            self._run("kdb5_util", "create", "-s", "-P", "master", "-r", realm)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process a client of it."""
        return {**os.environ, "KRB5_CONFIG": str(self.config)}

    def administer(self, realm: str, *commands: str) -> None:
        """Have *commands* done by kadmin.local, which says nothing of failures but in words."""
        errors = self._run("kadmin.local", "-r", realm, given="\n".join(commands))
        assert " while " not in errors, errors

    def keytab(self, name: str, principal: str = f"host/{SERVER}") -> Path:
        """Return a new keytab, with new keys for *principal*: those before are worth nothing."""
        path = self._directory / name
        self.administer(REALM, f"ktadd -k {path} {principal}")
        return path

    def start(self) -> None:
        """Have it answer, from when this returns."""
        argv = ["krb5kdc", "-n", *(word for realm in self._realms for word in ("-r", realm))]
        self._server = Server(argv, self._directory / "output", self._environment)
        self._server.wait_until(self._answers)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._server is not None:
            self._server.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        if self._server is None:
            raise ServerFailed("the KDC does not run")
        return self._server.pid

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the length of a block: its port is closed."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let it answer nobody for the length of a block, though its port is open."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.environment, "KRB5_KDC_PROFILE": str(self._profile), "LC_ALL": "C.UTF-8"}

    def _answers(self) -> bool:
        with socket.socket() as probe, suppress(OSError):
            probe.connect(("127.0.0.1", self._port))
            return True
        return False

    def _run(self, *argv: str, given: str = "") -> str:
        done = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
            env=self._environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


@contextmanager
def kdc(directory: Path) -> Iterator[Kdc]:
    """Run a KDC of both realms, which trust each other, with all users, while the block runs."""
    made = Kdc(directory, [REALM, OTHER_REALM])
    trust = f"addprinc -pw trust {TRUST}"
    made.administer(REALM, *SERVERS, *USERS, trust)
    made.administer(OTHER_REALM, *SERVERS, *OTHER_USERS, trust)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def false_kdc(directory: Path) -> Iterator[Kdc]:
    """Run a KDC that says it is REALM's: it knows joe's password, and has keys of its own."""
    made = Kdc(directory, [REALM])
    made.administer(REALM, *SERVERS, *USERS)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def certifying_kdc(directory: Path, lacking: Callable[[str], NoReturn]) -> Iterator[Kdc]:
    """Run a KDC that gives SERVER tickets for its certificate, and anybody anonymous ones."""
    if not list(Path("/usr/lib").glob("*/krb5/plugins/preauth/pkinit.so")):
        lacking("needs krb5-pkinit")
    made = Kdc(directory, [REALM])
    authority = Authority(directory)
    host, own = (
        authority.issue([name], key=rsa.generate_private_key(65537, 2048))
        for name in (SERVER, "kdc.example")
    )
    with made.config.open("a") as file:
        file.write(CERTIFYING.format(authority=authority.file, host=host, kdc=own))
    made.administer(REALM, *SERVERS, *USERS, *CERTIFIED)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def error_reply(code: int, text: bytes = b"") -> bytes:
    """Return a KRB-ERROR, as RFC 4120 section 5.9.1 has it, from a KDC of REALM."""
    name = [_string(b"krbtgt"), _string(REALM.encode())]
    fields = {
        0: _der(2, b"\x05"),
        1: _der(2, b"\x1e"),
        4: _der(0x18, time.strftime("%Y%m%d%H%M%SZ", time.gmtime()).encode()),
        5: _der(2, b"\x00"),
        6: _der(2, bytes([code])),
        9: _string(REALM.encode()),
        10: _der(0x30, _der(0xA0, _der(2, b"\x02")), _der(0xA1, _der(0x30, *name))),
        11: _string(text),
    }
    return _der(0x7E, _der(0x30, *(_der(0xA0 + tag, field) for tag, field in fields.items())))


def _string(text: bytes) -> bytes:
    return _der(0x1B, text)


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


@contextmanager
def scripted_kdc(directory: Path, reply: bytes) -> Iterator[Path]:
    """Answer every request with *reply* while the block runs; yield the krb5.conf for it."""
    with socket.socket(type=socket.SOCK_DGRAM) as served:
        served.bind(("127.0.0.1", 0))
        config = directory / "scripted.conf"
        config.write_text(CLIENTS.format(port=served.getsockname()[1], nobodys_port=1))
        answering = threading.Thread(target=_answer, args=(served, reply), daemon=True)
        answering.start()
        try:
            yield config
        finally:
            served.sendto(b"", served.getsockname())  # nothing, which ends it
            answering.join(DEADLINE)


def _answer(served: socket.socket, reply: bytes) -> None:
    while True:
        request, client = served.recvfrom(65536)
        if not request:
            return
        served.sendto(reply, client)
