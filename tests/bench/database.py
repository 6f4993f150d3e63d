"""The users that are asked for, in a database of the real tool's making.

The C daemon reads only the system's database, so for the time of a run ours
stands in its place. In a mount namespace of our own it is mounted over it, and
nobody else on the machine sees that. Where there is none (a container without
the right to make one) it is put there, and the original stays beside it under a
second name, as the very same file; that name is the lock against a second run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.servers import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = Path("/etc/sasldb2")
KEPT_AS = ".before-bench"

LOGIN = "user"
PASSWORD = "correct horse"
SERVICE = "smtp"
REALM = "bench"


def make(path: Path, users: int) -> None:
    """Write a database with LOGIN0, LOGIN1 ... as `saslpasswd2` does."""
    for number in range(users):
        _add(path, f"{LOGIN}{number}")
    # Debian keeps it from others but not from the daemon's group: owner and mode
    # are those of the system's own database, for every server.
    if SYSTEM.exists():
        shutil.copymode(SYSTEM, path)
        os.chown(path, SYSTEM.stat().st_uid, SYSTEM.stat().st_gid)


def _add(path: Path, login: str) -> None:
    made = subprocess.run(
        ["saslpasswd2", "-c", "-p", "-f", str(path), "-u", REALM, login],
        input=PASSWORD.encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    if made.returncode:
        raise NotMeasuredError(f"saslpasswd2: {made.stderr.decode(errors='replace').strip()}")


def in_place_of(
    system: Path, database: Path, outside: str
) -> contextlib.AbstractContextManager[None]:
    """Let *database* stand where the system's is, until the end of the block.

    *outside* names the mount namespace of the rest of the machine; empty if
    the caller made none of its own.
    """
    is_apart = outside and outside != str(Path("/proc/self/ns/mnt").readlink())
    if is_apart and system.exists():
        return mounted_over(system, database)
    return swapped_for(system, database)


@contextlib.contextmanager
def mounted_over(system: Path, database: Path) -> Iterator[None]:
    """Hide the system's database behind *database*, for our namespace only."""
    subprocess.run(["mount", "--bind", str(database), str(system)], timeout=30, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(system)], timeout=30, check=True)


@contextlib.contextmanager
def swapped_for(system: Path, database: Path) -> Iterator[None]:
    """Put *database* where the system's is, and that back in the end."""
    place = system.resolve()
    kept = place.with_name(place.name + KEPT_AS)
    was_there = place.exists()
    candidate = place.with_name(f"{place.name}.{os.getpid()}")
    _keep(place, kept)
    try:
        shutil.copy2(database, candidate)
        os.chown(candidate, database.stat().st_uid, database.stat().st_gid)
        candidate.replace(place)
        yield
    finally:
        candidate.unlink(missing_ok=True)
        # One rename: there is no moment without a database, and it is the same file as before.
        if was_there:
            kept.replace(place)
        else:
            place.unlink(missing_ok=True)
            kept.unlink()


def _keep(place: Path, kept: Path) -> None:
    try:
        if place.exists():
            kept.hardlink_to(place)
        else:
            kept.touch(exist_ok=False)
    except FileExistsError:
        raise NotMeasuredError(
            f"{kept} is there: another benchmark is running, or one was killed. "
            f"If none is running, put the database back: mv {kept} {place} "
            "(an empty file stands for no database: then remove both)"
        ) from None
