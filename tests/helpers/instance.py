"""Our daemon as a process of its own, in a short directory, with a database of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pysaslauthd.stores import sasldb
from pysaslauthd.wire.mux import decode_reply, encode_request
from tests.helpers.daemon import environment
from tests.helpers.processes import Server, accepts, short_directory, wait_for

COMMAND = [sys.executable, "-m", "pysaslauthd"]
SECONDS = 10.0
PASSWORD = "pw"


class Instance:
    """A run directory, a database with joe@r (password pw), and what runs there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run = directory / "run"
        self.run.mkdir(mode=0o755)
        self.mux = self.run / "mux"
        self.database = directory / "db"
        self.put("joe", PASSWORD)

    def put(self, user: str, password: str, realm: str = "r") -> None:
        """Set a user's password in the database, which is made where it is missing."""
        record = {sasldb.key(user.encode(), realm.encode()): password.encode()}
        sasldb.edit(str(self.database), lambda found: found.update(record), new_format="berkeley")

    def argv(self, *flags: str) -> list[str]:
        """Return the daemon's command line."""
        return [
            *COMMAND,
            *("-a", "sasldb", "-O", str(self.database), "-m", str(self.run)),
            *flags,
        ]

    @contextmanager
    def running(self, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
        """Run the daemon in the foreground until the block ends; it has answered once."""
        with self.starting(self.argv("-f", *flags), env) as server:
            server.wait_until(lambda: accepts(self.mux))
            self.ask()
            yield server

    def starting(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Server:
        """Start *argv* and do not wait for it."""
        return Server(argv, self.directory / "output", {**environment(), **(env or {})})

    def ask(self, password: str = PASSWORD, user: str = "joe", realm: str = "r") -> bytes:
        """Ask whether a password is right; return the reply's text, b"" where there is none."""
        return ask(self.mux, user, password, realm)


def ask(path: Path, user: str, password: str, realm: str) -> bytes:
    """Ask the daemon at the socket *path*; the C daemon writes its answer in two pieces."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(path))
        client.sendall(encode_request(user.encode(), password.encode(), b"imap", realm.encode()))
        reply = b""
        while data := client.recv(2048):
            reply += data
    return decode_reply(reply) or b""


@contextmanager
def instance() -> Iterator[Instance]:
    """Make a place for a daemon; remove it afterwards."""
    with short_directory("sd-") as directory:
        yield Instance(directory)


def run(argv: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, with a deadline."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 2,
        stdin=subprocess.DEVNULL,
        env={**environment(), **variables},
    )


def children_of(pid: int) -> list[int]:
    """Return the process ids of *pid*'s children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to *pid*, which need not be our child, and wait until it is gone."""
    os.kill(pid, number)
    wait_for(lambda: not is_alive(pid), f"end of process {pid}")


def is_alive(pid: int) -> bool:
    """Say whether *pid* runs; a zombie does not, once its last thread has let go of its files."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False
