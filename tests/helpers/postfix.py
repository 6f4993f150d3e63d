"""A real Postfix of its own: own configuration, queue and log, one port of 127.0.0.1.

There is no queue manager, so whatever a test sends is never delivered.
"""

import grp
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.helpers.processes import (
    DEADLINE,
    Server,
    free_port,
    short_directory,
    wait_for,
)
from tests.helpers.smtp import greeting

HOST_NAME = "mail.test.example"  # also the realm of users who name none

MAIN = {
    "compatibility_level": "3.6",
    "myhostname": HOST_NAME,
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "mynetworks": "",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "default_transport": "discard:",
    "smtpd_peername_lookup": "no",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sasl_type": "cyrus",
    "smtpd_sasl_path": "smtpd",
    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    # Tests fail on purpose and in a row: no delays, no limits.
    "smtpd_error_sleep_time": "0",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_event_limit_exceptions": "static:all",
    "in_flow_delay": "0",
}

# What cleanup needs before it takes a recipient, and where services have their sockets.
QUEUES = ("active", "corrupt", "deferred", "hold", "incoming", "private", "public")

MASTER = """\
127.0.0.1:{port} inet n - {chroot} - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(NamedTuple):
    """A running Postfix; *pid* is its first process."""

    directory: Path
    port: int
    pid: int

    @property
    def queue_directory(self) -> Path:
        """The directory a chrooted smtpd sees as its root."""
        return self.directory / "spool"

    def log(self) -> str:
        """Return what it has logged so far."""
        path = self.directory / "maillog"
        return path.read_text(errors="backslashreplace") if path.exists() else ""


@contextmanager
def postfix_directory() -> Iterator[Path]:
    """Make the directory of a Postfix, with a queue directory in which a test may put sockets."""
    with short_directory("pf-") as directory:
        (directory / "etc" / "sasl").mkdir(parents=True)
        (directory / "spool" / "pid").mkdir(parents=True)
        for name in ("lib", *(f"spool/{queue}" for queue in QUEUES)):
            (directory / name).mkdir(mode=0o700)
            shutil.chown(directory / name, "postfix")
        yield directory


@contextmanager
def running_postfix(
    directory: Path,
    sasl: Mapping[str, object],
    main: Mapping[str, object] | None = None,
    *,
    chroot: bool = False,
    services: str = "",
    group: str = "sasl",
) -> Iterator[Postfix]:
    """Run Postfix in *directory* (see `postfix_directory`) while the block runs.

    *sasl* holds the lines of `sasl/smtpd.conf`, which libsasl reads; *main*
    those of main.cf, over the ones here; *services* are more lines of master.cf.
    They hold until the block ends: smtpd reads none of them again. Postfix's user
    is put into *group*, if one is named.
    """
    if group:
        join_group("postfix", group)
    port = free_port()
    configuration = directory / "etc"
    own = {
        "smtpd_banner": f"$myhostname ESMTP {directory.name}",
        "queue_directory": directory / "spool",
        "data_directory": directory / "lib",
        "maillog_file": directory / "maillog",
        "maillog_file_prefixes": directory,
    }
    services = MASTER.format(port=port, chroot="y" if chroot else "n") + services
    _write(configuration / "main.cf", _lines({**MAIN, **own, **(main or {})}, " = "))
    _write(configuration / "master.cf", services)
    _write(configuration / "sasl" / "smtpd.conf", _lines(sasl, ": "))
    master = Path(_run("postconf", "-c", str(configuration), "-h", "daemon_directory")) / "master"
    # What `postfix start` ends in. -d: in the foreground. -e: for so many seconds at most, because
    # a process that changes its user, as this one does, loses the signal at our death.
    argv = [str(master), "-c", str(configuration), "-d", "-e", "600"]
    with Server(argv, directory / "output") as server:
        server.wait_until(lambda: directory.name in greeting(port))
        yield Postfix(directory, port, server.pid)


def join_group(user: str, group: str) -> None:
    """Put *user* into *group* where it is not there yet, as Debian's documentation tells to."""

    def joined() -> bool:
        # gpasswd gives up when another test process has locked the files: so, again.
        if user not in grp.getgrnam(group).gr_mem:
            _run("gpasswd", "-a", user, group, check=False)
        return user in grp.getgrnam(group).gr_mem

    if pwd.getpwnam(user).pw_gid != grp.getgrnam(group).gr_gid:
        wait_for(joined, f"{user} in group {group}")


def _lines(settings: Mapping[str, object], separator: str) -> str:
    return "".join(f"{name}{separator}{value}\n" for name, value in settings.items())


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    # Postfix waits until a file is some seconds old, lest its writer is still at work.
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))


def _run(program: str, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=check,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.strip()
