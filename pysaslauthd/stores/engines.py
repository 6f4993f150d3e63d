"""The three kinds of file: how each is recognised, read and written."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from pysaslauthd.errors import StoreError
from pysaslauthd.stores import berkeley_hash, lmdb_file, replace
from pysaslauthd.stores.records import Damaged, Records

if TYPE_CHECKING:
    import lmdb

log = logging.getLogger(__name__)

# Old, 32-bit and 64-bit files, and the two with a "numsync" header; either byte order.
GDBM_MAGICS = frozenset({0x13579ACE, 0x13579ACD, 0x13579ACF, 0x13579AD0, 0x13579AD1})
LMDB_KEY_BYTES = 511
LMDB_SMALLEST_MAP = 1 << 20
LMDB_LOCK_SUFFIX = "-lock"
LMDB_LOCK_MODE = 0o660
LMDB_METAS = 1 << 17  # the first two pages, of the largest size there is


class Format(NamedTuple):
    """A kind of file. *build* is None where the library must write it itself."""

    name: str
    parse: Callable[[bytes], Records]
    build: Callable[[Records], bytes] | None


def recognise(data: bytes) -> Format:
    """Return the format *data* is written in; Damaged if it is none of ours."""
    if berkeley_hash.byte_order(data) is not None:
        return BERKELEY
    if lmdb_file.is_lmdb(data):
        return LMDB
    if any(int.from_bytes(data[:4], order) in GDBM_MAGICS for order in ("little", "big")):
        return GDBM
    if not data:
        raise Damaged("it is empty, not a sasldb database; `pysaslpasswd -c USER` makes it one")
    if data[:4] in (b"\x00\x06\x15\x61", b"\x61\x15\x06\x00"):
        raise Damaged("it is a hash file of Berkeley DB 1.85, which is not supported")
    raise Damaged("it is not a sasldb database (Berkeley DB hash, LMDB or GDBM); check the path")


def _gdbm() -> ModuleType:
    try:
        import dbm.gnu  # only where a file needs it: many Pythons lack it
    except ImportError as error:
        raise Damaged(
            "it is a GDBM file, and this Python has no dbm.gnu: install it "
            "(python3-gdbm on Debian, python3 on Fedora) or use a Berkeley DB file"
        ) from error
    return dbm.gnu


@contextlib.contextmanager
def _memory_file(data: bytes) -> Iterator[str]:
    """Lend *data* as a file that has a path but is on no disk."""
    descriptor = os.memfd_create("sasldb", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        file.write(data)
        yield f"/proc/self/fd/{descriptor}"


def _parse_gdbm(data: bytes) -> Records:
    gnu = _gdbm()
    found: Records = {}
    with _memory_file(data) as path:
        try:
            with gnu.open(path, "r") as database:
                name = database.firstkey()
                while name is not None:
                    if name in found:
                        raise Damaged("it is a GDBM file whose chain of records is a ring")
                    found[name] = database[name]
                    name = database.nextkey(name)
        except (gnu.error, OSError, KeyError) as error:
            raise Damaged("it is a damaged GDBM file; try `gdbmtool` and its `recover`") from error
    return found


def _build_gdbm(records: Records) -> bytes:
    gnu = _gdbm()
    with _memory_file(b"") as path:
        with gnu.open(path, "n") as database:
            for name, value in records.items():
                database[name] = value
        return Path(path).read_bytes()


BERKELEY = Format("berkeley", berkeley_hash.parse, berkeley_hash.build)
LMDB = Format("lmdb", lmdb_file.parse, None)
GDBM = Format("gdbm", _parse_gdbm, _build_gdbm)
FORMATS = {form.name: form for form in (BERKELEY, LMDB, GDBM)}


def edit_lmdb(path: str, change: Callable[[Records], None]) -> None:
    """Apply *change* to an LMDB file (made if missing) in one of its own transactions.

    An existing file must be known to be whole: liblmdb trusts what it maps.
    *change* may be called again with a fresh copy when the map has to grow.
    """
    lmdb = _lmdb(path)

    made = not Path(path).exists() or not Path(path).stat().st_size
    has_lock = Path(path + LMDB_LOCK_SUFFIX).exists()
    size = LMDB_SMALLEST_MAP if made else _map_size(path)
    while True:
        try:
            mode = replace.PRIVATE_MODE
            with lmdb.open(path, map_size=size, subdir=False, mode=mode) as database:
                if made:
                    _own_both(path)
                elif not has_lock:
                    _own_lock_like(path)
                _apply(path, database, change)
                # Always: the writer before may have been killed before it came to this.
                _scrub(path, database)
            return
        except lmdb.MapFullError:
            size *= 2
        except lmdb.Error as error:
            raise StoreError(path, f"LMDB cannot write it: {error}") from error
        except UnicodeEncodeError as error:
            raise StoreError(path, "LMDB takes only paths that are UTF-8") from error


def _lmdb(path: str) -> ModuleType:
    try:
        import lmdb  # only where a file needs it
    except ImportError as error:
        raise StoreError(path, "to write LMDB files, install the Python package lmdb") from error
    return lmdb


def _map_size(path: str) -> int:
    with Path(path).open("rb") as file:
        return max(lmdb_file.map_size(file.read(LMDB_METAS)), LMDB_SMALLEST_MAP)


def _own_both(path: str) -> None:
    for name, mode in ((path, replace.NEW_MODE), (path + LMDB_LOCK_SUFFIX, LMDB_LOCK_MODE)):
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            replace.own(descriptor, mode)
        finally:
            os.close(descriptor)


def _own_lock_like(path: str) -> None:
    """Let whoever may read the database use its lock file, which readers write."""
    status = Path(path).stat()
    lock = Path(path + LMDB_LOCK_SUFFIX)
    with contextlib.suppress(PermissionError):
        os.chown(lock, status.st_uid, status.st_gid)
        lock.chmod(status.st_mode & 0o666 | (status.st_mode & 0o444) >> 1)


def _apply(path: str, database: "lmdb.Environment", change: Callable[[Records], None]) -> None:
    with database.begin(write=True) as transaction:
        before: Records = dict(transaction.cursor())
        after = dict(before)
        change(after)
        for name in before.keys() - after.keys():
            transaction.delete(name)
        news = {name: value for name, value in after.items() if before.get(name) != value}
        if any(len(name) > LMDB_KEY_BYTES for name in news):
            raise StoreError(path, "a name is too long for LMDB (511 bytes with its realm)")
        for name, value in news.items():
            transaction.put(name, value)


def _scrub(path: str, database: "lmdb.Environment") -> None:
    """Blank what belongs to no record, so that deleted passwords do not stay in the file."""
    database.reader_check()  # a reader that was killed reads no more
    with database.begin(write=True):  # keeps other writers out
        if "(no active readers)" not in database.readers():
            log.warning("%s: in use, so what was deleted stays in it until it is overwritten", path)
            return
        with Path(path).open("r+b", buffering=0) as file:
            data = file.read()
            for start, end in lmdb_file.unused(data):
                if any(data[start:end]):
                    os.pwrite(file.fileno(), bytes(end - start), start)
            os.fsync(file.fileno())
