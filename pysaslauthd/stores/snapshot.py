"""Files as they stand at one moment: identity, whole content, and why not.

libdb writes in place, so what was read counts only if the file has the same
identity before and after, and is older than the clock that stamps it.
"""

import contextlib
import grp
import os
import pwd
import stat as mode_bits
from typing import NamedTuple

from pysaslauthd.errors import StoreError, StoreMissing

NANOSECONDS = 1_000_000_000
# A kernel stamps files by its clock tick, at most 10 ms; twice that is safe.
TICK = 20_000_000
# Some file systems stamp whole seconds (ext3, HFS+) or two (FAT).
COARSE_TICK = 2 * NANOSECONDS
# About eight million users; a mistyped path must not fill the memory.
MOST_BYTES = 1 << 30


class Stamp(NamedTuple):
    """The identity of a file's content: equal stamps that are settled mean equal content."""

    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    size: int

    def settled(self, now_ns: int) -> bool:
        """Say whether any later change shows in the stamp; *now_ns* is `time.time_ns()`.

        Not so within a clock tick of the last change: a second one may get the
        same times. Such a file counts as changed again at the next look.
        """
        coarse = self.ctime_ns % NANOSECONDS == 0
        # A time far in the future is as good as one in the past: the next will differ.
        return abs(now_ns - self.ctime_ns) >= (COARSE_TICK if coarse else TICK)


class Snapshot(NamedTuple):
    """The whole content of a file and the stamp it belongs to."""

    data: bytes
    stamp: Stamp

    def __repr__(self) -> str:
        return f"Snapshot({len(self.data)} bytes, {self.stamp})"


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the identity in *status*."""
    return Stamp(
        status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
    )


def stamp(path: str) -> Stamp:
    """Return the identity of what *path* names now, by one system call.

    StoreMissing if there is nothing, StoreError if that cannot be found out.
    """
    try:
        return stamp_of(os.stat(path))  # noqa: PTH116 (a hot path: a Path object costs more)
    except OSError as error:
        raise fault(path, error, "read") from error


def snapshot(path: str) -> Snapshot | None:
    """Return the content of *path*; None if it changed while it was read.

    StoreMissing or StoreError, in words for the administrator, if it cannot be read.
    """
    try:
        # Without O_NONBLOCK a FIFO at this path would hold us until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise fault(path, error, "read") from error
    try:
        before = os.fstat(descriptor)
        _check(path, before)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read()
        same = stamp_of(os.fstat(descriptor)) == stamp_of(before) and len(data) == before.st_size
    except OSError as error:
        raise fault(path, error, "read") from error
    finally:
        os.close(descriptor)
    return Snapshot(data, stamp_of(before)) if same else None


def _check(path: str, status: os.stat_result) -> None:
    if not mode_bits.S_ISREG(status.st_mode):
        raise StoreError(path, "it is not a regular file, so it is no sasldb; check the path")
    if status.st_size > MOST_BYTES:
        raise StoreError(path, f"it is larger than {MOST_BYTES >> 20} MiB; check the path")


def fault(path: str, error: OSError, wish: str) -> StoreError:
    """Return *error* as a StoreError in words; *wish* is what was tried: `read` or `write`."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return StoreMissing(path, "there is no such file; `pysaslpasswd -c USER` makes one")
        case PermissionError():
            return StoreError(path, _permission(path, wish))
        case _:
            return StoreError(path, f"cannot {wish} it: {error.strerror}")


def _permission(path: str, wish: str) -> str:
    who = f"user {_user(os.geteuid())} (groups {_own_groups()})"
    try:
        status = os.stat(path)  # noqa: PTH116 (as above: text paths throughout)
    except OSError:
        return f"{who} may not {wish} it: a directory on the way to it keeps others out"
    owner, group = _user(status.st_uid), group_name(status.st_gid)
    mode = mode_bits.S_IMODE(status.st_mode)
    ours = group_name(next(iter(os.getgroups()), os.getegid()))
    right = "r" if wish == "read" else "rw"
    return (
        f"{who} may not {wish} it: it belongs to {owner}:{group} with mode {mode:04o}; "
        f"run: chgrp {ours} {path} && chmod g+{right} {path}"
    )


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def group_name(gid: int) -> str:
    """Return the group's name, or its number if it has none."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def _own_groups() -> str:
    return ", ".join(group_name(gid) for gid in sorted({os.getegid(), *os.getgroups()}))
