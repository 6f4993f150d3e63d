"""What the system knows for the time of a run only: accounts, and services of PAM.

Nothing that was there before is touched: a name that is taken is refused, and
what a killed run has left is for a person to remove.
"""

from __future__ import annotations

import contextlib
import pwd
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.servers import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAM_SERVICES = Path("/etc/pam.d")
SHELL = "/usr/sbin/nologin"
LONGEST = 60.0  # seconds for one tool, which may first wait for another's lock


@contextlib.contextmanager
def accounts(prefix: str, count: int, password: str) -> Iterator[None]:
    """Let accounts *prefix*0, *prefix*1 ... exist, with hashes as Debian's passwd makes them.

    NotMeasuredError if one of them exists already, or cannot be removed again.
    """
    names = [f"{prefix}{number}" for number in range(count)]
    if taken := [name for name in names if _exists(name)]:
        raise NotMeasuredError(
            f"there are accounts such as {taken[0]}: another benchmark is running, or one was "
            f"killed. If none is running, remove them: userdel {taken[0]} ..."
        )
    made: list[str] = []
    try:
        with _undisturbed():
            for name in names:
                _run(["useradd", "--system", "--no-user-group", "-M", "--shell", SHELL, name])
                made.append(name)
            _run(["chpasswd", "-c", "YESCRYPT"], [f"{name}:{password}" for name in names])
        yield
    finally:
        with _undisturbed():
            _remove(made)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _remove(names: Sequence[str]) -> None:
    problems = []
    for name in names:
        try:
            _run(["userdel", name])
        except (NotMeasuredError, subprocess.SubprocessError) as problem:
            problems.append(f"{name}: {problem}")
    if problems:
        raise NotMeasuredError(f"accounts are left behind: {'; '.join(problems)}")


@contextlib.contextmanager
def pam_service(name: str, module: str, directory: Path = PAM_SERVICES) -> Iterator[None]:
    """Let PAM have a service that asks *module* alone; NotMeasuredError if it has one so named."""
    path = directory / name
    try:
        file = path.open("x")
    except FileExistsError:
        raise NotMeasuredError(
            f"{path} is there: another benchmark is running, or one was killed. "
            f"If none is running, remove it: rm {path}"
        ) from None
    try:
        with file:
            file.write(f"auth required {module}\naccount required {module}\n")
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off what would end the run: neither this block nor a tool it runs stops half-way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(command: Sequence[str], lines: Sequence[str] = ()) -> None:
    done = subprocess.run(
        command,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    if done.returncode:
        raise NotMeasuredError(f"{command[0]}: {done.stderr.strip() or done.returncode}")
