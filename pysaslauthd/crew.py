"""The supervisor's side of the workers: starts them, kills them, tells how they ended.

The front asks, by number; what it may ask for is bounded here, because strangers
talk to the front.
"""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.config.settings import Settings
from pysaslauthd.plugins import most_workers
from pysaslauthd.worker import ADDRESSES, VERIFIER

log = logging.getLogger(__name__)

KINDS = (VERIFIER, ADDRESSES)
LEAVING = 8  # workers that are on their way out do not count against the most


class Member(NamedTuple):
    """A running worker."""

    number: int
    pid: int
    kind: str


class Crew:
    """The workers of one front; *run* is what the child process does, and ends with it."""

    def __init__(self, run: Callable[[Settings, str, socket.socket], None]) -> None:
        self._run = run
        self._members: dict[int, Member] = {}
        self._killed: set[int] = set()
        self._last_number = 0

    def start(self, settings: Settings, kind: str) -> tuple[int, socket.socket] | None:
        """Start a worker; return its number and the front's end of its channel, or None."""
        of_kind = sum(member.kind == kind for member in self._members.values())
        # A reload has two sets of them for a while.
        if kind not in KINDS or of_kind >= 2 * most_workers(settings) + LEAVING:
            log.error("no worker started: %d of kind %s are running", of_kind, kind)
            return None
        try:
            fronts, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            log.error("cannot start a worker: %s", error.strerror)
            return None
        with workers:
            try:
                pid = os.fork()
            except OSError as error:
                fronts.close()
                log.error("cannot start a worker: %s", error.strerror)
                return None
            if pid == 0:
                self._become_worker(settings, kind, workers)
        fronts.settimeout(0)
        self._last_number += 1
        self._members[self._last_number] = Member(self._last_number, pid, kind)
        log.debug("forked child: %d", pid)
        return self._last_number, fronts

    def _become_worker(self, settings: Settings, kind: str, end: socket.socket) -> None:
        """Be a worker in this child process, and never return."""
        status = 1
        try:
            self._run(settings, kind, end)
            status = 0
        except Exception:
            log.exception("the worker failed")
        finally:
            os._exit(status)

    def kill(self, number: int) -> None:
        """Kill worker *number*, if it is one of ours, and whatever it has started."""
        member = self._members.get(number)
        if member is None or number in self._killed:
            return
        self._killed.add(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGSTOP)  # so that it starts nothing more
        for pid in [member.pid, *descendants(member.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill every worker: nobody is there to hear its answer."""
        for number in list(self._members):
            self.kill(number)

    def end(self) -> None:
        """Kill every worker and wait until all are gone."""
        self.kill_all()
        for member in self._members.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(member.pid, 0)
            log.debug("child exited: %d", member.pid)
        self._members.clear()

    def on_end(self, pid: int, how: str | None) -> None:
        """Note the end of the child *pid*; *how* it failed, if it did."""
        for member in list(self._members.values()):
            if member.pid == pid:
                del self._members[member.number]
                if how is not None and member.number not in self._killed:
                    log.error("worker %d (process %d) ended: %s", member.number, pid, how)
                self._killed.discard(member.number)


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that *pid* has started, and theirs."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)
