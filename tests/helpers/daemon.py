"""Our daemon as a process of its own, laid out as on Debian."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.processes import DEADLINE, Server, accepts

ROOT = Path(__file__).parents[2]
GROUP = "sasl"


def run_directory(path: Path) -> Path:
    """Make the directory of a mux socket: for root and group sasl only."""
    path.mkdir(parents=True)
    shutil.chown(path, "root", GROUP)
    path.chmod(0o710)
    return path


def command(name: str) -> list[str]:
    """Return what starts `py<name>` of this tree as its installed script does."""
    script = f"import sys; sys.argv[0] = 'py{name}'; from pysaslauthd.cli.{name} import main"
    return [sys.executable, "-c", f"{script}; sys.exit(main())"]


def put(database: Path, realm: str, user: str, password: bytes) -> None:
    """Store a user with our own tool, pysaslpasswd."""
    subprocess.run(
        [*command("saslpasswd"), "-c", "-p", "-f", database, "-u", realm, user],
        input=password,
        check=True,
        timeout=DEADLINE,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return an environment in which Python finds this tree, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Daemon:
    """pysaslauthd in the foreground with a run directory below *directory*.

    *backend* are the options that choose where passwords are; without them it
    is the database.
    """

    def __init__(
        self, directory: Path, more_sockets: Sequence[Path] = (), backend: Sequence[str] = ()
    ) -> None:
        self.database = directory / "sasldb2"
        self._backend = backend or ("-a", "sasldb", "-O", str(self.database))
        self.run_directory = run_directory(directory / "run")
        self.mux = self.run_directory / "mux"
        self._log = directory / "log"
        self._more_sockets = more_sockets
        self._server: Server | None = None

    def start(self) -> None:
        """Start it; return when it accepts connections."""
        argv = [
            *(sys.executable, "-m", "pysaslauthd", *self._backend),
            *("-m", str(self.run_directory), "-f", "-V"),
            *(f"--mux={path}" for path in self._more_sockets),
        ]
        self._server = Server(argv, self._log, environment())
        self._server.wait_until(
            lambda: all(accepts(path) for path in (self.mux, *self._more_sockets))
        )

    def stop(self) -> int:
        """End it, if it runs; return its exit code."""
        server, self._server = self._server, None
        return 0 if server is None else server.stop()

    @property
    def pid(self) -> int:
        """The id of its first process."""
        assert self._server is not None, "it does not run"
        return self._server.pid

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(errors="backslashreplace")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the length of a block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """Move the database away for the length of a block."""
        elsewhere = self.database.with_name("elsewhere")
        self.database.rename(elsewhere)
        try:
            yield
        finally:
            elsewhere.rename(self.database)


@contextmanager
def daemon(
    directory: Path, more_sockets: Sequence[Path] = (), backend: Sequence[str] = ()
) -> Iterator[Daemon]:
    """Run our daemon while the block runs; what it answers from is the caller's to make."""
    subject = Daemon(directory, more_sockets, backend)
    subject.start()
    try:
        yield subject
    finally:
        subject.stop()
