"""The parent of front and workers: starts and restarts them, tells the front to reload, to leave.

It holds the listening sockets, so that a front that dies costs nobody a
connection; it reads nothing from strangers and stays small: no event loop.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from pysaslauthd import channel
from pysaslauthd.config.settings import Settings
from pysaslauthd.crew import Crew, fork_with
from pysaslauthd.errors import StartupError
from pysaslauthd.strays import Strays
from pysaslauthd.systemd import Notifier

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
LONGEST_WAIT = 3.0  # seconds
LONGEST_SILENCE = 24.0  # seconds without a heartbeat: the front is killed and replaced
LEAVE_GRACE = 3.0  # seconds after the backends' deadline in which a front must have left
SHORT_LIFE = 1.0  # seconds: a front that dies so young is restarted ever more slowly
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
WORDS_AT_ONCE = 16  # a front that talks without end must not keep signals from being heard
FIRST_TRIES = 3  # fronts that may die before one serves


class FrontProcess:
    """A running front: its process, our end of its channel, how long it has been silent."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self.end: socket.socket | None = end
        self.started = time.monotonic()
        self.silent = 0.0
        self.killed = False

    def kill(self, why: str) -> None:
        """End it, once."""
        if not self.killed:
            self.killed = True
            log.error("front %d %s: killing it", self.pid, why)
            os.kill(self.pid, signal.SIGKILL)

    def say(self, word: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a word, with *descriptors*; OSError where it is not taken."""
        if self.end is not None:
            socket.send_fds(self.end, [word], descriptors)

    def tell_to_stop(self) -> None:
        """Have it answer what it has been asked, and leave."""
        try:
            self.say(channel.STOP)
        except OSError:
            self.hang_up()  # which says the same, but leaves it without workers

    def hang_up(self) -> None:
        """Close our end."""
        if self.end is not None:
            self.end.close()
            self.end = None


class Supervisor:
    """Keeps one front running until it is told to stop by SIGTERM or SIGINT.

    *read_settings* is called for SIGHUP and raises StartupError where the new
    settings are no good; *run_front* and *run_worker* are what the child
    processes do; *on_ready* is called once, when the first front serves;
    *on_stop* when no new client shall come. *front_uid* is the front's user,
    where it has one of its own.
    """

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        run_front: Callable[[Settings, int, socket.socket], None],
        run_worker: Callable[[Settings, str, socket.socket], None],
        *,
        front_uid: int | None,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._generation = 0
        self._read_settings = read_settings
        self._run_front = run_front
        self._crew = Crew(settings, partial(self._become_worker, run_worker))
        self._strays = Strays(front_uid)
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._notify = Notifier()
        self._front: FrontProcess | None = None
        self._was_ready = False
        self._stop_by: float | None = None
        self._restart_at: float | None = None
        self._deaths = 0  # of fronts that served nobody, or not for long
        self._settling = self._reload_again = False

    def run(self) -> None:
        """Return when the front has stopped as told; StartupError if the first never served."""
        wakeup, from_signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(from_signals, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _note)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # as the C daemon
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may have blocked some
        gc.freeze()  # so that the collector does not copy the pages the front shares
        self._start()
        while self._front is not None or self._restart_at is not None:
            self._step(wakeup)
        self._crew.end()
        self._strays.look(self._ours())  # the last front may have left some
        signal.set_wakeup_fd(-1)

    def _step(self, wakeup: int) -> None:
        began = time.monotonic()
        ready = self._wait(wakeup)
        self._strays.look(self._ours())
        if self._front is not None:
            self._hear(self._front)
        if wakeup in ready:
            for number in os.read(wakeup, 1024):
                self._on_signal(number)
        self._reap()
        # A wait that took longer was not ours: the machine was suspended, or we were.
        self._keep_time(min(time.monotonic() - began, LONGEST_WAIT))

    def _ours(self) -> set[int]:
        return self._crew.pids | ({self._front.pid} if self._front is not None else set())

    def _wait(self, wakeup: int) -> set[int]:
        """Wait for a word or a signal, and not beyond the next deadline; return what is ready."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        if self._front is not None and self._front.end is not None:
            poll.register(self._front.end, select.POLLIN)
        timeout = LONGEST_WAIT
        for moment in (self._stop_by, self._restart_at):
            if moment is not None:
                timeout = min(timeout, max(0.05, moment - time.monotonic()))
        return {descriptor for descriptor, _ in poll.poll(timeout * 1000)}

    def _keep_time(self, waited: float) -> None:
        """Restart what is due; kill what is silent or does not leave."""
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._start()
        front = self._front
        if front is None:
            return
        front.silent += waited
        if self._stop_by is not None and now >= self._stop_by:
            front.kill("does not leave")
        elif front.silent >= LONGEST_SILENCE:
            front.kill("does not answer")

    def _start(self) -> None:
        self._restart_at = None
        # It starts by the settings of this moment; newer ones wait until it serves.
        self._settling, self._reload_again = True, False
        try:
            ours, theirs = channel.pair()
            pid = fork_with(ours, theirs)
        except OSError as error:
            self._start_later(error)
            return
        if pid == 0:
            ours.close()
            self._become_front(theirs)
        theirs.close()
        self._front = FrontProcess(pid, ours)
        log.debug("forked child: %d", pid)

    def _start_later(self, error: OSError) -> None:
        """Try again in a while: memory or processes are short, as after a front was killed."""
        if not self._was_ready:
            raise StartupError(f"cannot start a front: {error.strerror}") from None
        log.error("cannot start a front: %s; trying again", error.strerror)
        self._settling = False
        self._restart_at = time.monotonic() + LONGEST_PAUSE

    def _become_front(self, end: socket.socket) -> None:
        """Run the front in this child process, and never return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                # The supervisor's channel says when to leave; a terminal's Ctrl-C reaches both.
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._run_front(self._settings, self._generation, end)
            status = 0
        except StartupError as error:  # such as for a file that only root may read
            log.error("%s", "; ".join(error.lines))
        except Exception:
            log.exception("the front failed")
        finally:
            os._exit(status)

    def _become_worker(
        self,
        run_worker: Callable[[Settings, str, socket.socket], None],
        settings: Settings,
        kind: str,
        end: socket.socket,
    ) -> None:
        """Run a worker in this child process."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            # Handled, not ignored: what a PAM module starts would inherit that.
            signal.signal(number, _note)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        run_worker(settings, kind, end)

    def _hear(self, front: FrontProcess) -> None:
        """Take in what the front has said; its last words are there after its death."""
        for _ in range(WORDS_AT_ONCE):
            if front.end is None or (word := channel.receive(front.end)) is None:
                return
            front.silent = 0.0
            if word == b"":
                # It closes its end by ending; should it live on, its silence ends it.
                front.hang_up()
            elif word == channel.ALIVE:
                self._notify.alive()
            elif word in {channel.READY, channel.RELOADED}:
                self._on_settled()
            elif wanted := channel.START.fullmatch(word):
                self._hire(front, wanted[1].decode(), int(wanted[2]), int(wanted[3]))
            elif wanted := channel.KILL.fullmatch(word):
                self._crew.kill(int(wanted[1]))

    def _hire(self, front: FrontProcess, kind: str, generation: int, wish: int) -> None:
        """Start a worker and hand its channel to the front, or say that there is none."""
        hired = self._crew.start(kind, generation)
        # A front that does not listen has its own troubles; the worker sees that it is not wanted.
        with contextlib.suppress(OSError):
            if hired is None:
                front.say(channel.refuse(wish))
            else:
                number, end = hired
                with end:
                    front.say(channel.grant(wish, number), [end.fileno()])

    def _on_settled(self) -> None:
        """Note that a front serves, by the settings it was told last."""
        if not self._was_ready:
            self._was_ready = True
            self._on_ready()
        self._notify.ready()
        self._settling = False
        if self._reload_again:
            self._reload()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self._stop()

    def _reload(self) -> None:
        """Hand the settings to the front anew; while it is at it, remember to do so again."""
        self._reload_again = self._settling
        if self._settling or self._stop_by is not None:
            return
        try:
            settings = self._read_settings()
            word = channel.encode_reload(settings, self._generation + 1)
        except StartupError as error:
            log.error("not reloaded: %s", "; ".join(error.lines))
            return
        self._settings = settings
        self._generation += 1
        self._crew.follow(settings, self._generation)
        front = self._front
        if front is None or front.end is None:
            return  # the next front starts with them
        self._notify.reloading()
        self._settling = True
        try:
            front.say(word)
        except OSError as error:
            self._settling = False
            self._notify.ready()
            log.warning("front %d cannot be told: %s", front.pid, error.strerror)

    def _stop(self) -> None:
        if self._stop_by is not None:
            return
        self._stop_by = time.monotonic() + self._crew.longest_deadline + LEAVE_GRACE
        self._restart_at = None
        self._notify.stopping()
        self._on_stop()
        if self._front is not None:
            self._front.tell_to_stop()

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
            is_ours = pid in self._ours()
            if self._front is not None and pid == self._front.pid:
                self._on_front_end(self._front, status)
            else:
                self._crew.on_end(pid, describe_end(status) if status else None)
            if status and is_ours:
                self._strays.kill(self._ours())

    def _on_front_end(self, front: FrontProcess, status: int) -> None:
        self._hear(front)
        front.hang_up()
        self._front = None
        self._crew.kill_all()
        if self._stop_by is not None:
            return
        self._settling = False
        if self._reload_again:
            self._reload()  # there is no front: the next one starts with the new settings
        how = describe_end(status)
        short = not self._was_ready or time.monotonic() - front.started < SHORT_LIFE
        self._deaths = self._deaths + 1 if short else 0
        if not self._was_ready and (os.WIFEXITED(status) or self._deaths == FIRST_TRIES):
            raise StartupError(f"the front did not start ({how}): see the lines above")
        log.error("front %d ended (%s): starting another", front.pid, how)
        if self._deaths > 1:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._deaths, 10))
            self._restart_at = time.monotonic() + pause
        else:
            self._start()


def describe_end(status: int) -> str:
    """Say how a child with wait *status* ended."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    return signal.strsignal(-code) or f"signal {-code}"


def _note(_number: int, _frame: object) -> None:
    """Do nothing here: the wake-up descriptor has the signal's number."""
