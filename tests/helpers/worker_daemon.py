"""Our daemon with a mechanism that has workers, and its processes; root only."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from pysaslauthd.wire.mux import decode_reply, encode_request
from tests.helpers.daemon import environment
from tests.helpers.instance import COMMAND, children_of, is_alive
from tests.helpers.processes import DEADLINE, Server, accepts, short_directory, wait_for

FRONT, PAM, SHADOW, KERBEROS5, LDAP, ADDRESSES = (  # ps shows 15 bytes of a name
    *("front", "pam", "shado", "kerbe", "ldap", "addre"),
)
PASSWORD = "right horse"
OUTAGE = b""


class WorkerDaemon:
    """The daemon at the socket *mux*, its configuration at *config*; *asking* asks side by side."""

    def __init__(self, directory: Path, mechanism: str, settings: str) -> None:
        self.run = directory / "run"
        self.run.mkdir(mode=0o755)
        self.mux = self.run / "mux"
        self.config = directory / "config.toml"
        self.config.write_text(settings)
        self.argv = [
            *(*COMMAND, "-a", mechanism, "-m", str(self.run)),
            *("-f", "-V", "--config", str(self.config)),
        ]
        self._output = directory / "output"
        self._asking = ThreadPoolExecutor(32)

    def start(self, flags: Sequence[str] = (), within: Sequence[str] = ()) -> None:
        """Start it, by the command *within* if there is one; return when it accepts connections."""
        self.server = Server([*within, *self.argv, *flags], self._output, environment())
        self.server.wait_until(lambda: accepts(self.mux))

    def end(self) -> None:
        """Stop it and all who ask."""
        self.server.stop()
        self._asking.shutdown()

    def ask(
        self, service: str, user: str = "joe", password: str = PASSWORD, realm: str = ""
    ) -> bytes:
        """Ask whether a password is right; return the reply's text, b"" for an outage."""
        return answer_to(self._asked(service, user, password, realm))

    def asking(self, service: str, user: str = "joe", password: str = PASSWORD) -> Future[bytes]:
        """Do the same, but wait for the reply meanwhile; it has been asked when this returns."""
        return self._asking.submit(answer_to, self._asked(service, user, password))

    def _asked(self, service: str, user: str, password: str, realm: str = "") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(str(self.mux))
        fields = (field.encode() for field in (user, password, service, realm))
        client.sendall(encode_request(*fields))
        return client

    def processes(self, name: str) -> list[int]:
        """Return the ids of the running processes whose name ends so, after `saslauthd-`."""
        return [
            pid
            for pid in children_of(self.server.pid)
            if is_alive(pid) and command_of(pid) == f"saslauthd-{name}"
        ]

    def one(self, name: str) -> int:
        """Return the id of a process with that name, when there is one."""
        wait_for(lambda: bool(self.processes(name)), f"a process {name}")
        return self.processes(name)[0]

    def status(self, name: str) -> str:
        """Return what /proc says of a process with that name, when it has given up its power.

        It has its name before that. The last thing is that it can gain no other.
        """
        path = Path(f"/proc/{self.one(name)}/status")
        wait_for(lambda: "NoNewPrivs:\t1" in path.read_text(), f"limits of {name}")
        return path.read_text()

    def reload(self) -> None:
        """Have it take its settings anew; return when it has."""
        before = self.lines().count("reloaded")
        os.kill(self.server.pid, signal.SIGHUP)
        self.server.wait_until(lambda: self.lines().count("reloaded") > before)

    def lines(self) -> list[str]:
        """Return what it has logged so far, without the name and number of the process."""
        return [line.partition("] :")[2] for line in self.server.output().splitlines()]


def answer_to(client: socket.socket) -> bytes:
    """Return the text of the reply that *client* gets, and close it."""
    with client:
        return decode_reply(client.recv(2048)) or b""


def command_of(pid: int) -> str:
    """Return the name that a process has given itself, "" where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@contextmanager
def worker_daemon(
    mechanism: str, settings: str = "", *flags: str, within: Sequence[str] = ()
) -> Iterator[WorkerDaemon]:
    """Run the daemon with *mechanism*, *settings* in TOML and *flags* while the block runs.

    *within* is a command that runs it, if any, in the same process.
    """
    with short_directory("sd-") as directory:
        made = WorkerDaemon(directory, mechanism, settings)
        made.start(flags, within)
        try:
            yield made
        finally:
            made.end()


def wait_for_end(*pids: int) -> None:
    """Return when none of the processes runs any more."""
    wait_for(lambda: not any(map(is_alive, pids)), f"end of {pids}")
