"""A real Exim of its own: own configuration, spool and log, one port of 127.0.0.1.

Whatever a test sends is never delivered. scripts/get-exim unpacks it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.helpers.own_log import require_mount_namespaces
from tests.helpers.postfix import HOST_NAME
from tests.helpers.processes import Server, free_port, short_directory
from tests.helpers.smtp import greeting

PROGRAM = Path("/var/cache/pysaslauthd-tests/exim/usr/sbin/exim4")
USER = "Debian-exim"

CONFIGURATION = """\
primary_hostname = {host_name}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {directory}/spool
log_file_path = {directory}/spool/log-%s
pid_file_path = {directory}/pid
smtp_banner = $primary_hostname ESMTP {name}
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
auth_advertise_hosts = *
log_selector = +smtp_connection +smtp_protocol_error
acl_smtp_rcpt = relay
begin acl
relay:
  accept authenticated = *
  deny
begin authenticators
{authenticators}
"""

DOVECOT_AUTHENTICATOR = """\
dovecot_{number}:
  driver = dovecot
  public_name = {name}
  server_socket = {socket}
  server_set_id = $auth1
"""

# As in the example that Debian's configuration has.
SASLAUTHD_AUTHENTICATORS = """\
plain_saslauthd:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if saslauthd{{$auth2}{$auth3}{smtp}}{1}{0}}
  server_set_id = $auth2
  server_prompts = :
login_saslauthd:
  driver = plaintext
  public_name = LOGIN
  server_condition = ${if saslauthd{{$auth1}{$auth2}{smtp}}{1}{0}}
  server_set_id = $auth1
  server_prompts = "Username:: : Password::"
"""

# It asks at /var/run/saslauthd/mux: there is the run directory "$0", for it alone.
WITH_RUN_DIRECTORY = """
mount -t tmpfs none /run && mkdir /run/saslauthd && mount --bind "$0" /run/saslauthd && exec "$@"
"""


class Exim(NamedTuple):
    """A running Exim."""

    directory: Path
    port: int

    def log(self) -> str:
        """Return what it has logged so far."""
        path = self.directory / "spool" / "log-main"
        return path.read_text(errors="backslashreplace") if path.exists() else ""


def require_exim(lacking: Callable[[str], NoReturn]) -> None:
    """Leave the test out where there is no Exim; *lacking* is the fixture."""
    if not PROGRAM.exists():
        lacking("needs Exim, which scripts/get-exim unpacks")
    require_mount_namespaces(lacking)


def dovecot_authenticators(socket: Path, *mechanisms: str) -> str:
    """Return what makes Exim ask at *socket*."""
    return "".join(
        DOVECOT_AUTHENTICATOR.format(number=number, name=name, socket=socket)
        for number, name in enumerate(mechanisms)
    )


@contextmanager
def running_exim(authenticators: str, saslauthd: Path | None = None) -> Iterator[Exim]:
    """Run Exim while the block runs. *saslauthd* is the run directory of such a daemon."""
    with short_directory("ex-") as directory:
        port = free_port()
        configuration = directory / "exim.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host_name=HOST_NAME,
                port=port,
                directory=directory,
                name=directory.name,
                authenticators=authenticators,
            )
        )
        (directory / "spool").mkdir()
        shutil.chown(directory / "spool", USER)
        argv = [str(PROGRAM), "-C", str(configuration), "-bdf"]
        if saslauthd is not None:
            argv = ["unshare", "--mount", "sh", "-c", WITH_RUN_DIRECTORY, str(saslauthd), *argv]
        with Server(argv, directory / "output") as server:
            server.wait_until(lambda: directory.name in greeting(port))
            yield Exim(directory, port)
