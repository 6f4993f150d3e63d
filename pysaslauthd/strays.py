"""Processes we inherit from children that have died, such as a command that a PAM module started.

The supervisor takes them in (PR_SET_CHILD_SUBREAPER, prctl(2)), so that none is
left behind: what a child that died by accident leaves is killed; what a living
one let go of, say a script's background job, is left alone.
"""

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from pysaslauthd.privileges import adopt_orphans

log = logging.getLogger(__name__)

UID = re.compile(r"^Uid:\t(\d+)", re.MULTILINE)
ZOMBIE = "\nState:\tZ"
INIT = 1  # inherits everybody's


class Strays:
    """Knows our children that we did not fork. *front_uid*: of the front, where it has its own.

    Nothing of that user may outlive its front: it could serve in its place.
    """

    def __init__(self, front_uid: int | None) -> None:
        self._front_uid = front_uid
        self._left_alone: set[int] = set()
        # Who inherits others' children, or had some before us, such as a shell's jobs, cannot
        # tell them from ours.
        self._is_blind = os.getpid() == INIT or bool(children())
        if not self._is_blind:
            adopt_orphans()

    def look(self, ours: set[int]) -> None:
        """Note who has come, unless a child has died: it may be that one who has left them."""
        if self._is_blind:
            return
        strangers = children() - ours
        for pid in [pid for pid in strangers if self._is_of_the_front(pid)]:
            strangers.remove(pid)
            _kill(pid)
        if not _has_one_died():  # asked last: who dies from now on has left none of these
            self._left_alone = strangers

    def kill(self, ours: set[int]) -> None:
        """Kill who has come since the last look, and what they have started."""
        if not self._is_blind:
            for pid in children() - ours - self._left_alone:
                _kill(pid)

    def _is_of_the_front(self, pid: int) -> bool:
        found = UID.search(_status(pid))
        return found is not None and int(found[1]) == self._front_uid


def children() -> set[int]:
    """Return the ids of our children."""
    return set(_children(os.getpid()))


def _has_one_died() -> bool:
    """Say whether there is a child to be reaped, and leave it so."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return False


def kill_tree(pid: int) -> None:
    """Kill *pid* and whatever it has started."""
    _signal(pid, signal.SIGSTOP)  # so that it starts nothing more
    for found in [pid, *_descendants(pid)]:
        _signal(found, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # it has become another user's, and we are not root
        log.warning("process %d may not be killed by user %d", pid, os.geteuid())


def _status(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


def _kill(pid: int) -> None:
    if ZOMBIE in _status(pid):
        return  # it is dead, and only waits to be collected
    log.warning("process %d is left over from one that died: killing it", pid)
    kill_tree(pid)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> Iterator[int]:
    for children_file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, children_file.read_text().split())
