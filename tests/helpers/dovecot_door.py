"""Our daemon with a socket for the Dovecot auth-client protocol."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.helpers.daemon import Daemon, daemon, put
from tests.helpers.instance import children_of, end
from tests.helpers.postfix import HOST_NAME
from tests.helpers.processes import accepts, wait_for
from tests.helpers.worker_daemon import command_of

SETTINGS = f"""\
mechanism = "sasldb"
mechanism_option = "{{database}}"
local_domain = "{HOST_NAME}"
"""


class Door(NamedTuple):
    """A running daemon whose socket for mail servers is at *path*."""

    daemon: Daemon
    path: Path

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the daemon for the length of a block."""
        with self.daemon.stopped():
            yield
        self.wait()

    def wait(self) -> None:
        """Return when it accepts connections."""
        wait_for(lambda: accepts(self.path), f"a socket at {self.path}")

    def kill_front(self) -> None:
        """Kill the process that talks to clients; its successor may not be there yet."""
        for pid in children_of(self.daemon.pid):
            if command_of(pid) == "saslauthd-front":
                with suppress(ProcessLookupError):  # one that a reload has replaced leaves anyway
                    end(pid, signal.SIGKILL)


@contextmanager
def dovecot_door(
    directory: Path,
    users: dict[str, str],
    *more: str,
    path: Path | None = None,
    settings: str = "",
) -> Iterator[Door]:
    """Run the daemon while the block runs; it knows *users* and their passwords.

    Users who name no realm are of HOST_NAME. *settings* are lines of its configuration file,
    *more* is where it listens too.
    The socket is, unless *path* says where, beside that for saslauthd's clients: for group sasl.
    """
    path = path or directory / "run" / "auth"
    database, configuration = directory / "sasldb2", directory / "toml"
    for user, password in users.items():
        put(database, HOST_NAME, user, password.encode())
    database.chmod(0o644)
    configuration.write_text(SETTINGS.format(database=database) + settings)
    flags = ("--config", str(configuration), *(f"--dovecot={one}" for one in (path, *more)))
    with daemon(directory, backend=flags) as running:
        door = Door(running, path)
        door.wait()
        yield door
