"""The run directory as the C daemon keeps it: checked, locked, with its pid file.

Locks are fcntl locks on the C daemon's files, so that ours and the C daemon
keep each other out; protocols/mux.md section 7.
"""

import fcntl
import os
import stat
from pathlib import Path

from pysaslauthd.errors import StartupError

PID_FILE = "saslauthd.pid"
PID_LOCK = "saslauthd.pid.lock"
WRITABLE = (
    "Check to make sure the directory exists and is",
    "writeable by the user this process runs as.",
)
RUNNING = "Another instance of saslauthd is currently running"


def prepare(path: str) -> None:
    """Make *path* where it is missing (one level) and enter it.

    StartupError where that fails, and where others could replace its files.
    """
    try:
        Path(path).mkdir(mode=0o755)
    except FileExistsError:
        pass
    except OSError:
        raise StartupError(
            f"can not mkdir: {path}",
            "Check to make sure the parent directory exists and is",
            "writeable by the user this process runs as.",
        ) from None
    try:
        os.chdir(path)
    except OSError as error:
        raise StartupError(
            f"could not chdir to: {path}", f"chdir: {error.strerror}", *WRITABLE
        ) from None
    _check_owner(path, Path.cwd().stat())


def _check_owner(path: str, found: os.stat_result) -> None:
    """Refuse a directory in which anybody but root and us could replace a socket."""
    if found.st_uid not in {0, os.geteuid()}:
        raise StartupError(
            f"the run directory belongs to another user, who could replace its socket: {path}",
            f"run: chown {os.geteuid()} {path}",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartupError(
            f"the run directory is writable by others, who could replace its socket: {path}",
            f"run: chmod go-w {path}",
        )


class Lock:
    """A lock file that is held until `release`, which removes it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Replace what the file says."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Remove the file, then unlock it: in this order nobody locks a file that is going."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def forget(self) -> None:
        """Let go of it in a forked child, where it locks nothing."""
        os.close(self._descriptor)


def lock_startup(path: str) -> Lock:
    """Take the lock that is held while starting, and for life in the foreground."""
    file = Path(path, PID_LOCK)
    try:
        return _lock(file)
    except BlockingIOError as error:
        raise StartupError(
            f"could not lock pid lock file: {file}", f"fcntl: {error.strerror}", RUNNING
        ) from None
    except OSError as error:
        raise StartupError(
            f"could not open pid lock file: {file}", f"open: {error.strerror}", *WRITABLE
        ) from None


def lock_pid_file(path: str) -> Lock:
    """Take the lock that a detached instance holds; another one's means exit code 2."""
    file = Path(path, PID_FILE)
    try:
        return _lock(file)
    except BlockingIOError as error:
        raise StartupError(
            f"could not lock pid file {file}: {error.strerror}", RUNNING, status=2
        ) from None
    except OSError as error:
        raise StartupError(f"could not open pid file {file}: {error.strerror}") from None


def _lock(file: Path) -> Lock:
    while True:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, descriptor):
                return Lock(file, descriptor)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it on leaving, just before we got the lock


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
