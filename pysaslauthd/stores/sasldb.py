"""A sasldb file: its records, its identity, and how they are changed.

The file's kind is told by its content: Berkeley DB hash, LMDB or GDBM. What the
records mean is in protocols/sasldb.md section 1.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from pysaslauthd.errors import StoreCorrupt, StoreError, StoreMissing
from pysaslauthd.stores import berkeley_hash, engines, lmdb_file, replace
from pysaslauthd.stores.records import PASSWORD as PASSWORD
from pysaslauthd.stores.records import Damaged, Records
from pysaslauthd.stores.records import key as key
from pysaslauthd.stores.records import split_key as split_key
from pysaslauthd.stores.snapshot import Snapshot, fault, snapshot
from pysaslauthd.stores.snapshot import Stamp as Stamp
from pysaslauthd.stores.snapshot import stamp as stamp

FORMATS = tuple(engines.FORMATS)
DEFAULT_PATH = "/etc/sasldb2"

READ_TRIES = 8
READ_PAUSE = 0.02  # longer than the clock tick: a writer that is still at it has changed the stamp
EDIT_TRIES = 20
SETTLE_PATIENCE = 5.0
SETTLE_POLL = 0.002

Change = Callable[[Records], None]


def load(path: str) -> Records:
    """Return all records of the file *path*, in the order of the file. Blocks.

    StoreMissing if there is none, StoreCorrupt if it is not a whole database,
    StoreError if it cannot be read; the text says what to do.
    """
    return load_stamped(path)[0]


def load_stamped(path: str) -> tuple[Records, Stamp]:
    """Return what `load` does and the stamp of the very file it was read from."""
    problem = StoreError(path, "it is being written all the time; try again")
    for attempt in range(READ_TRIES):
        if attempt:
            time.sleep(READ_PAUSE)
        taken = snapshot(path)
        if taken is None:
            continue
        settled = taken.stamp.settled(time.time_ns()) or attempt == READ_TRIES - 1
        try:
            records = engines.recognise(taken.data).parse(taken.data)
        except Damaged as error:
            problem = _corrupt(path, error)
            if settled:
                break
            continue
        # libdb writes the count first: fewer records may be a half-written file.
        if settled or len(records) >= berkeley_hash.promised(taken.data):
            return records, taken.stamp
    raise problem


def _corrupt(path: str, error: Damaged) -> StoreCorrupt:
    target = os.path.realpath(path)
    if not replace.interrupted(target):
        return StoreCorrupt(path, str(error))
    recovery = target + replace.RECOVERY_SUFFIX
    return StoreCorrupt(
        path,
        f"a rewrite of it was interrupted; {recovery} has its content: the next change by "
        "pysaslpasswd puts it back",
    )


def edit(path: str, change: Change, *, new_format: str | None = None) -> None:
    """Change the records of *path* as *change* does to the dictionary it is given.

    All or nothing: a crash leaves the old file or the new one. *change* may be
    called several times, each time with fresh records, when others write
    meanwhile. A missing or empty file is made as *new_format* (one of FORMATS)
    if the change leaves any record, and is StoreMissing without it. Blocks up
    to ten seconds for the lock; StoreError if it cannot be had.
    """
    target = os.path.realpath(path)
    if not os.path.basename(target) or target.endswith(os.sep):  # noqa: PTH119 (text paths)
        raise StoreError(path, "it is not the name of a file")
    try:
        # LMDB too, which has locks of its own: of four writers that opened and closed
        # a file as fast as they could, some crashed in one run of ten (lmdb 3.0.0).
        with replace.locked(target):
            if _is_lmdb(target):
                load(target)  # liblmdb dies of a damaged file, so it must not get one
                engines.edit_lmdb(target, change)
            else:
                _edit_whole(target, change, new_format)
    except OSError as error:
        raise fault(target, error, "write") from error


def _edit_whole(target: str, change: Change, new_format: str | None) -> None:
    replace.recover(target)
    for _ in range(EDIT_TRIES):
        rest = _edit_once(target, change, new_format)
        if rest is None:
            return
        change = rest
    raise StoreError(target, "others keep writing it; check what is in it and try again")


def _is_lmdb(target: str) -> bool:
    if not os.path.isfile(target):  # noqa: PTH113 (text paths); a FIFO would hold us
        return False
    try:
        with Path(target).open("rb") as file:
            return lmdb_file.is_lmdb(file.read(berkeley_hash.META_BYTES))
    except OSError:
        return False


def _edit_once(target: str, change: Change, new_format: str | None) -> Change | None:
    """Try *change* once; return what must still be done because others wrote meanwhile."""
    base = _settled(target)
    form, before = _contents(target, base, new_format)
    after = dict(before)
    change(after)
    if after == before:
        return None
    if form.build is None:
        engines.edit_lmdb(target, change)
        return None
    try:
        replace.put(target, form.build(after), base)
    except Damaged as error:
        raise StoreError(target, str(error)) from error
    except replace.Raced as race:
        return change if race.late is None else _late_change(target, before, race.late)
    return None


def _settled(target: str) -> Snapshot | None:
    """Return the content once any later write shows in its stamp; None if there is no file."""
    deadline = time.monotonic() + SETTLE_PATIENCE
    while time.monotonic() < deadline:
        try:
            seen = stamp(target)
            if seen.settled(time.time_ns()) and (taken := snapshot(target)) is not None:
                return taken
        except StoreMissing:
            return None
        time.sleep(SETTLE_POLL)
    raise StoreError(target, "it is being written all the time; try again")


def _contents(
    target: str, base: Snapshot | None, new_format: str | None
) -> tuple[engines.Format, Records]:
    if base is None or not base.data:
        if new_format is None:
            raise StoreMissing(target, "there is no database; `pysaslpasswd -c USER` makes one")
        return engines.FORMATS[new_format], {}
    try:
        form = engines.recognise(base.data)
        return form, form.parse(base.data)
    except Damaged as error:
        raise _corrupt(target, error) from error


def _late_change(target: str, before: Records, late: bytes) -> Change:
    """Return what somebody did to the replaced file, to be done again to the new one."""
    try:
        after = engines.recognise(late).parse(late)
    except Damaged as error:
        raise StoreError(
            target,
            "the change was made, but another program wrote the file at the same moment and "
            "its change is lost; check with pysasldblistusers",
        ) from error
    news = {name: value for name, value in after.items() if before.get(name) != value}
    gone = before.keys() - after.keys()

    def again(records: Records) -> None:
        for name in gone:
            records.pop(name, None)
        records.update(news)

    return again
