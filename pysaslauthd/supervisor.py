"""The parent of the front: starts it, restarts it, tells it to reload and to leave.

It holds the listening sockets, so that a front that dies costs nobody a
connection; it reads nothing from strangers and stays small: no event loop.
"""

import gc
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from pysaslauthd import channel
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.systemd import Notifier

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
MISSED_HEARTBEATS = 8  # a front that is silent for so many is killed and replaced
STOP_GRACE = 3.0  # seconds: after the backends' deadline a front must have left
SHORT_LIFE = 1.0  # seconds: a front that dies so young is restarted ever more slowly
LONGEST_PAUSE = 5.0
FIRST_TRIES = 3  # fronts that may be killed before the first one serves


class FrontProcess(NamedTuple):
    """A running front: its process id, our end of its channel, and when it was started."""

    pid: int
    end: socket.socket
    started: float


class Supervisor:
    """Keeps one front running until it is told to stop by SIGTERM or SIGINT.

    *read_settings* is called for SIGHUP and raises StartupError where the new
    settings are no good; *run_front* is what the child process does; *on_ready*
    is called once, when the first front serves; *on_stop* when no new client
    shall come.
    """

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        run_front: Callable[[Settings, socket.socket], None],
        *,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings
        self._run_front = run_front
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._notify = Notifier()
        self._front: FrontProcess | None = None
        self._was_ready = False
        self._stop_by: float | None = None
        self._missed = 0
        self._restart_at: float | None = None
        self._short_lives = 0

    def run(self) -> None:
        """Return when the front has stopped as told; StartupError if the first never served."""
        wakeup, from_signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in SIGNALS:
            signal.signal(number, _note)
        signal.set_wakeup_fd(from_signals, warn_on_full_buffer=False)
        gc.freeze()  # so that the collector does not copy the pages the front shares
        self._start()
        while self._front is not None or self._restart_at is not None:
            self._step(wakeup)
        signal.set_wakeup_fd(-1)

    def _step(self, wakeup: int) -> None:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        if self._front is not None:
            poll.register(self._front.end, select.POLLIN)
        timeout = self._timeout()
        ready = {descriptor for descriptor, _ in poll.poll(timeout * 1000)}
        if not ready:
            self._on_silence()
        if self._front is not None and self._front.end.fileno() in ready:
            self._on_word(channel.receive(self._front.end))
        if wakeup in ready:
            for number in os.read(wakeup, 1024):
                self._on_signal(number)

    def _timeout(self) -> float:
        moments = [m for m in (self._stop_by, self._restart_at) if m is not None]
        now = time.monotonic()
        return max(
            0.0, min([channel.SECONDS_BETWEEN_HEARTBEATS * 1.5, *(m - now for m in moments)])
        )

    def _on_silence(self) -> None:
        """Nothing came in time: restart what is due, kill what hangs."""
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._start()
            return
        self._missed += 1
        overdue = self._stop_by is not None and now >= self._stop_by
        if self._front is not None and (overdue or self._missed >= MISSED_HEARTBEATS):
            log.error("front %d does not answer: killing it", self._front.pid)
            os.kill(self._front.pid, signal.SIGKILL)
            self._missed = 0

    def _start(self) -> None:
        self._restart_at = None
        self._missed = 0
        ours, theirs = channel.pair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_front(theirs)
        theirs.close()
        self._front = FrontProcess(pid, ours, time.monotonic())
        log.debug("forked child: %d", pid)

    def _become_front(self, end: socket.socket) -> None:
        """Run the front in this child process, and never return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                # The supervisor's channel says when to leave; a terminal's Ctrl-C reaches both.
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._run_front(self._settings, end)
            status = 0
        except Exception:
            log.exception("the front failed")
        finally:
            os._exit(status)

    def _on_word(self, word: bytes | None) -> None:
        if not word:
            return  # gone: SIGCHLD says more
        self._missed = 0
        self._notify.alive()
        if word == channel.READY and not self._was_ready:
            self._was_ready = True
            self._on_ready()
            self._notify.ready()
        elif word == channel.RELOADED:
            self._notify.ready()

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                self._reload()
            case signal.SIGTERM | signal.SIGINT:
                self._stop()

    def _reload(self) -> None:
        try:
            self._settings = self._read_settings()
        except StartupError as error:
            log.error("not reloaded: %s", "; ".join(error.lines))
            return
        self._notify.reloading()
        self._say(channel.encode_reload(self._settings))

    def _stop(self) -> None:
        if self._stop_by is None:
            self._stop_by = time.monotonic() + self._settings.deadline + STOP_GRACE
            self._restart_at = None
            self._notify.stopping()
            self._on_stop()
        self._say(channel.STOP)

    def _say(self, word: bytes) -> None:
        if self._front is None:
            return
        try:
            self._front.end.send(word)
        except OSError as error:
            log.warning("front %d cannot be told: %s", self._front.pid, error.strerror)

    def _reap(self) -> None:
        """Collect every child that has ended; as pid 1, other people's too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            log.debug("child exited: %d", pid)
            if self._front is not None and pid == self._front.pid:
                self._on_front_end(self._front, status)

    def _on_front_end(self, front: FrontProcess, status: int) -> None:
        front.end.close()
        self._front = None
        if self._stop_by is not None:
            return
        how = describe_end(status)
        lived = time.monotonic() - front.started
        self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE else 0
        if not self._was_ready and (os.WIFEXITED(status) or self._short_lives == FIRST_TRIES):
            raise StartupError(f"the front did not start ({how}): see the lines above")
        pause = min(LONGEST_PAUSE, 0.1 * 2**self._short_lives) if self._short_lives > 1 else 0.0
        log.error("front %d ended (%s): starting another", front.pid, how)
        if pause:
            self._restart_at = time.monotonic() + pause
        else:
            self._start()


def describe_end(status: int) -> str:
    """Say how a child with wait *status* ended."""
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _note(_number: int, _frame: object) -> None:
    """Do nothing here: the wake-up descriptor has the signal's number."""
