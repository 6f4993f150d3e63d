"""Replaces a file so that a crash at any moment leaves the old or the new one.

Readers need no lock. Writers of this package take a lock file; those of libdb
take none, so what they write meanwhile is looked for before and after the
rename. `Raced` tells the caller to start over with what they wrote.
"""

import contextlib
import errno
import fcntl
import grp
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pysaslauthd.errors import StoreError
from pysaslauthd.stores.snapshot import Snapshot, fault, stamp_of

log = logging.getLogger(__name__)

LOCK_SUFFIX, NEW_SUFFIX, RECOVERY_SUFFIX = ".lock", ".new", ".recover"
LOCK_PATIENCE = 10.0
LOCK_POLL = 0.01
# How long a foreign writer that has the old file open is waited for.
WRITER_PATIENCE = 2.0
WRITER_POLL = 0.002
# What an in-place rewrite blanks first and writes last: the page every format starts with.
HEAD = 512
NEW_MODE = 0o640
PRIVATE_MODE = 0o600


class Raced(Exception):
    """Somebody else wrote the file; *late* is what they made of the old one after the rename."""

    def __init__(self, late: bytes | None = None) -> None:
        super().__init__("the file was written by somebody else")
        self.late = late


@contextlib.contextmanager
def locked(target: str) -> Iterator[None]:
    """Hold the lock file of *target*; StoreError names it if the wait is too long."""
    path = target + LOCK_SUFFIX
    deadline = time.monotonic() + LOCK_PATIENCE
    while (descriptor := _try_lock(target, path)) is None:
        if time.monotonic() > deadline:
            raise StoreError(
                target,
                f"another program has been writing it for {LOCK_PATIENCE:g} seconds: "
                f"{_holder(path)} holds the lock file {path}",
            )
        time.sleep(LOCK_POLL)
    try:
        yield
    finally:
        # Unlinked while it is held: whoever waits for it sees that it is no longer the one.
        with contextlib.suppress(OSError):
            Path(path).unlink()
        os.close(descriptor)


