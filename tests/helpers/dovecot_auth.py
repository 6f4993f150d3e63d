"""Dovecot's authentication server, asked as by a mail server; see sasl_servers."""

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.processes import DEADLINE, Server, accepts
from tests.helpers.sasl_servers import BY_CERTIFICATE, REFUSAL, SERVICE, Reply

CONFIGURATION = """
protocols =
base_dir = {directory}/run
log_path = /dev/stderr
ssl = no
auth_mechanisms = {mechanisms}
auth_realms = {realms}
auth_username_chars =
auth_ssl_username_from_cert = yes
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
  mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256
}}
passdb {{
  driver = static
  args = nopassword
  mechanisms = external
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0600
  }}
}}
# Tests fail on purpose and in a row: nobody is slowed down for that.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""
MECHANISMS = "plain cram-md5 digest-md5 scram-sha-1 scram-sha-256 external"


class DovecotServer:
    """A connection to the server; *final_beside_success* is a wish that it fulfils."""

    def __init__(self, path: Path, *, final_beside_success: bool) -> None:
        self._number = 0
        self._about = [b"service=%b" % SERVICE.encode(), b"secured", b"no-penalty"]
        if final_beside_success:
            self._about.append(b"final-resp-ok")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid())
        while self._lines.readline() != b"DONE\n":
            pass

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        self._number += 1
        fields = [b"AUTH", b"%d" % self._number, mechanism.encode(), *self._about]
        if mechanism == "EXTERNAL":
            # For all others it would be the name that counts.
            fields += [b"valid-client-cert", b"cert_username=%b" % BY_CERTIFICATE.encode()]
        if initial is not None:
            fields.append(b"resp=%b" % base64.b64encode(initial))
        return self._ask(fields)

    def answer(self, response: bytes, /) -> Reply:
        return self._ask([b"CONT", b"%d" % self._number, base64.b64encode(response)])

    def end(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _ask(self, fields: list[bytes]) -> Reply:
        self._socket.sendall(b"\t".join(fields) + b"\n")
        word, _number, *said = self._lines.readline().rstrip(b"\n").split(b"\t")
        if word == b"CONT":
            return Reply(is_challenge=True, data=base64.b64decode(said[0]))
        if word != b"OK":
            return REFUSAL
        values = dict(field.partition(b"=")[::2] for field in said)
        data = base64.b64decode(values[b"resp"]) if b"resp" in values else None
        return Reply(is_success=True, data=data, user=values[b"user"].decode())


@contextmanager
def dovecot(
    directory: Path, users: dict[str, str], realms: list[str], mechanisms: str = MECHANISMS
) -> Iterator[Path]:
    """Run the server with *users* and their passwords; return the path of its socket."""
    (directory / "run").mkdir()
    (directory / "users").write_text(
        "".join(f"{user}:{password}:::::\n" for user, password in users.items()),
        errors="surrogateescape",
    )
    configuration = directory / "dovecot.conf"
    text = CONFIGURATION.format(directory=directory, realms=" ".join(realms), mechanisms=mechanisms)
    configuration.write_text(text)
    argv = ["dovecot", "-F", "-c", str(configuration)]
    with Server(argv, directory / "output") as server:
        server.wait_until(lambda: accepts(directory / "auth"))
        yield directory / "auth"
