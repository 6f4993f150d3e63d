"""The supervisor's side of the workers: starts them, kills them, tells how they ended.

The front asks, by number; what it may ask for is bounded here, because strangers
talk to the front.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from pysaslauthd.config.settings import Settings
from pysaslauthd.plugins import most_workers
from pysaslauthd.strays import kill_tree
from pysaslauthd.worker import ADDRESSES, VERIFIER

log = logging.getLogger(__name__)

KINDS = (VERIFIER, ADDRESSES)
GENERATIONS_KEPT = 8  # of settings: an engine that drains may still want a worker by its own
LEAVING = 8  # workers of a generation that are on their way out do not count against the most
END_PATIENCE = 1.0  # seconds for killed processes to be gone
SECONDS_BETWEEN_COMPLAINTS = 60.0


class Member(NamedTuple):
    """A running worker."""

    number: int
    pid: int
    kind: str
    generation: int
    backend: str


class Crew:
    """The workers of one front; *run* is what the child process does, and ends with it.

    They follow *settings*, the first generation, until there are newer ones.
    """

    def __init__(
        self, settings: Settings, run: Callable[[Settings, str, socket.socket], None]
    ) -> None:
        self._run = run
        self._generations = {0: settings}
        self._newest = 0
        self._members: dict[int, Member] = {}
        self._killed: set[int] = set()
        self._last_number = 0
        self._complained = float("-inf")

    @property
    def pids(self) -> set[int]:
        """The process ids of all workers."""
        return {member.pid for member in self._members.values()}

    @property
    def longest_deadline(self) -> float:
        """The most seconds that a question which is under way may take."""
        return max(settings.deadlines.longest for settings in self._generations.values())

    def follow(self, settings: Settings, generation: int) -> None:
        """Know *settings* as those of a new *generation*."""
        self._newest = generation
        self._generations[generation] = settings
        self._generations.pop(generation - GENERATIONS_KEPT, None)

    def start(self, kind: str, generation: int) -> tuple[int, socket.socket] | None:
        """Start a worker; return its number and the front's end of its channel, or None.

        Verifiers are started by the settings of their generation, where that is still known.
        """
        generation = generation if kind == VERIFIER else self._newest
        settings = self._generations.get(generation)
        if settings is None or kind not in KINDS or self._has_enough(kind, generation, settings):
            self._complain("no worker of kind %s started: %d are running", kind, len(self._members))
            return None
        try:
            fronts, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = fork_with(fronts, workers)
        except OSError as error:
            self._complain("cannot start a worker: %s", error.strerror)
            return None
        if pid == 0:
            self._become_worker(settings, kind, workers)
        workers.close()
        fronts.settimeout(0)
        self._last_number += 1
        backend = settings.mechanism.lower() if kind == VERIFIER else kind
        self._members[self._last_number] = Member(self._last_number, pid, kind, generation, backend)
        log.debug("forked child: %d", pid)
        return self._last_number, fronts

    def _has_enough(self, kind: str, generation: int, settings: Settings) -> bool:
        """Say whether there are as many as any engine could want, of its own or in all."""
        most = LEAVING + (most_workers(settings) if kind == VERIFIER else 1)
        of_kind = [member for member in self._members.values() if member.kind == kind]
        same = sum(member.generation == generation for member in of_kind)
        return same >= most or len(of_kind) >= GENERATIONS_KEPT * most

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
        if member is not None and number not in self._killed:
            self._killed.add(number)
            kill_tree(member.pid)

    def kill_all(self) -> None:
        """Kill every worker: nobody is there to hear its answer."""
        for number in list(self._members):
            self.kill(number)

    def end(self) -> None:
        """Kill every worker and wait until all are gone, but not for one the kernel holds."""
        self.kill_all()
        until = time.monotonic() + END_PATIENCE
        while self._members and time.monotonic() < until:
            for pid in self.pids:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    log.debug("child exited: %d", pid)
                    self.on_end(pid, None)
            time.sleep(0.001)

    def on_end(self, pid: int, how: str | None) -> None:
        """Note the end of the child *pid*; *how* it failed, if it did."""
        for member in list(self._members.values()):
            if member.pid == pid:
                del self._members[member.number]
                if how is not None and member.number not in self._killed:
                    log.error("worker %d of %s died: %s", member.number, member.backend, how)
                self._killed.discard(member.number)

    def _complain(self, text: str, *values: object) -> None:
        """Log, but not as often as a front might wish."""
        now = time.monotonic()
        if now - self._complained >= SECONDS_BETWEEN_COMPLAINTS:
            self._complained = now
            log.error(text, *values)


def fork_with(*ends: socket.socket) -> int:
    """Fork; where that fails, close the *ends* of the channel that was for the child."""
    try:
        return os.fork()
    except OSError:
        for end in ends:
            end.close()
        raise