def _try_lock(target: str, path: str) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, PRIVATE_MODE)
    except OSError as error:
        raise _no_room(target, path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, current = os.fstat(descriptor), Path(path).stat(follow_symlinks=False)
        if os.path.samestat(mine, current):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
            _share_with_owner(target, descriptor)
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _share_with_owner(target: str, descriptor: int) -> None:
    """Let the database's owner use a lock file that root leaves behind when it is killed."""
    if os.geteuid() != 0 or os.fstat(descriptor).st_nlink != 1:
        return
    place = Path(target) if Path(target).exists() else Path(target).parent
    os.fchown(descriptor, place.stat().st_uid, place.stat().st_gid)


def _holder(path: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f"process {int(Path(path).read_text())}"
    return "another process"


def _no_room(target: str, path: str, error: OSError) -> StoreError:
    directory = os.path.dirname(target)  # noqa: PTH120 (text paths throughout)
    if isinstance(error, FileNotFoundError):
        return StoreError(target, f"the directory {directory} does not exist; make it first")
    if isinstance(error, PermissionError) and not os.access(directory, os.W_OK, effective_ids=True):
        reason = fault(directory, error, "write").problem
        return StoreError(target, f"cannot make {path}, for the directory {directory}: {reason}")
    return StoreError(target, f"cannot make {path}: {error.strerror}")


def put(target: str, data: bytes, base: Snapshot | None) -> None:
    """Make *data* the content of *target*, which still must be *base* (None: must not exist).

    Raced if it is not. The caller holds the lock.
    """
    new = target + NEW_SUFFIX
    if base is None:
        _write_new(target, new, data, None)
        _create(target, new)
        return
    with _opened(target) as old:
        status = os.fstat(old)
        if stamp_of(status) != base.stamp:
            raise Raced
        if status.st_nlink > 1:
            _in_place(target, data, "it has several hard links")
            return
        _write_new(target, new, data, old)
        try:
            _publish(target, new, base)
        except OSError as error:
            Path(new).unlink()
            if error.errno != errno.EBUSY:
                raise fault(target, error, "replace") from error
            _in_place(target, data, "it is mounted by itself")
            return
        late = _late_change(old, base)
    if late is not None:
        raise Raced(late)


@contextlib.contextmanager
def _opened(target: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    try:
        descriptor = os.open(target, flags | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Raced from error
    except OSError as error:
        raise fault(target, error, "write") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _create(target: str, new: str) -> None:
    try:
        # Unlike a rename, a link never replaces what somebody made meanwhile.
        Path(target).hardlink_to(new)
    except FileExistsError as error:
        raise Raced from error
    except OSError:  # a file system without hard links
        Path(new).replace(target)
    finally:
        Path(new).unlink(missing_ok=True)
    _sync_directory(target)


def _publish(target: str, new: str, base: Snapshot) -> None:
    if stamp_of(Path(target).stat()) != base.stamp:
        Path(new).unlink()
        raise Raced
    Path(new).replace(target)
    _sync_directory(target)


def _sync_directory(target: str) -> None:
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_new(target: str, new: str, data: bytes, old: int | None) -> None:
    """Write *data* durably to *new*, with owner, mode and attributes of the open file *old*."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(new, flags, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            if old is None:
                own(descriptor)
            else:
                _keep(target, descriptor, old)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        Path(new).unlink(missing_ok=True)
        raise StoreError(target, f"cannot write {new}: {error.strerror}") from error
    except StoreError:
        Path(new).unlink(missing_ok=True)
        raise


def own(descriptor: int, mode: int = NEW_MODE) -> None:
    """Give a new file to root:sasl with *mode*; where that cannot be, to us alone."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        os.fchown(descriptor, 0, grp.getgrnam("sasl").gr_gid)
        os.fchmod(descriptor, mode)


def _keep(target: str, descriptor: int, old: int) -> None:
    status = os.fstat(old)
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except PermissionError as error:
        raise StoreError(
            target,
            "cannot keep its owner and group, which are not ours; run as root or as its owner",
        ) from error
    os.fchmod(descriptor, status.st_mode & 0o7777)
    # Access lists and SELinux labels, where the file system has them.
    for name in os.listxattr(old):
        with contextlib.suppress(OSError):
            os.setxattr(descriptor, name, os.getxattr(old, name))


def _late_change(old: int, base: Snapshot) -> bytes | None:
    """Return what somebody wrote into the replaced file after it was read, if anything.

    Nobody can open it any more, so once nobody has it open for writing it is final.
    """
    deadline = time.monotonic() + WRITER_PATIENCE
    while not _no_writer(old) and time.monotonic() < deadline:
        time.sleep(WRITER_POLL)
    status = os.fstat(old)
    if (status.st_mtime_ns, status.st_size) == (base.stamp.mtime_ns, base.stamp.size):
        return None
    return os.pread(old, status.st_size, 0)


def _no_writer(descriptor: int) -> bool:
    """Say whether nobody has it open for writing: only then the kernel grants a read lease."""
    try:
        # Whoever opens it just now makes the kernel send SIGIO, which would kill us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # Neither ours nor root's, or a file system without leases: it cannot be known.
        return error.errno != errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _in_place(target: str, data: bytes, reason: str) -> None:
    recovery = target + RECOVERY_SUFFIX
    log.warning(
        "%s: %s, so it cannot be replaced in one step: rewriting it in place, "
        "with a recovery copy in %s meanwhile",
        target, reason, recovery,
    )  # fmt: skip
    with _opened(target, os.O_RDWR) as descriptor:
        _write_new(target, target + NEW_SUFFIX, data, descriptor)
        Path(target + NEW_SUFFIX).replace(recovery)
        _sync_directory(target)
        _reserve(descriptor, len(data), recovery)
        _overwrite(descriptor, data)
    Path(recovery).unlink()
    _sync_directory(target)


def _reserve(descriptor: int, size: int, recovery: str) -> None:
    """Have room for the whole rewrite before it begins; the file is as it was if there is none."""
    before = os.fstat(descriptor).st_size
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:
            return
        os.ftruncate(descriptor, before)
        Path(recovery).unlink()
        raise


def _overwrite(descriptor: int, data: bytes) -> None:
    """Rewrite a file so that a half-rewritten one cannot be taken for a whole one."""
    _write_at(descriptor, bytes(HEAD), 0)
    _write_at(descriptor, data[HEAD:], HEAD)
    os.ftruncate(descriptor, len(data))
    _write_at(descriptor, data[:HEAD], 0)


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
    os.fsync(descriptor)


def interrupted(target: str) -> bool:
    """Say whether a rewrite in place was cut short: the recovery copy then has the content."""
    return Path(target + RECOVERY_SUFFIX).exists() and _blank(target)


def _blank(target: str) -> bool:
    try:
        with Path(target).open("rb") as file:
            return not any(file.read(HEAD))
    except OSError:
        return False


def recover(target: str) -> None:
    """Clear up after a writer that was killed; under the lock.

    A rewrite in place that was cut short is finished, or forgotten if it had
    not begun, and the log says which.
    """
    Path(target + NEW_SUFFIX).unlink(missing_ok=True)
    recovery = target + RECOVERY_SUFFIX
    if not Path(recovery).exists():
        return
    if _blank(target):
        with _opened(target, os.O_RDWR) as descriptor:
            _overwrite(descriptor, Path(recovery).read_bytes())
        log.warning("%s: an interrupted rewrite was completed from %s", target, recovery)
    else:
        log.warning("%s: %s was left by an interrupted rewrite and is not needed", target, recovery)
    Path(recovery).unlink()
    _sync_directory(target)
