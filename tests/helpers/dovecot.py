"""A real Dovecot of its own: own configuration, users and log, two ports of 127.0.0.1 and ::1."""

import base64
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.certificates import Certificate
from tests.helpers.processes import Server, ServerFailed, free_port, short_directory, wait_for

CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = imap
listen = 127.0.0.1, ::1
auth_mechanisms = plain login
auth_failure_delay = 0
auth_username_format = %u
auth_username_chars =
auth_verbose = yes
first_valid_uid = 1
# Whoever has logged out is counted until its process has ended.
mail_max_userip_connections = 0
mail_location = maildir:{directory}/mail
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
# Tests fail on purpose and in a row: nobody is slowed down for that.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


class Dovecot:
    """A Dovecot whose users have the passwords given; *settings* are lines over the ones here."""

    def __init__(
        self,
        directory: Path,
        users: Mapping[str, bytes],
        certificate: Certificate | None,
        settings: str,
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._directory = directory
        self.users = directory / "users"
        self.users.write_text("".join(map(_record, users, users.values())))
        (directory / "mail").mkdir()
        shutil.chown(directory / "mail", "nobody", "nogroup")
        tls = "ssl = no\n"
        if certificate is not None:
            tls = (
                f"ssl = yes\nssl_cert = <{certificate.certificate}\nssl_key = <{certificate.key}\n"
            )
        text = CONFIGURATION.format(directory=directory, port=self.port, tls_port=self.tls_port)
        self._configuration = directory / "dovecot.conf"
        self._configuration.write_text(text + tls + settings)
        self._server: Server | None = None

    def start(self) -> None:
        """Start it; return when it greets."""
        argv = ["dovecot", "-F", "-c", str(self._configuration)]
        self._server = Server(argv, self._directory / "output")
        self._server.wait_until(lambda: b"ready" in greeting(self.port))

    def stop(self) -> None:
        """End it, if it runs."""
        server, self._server = self._server, None
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)  # asked to end, it takes a second for that
            server.stop()
            # Its children are killed, too, but may not be gone.
            wait_for(lambda: not is_listened_at(self.port), "the end of the last login process")
            # It would be taken for that of a server that does not answer.
            (self._directory / "run" / "anvil-auth-penalty").unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The id of its first process."""
        if self._server is None:
            raise ServerFailed("Dovecot does not run")
        return self._server.pid

    def log(self) -> str:
        """Return what it has logged so far."""
        return (self._directory / "log").read_text(errors="backslashreplace")


def greeting(port: int) -> bytes:
    """Return what the server at *port* says first, b"" where there is none."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as client:
        return client.recv(1024)
    return b""


def is_listened_at(port: int) -> bool:
    """Say whether connections to *port* are taken."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _record(user: str, password: bytes) -> str:
    name = re.sub(r"""(["'\\])""", r"\\\1", user)  # Dovecot looks it up with these escaped
    return f"{name}:{{PLAIN.B64}}{base64.b64encode(password).decode()}\n"


@contextmanager
def dovecot(
    users: Mapping[str, bytes], certificate: Certificate | None = None, settings: str = ""
) -> Iterator[Dovecot]:
    """Run a Dovecot while the block runs; root only."""
    with short_directory("dv-") as directory:
        subject = Dovecot(directory, users, certificate, settings)
        subject.start()
        try:
            yield subject
        finally:
            subject.stop()
