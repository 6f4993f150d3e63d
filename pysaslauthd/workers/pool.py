"""The front's side of the workers: who is asked what, who has hung, who is to be replaced.

A worker answers one question at a time. One that does not answer in time is
killed, one that dies is replaced, and only the question it was at is lost.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pysaslauthd.workers.child import HELLO, LEAVES
from pysaslauthd.workers.frames import LARGEST_ANSWER
from pysaslauthd.workers.questions import TAG_BYTES, Question, Queue

log = logging.getLogger(__name__)

GROW_AFTER = 0.01  # seconds in the queue before another worker is worth its start
LOOK_EVERY = 0.1  # seconds, for workers that have hung
SHRINK_EVERY = 30.0  # seconds, for workers that nobody needed
START_PATIENCE = 10.0  # seconds until a worker is ready
LEAVE_GRACE = 5.0  # seconds until one that is told to go must be gone
FORLORN_PATIENCE = 1.0  # seconds for an answer that nobody waits for, while others wait
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between starts that come to nothing
LONG_WAIT = 1.0  # seconds in the queue that are worth a word
SECONDS_BETWEEN_COMPLAINTS = 60.0
LEAVING = "the daemon is leaving"


class Size(NamedTuple):
    """How many workers: *warm* ones are always there, *most* where the work needs them.

    A kind of questions has at most *share* of them.
    """

    warm: int
    most: int
    share: int


class Source(Protocol):
    """Where workers come from: the supervisor."""

    def start(self, on_started: Callable[[int, socket.socket | None], None], /) -> None:
        """Have a worker started; *on_started* gets its number and our end, None if there is none.

        Never calls back before it has returned.
        """
        ...

    def kill(self, number: int, /) -> None:
        """Have the worker *number* killed, with whatever it has started."""
        ...


class Worker:
    """A running worker: our end of its channel, and what it is at since and until when."""

    __slots__ = ("at", "began", "end", "is_ready", "number", "patience_ends")

    def __init__(self, number: int, end: socket.socket, patience_ends: float) -> None:
        self.number = number
        self.end = end
        self.is_ready = False
        self.at: Question | None = None
        self.began = 0.0
        self.patience_ends = patience_ends


class Pool:
    """Asks workers from *source*; *name* is for the log. Belongs to the running event loop."""

    def __init__(self, name: str, source: Source, size: Size) -> None:
        self._name = name
        self._source = source
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._queue = Queue(size.share)
        self._workers: dict[int, Worker] = {}
        self._idle: list[Worker] = []
        self._fewest_idle = 0  # since the last look
        self._starting = 0
        self._failures = 0  # starts in a row that came to nothing
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._complained = float("-inf")
        self._is_retired = self._is_closed = False

    def open(self) -> None:
        """Start the workers that are kept warm."""
        self._after(SHRINK_EVERY, self._shrink)
        self._start_missing()

    def retire(self) -> None:
        """Answer what has been asked, and keep no worker beyond that."""
        self._is_retired = True
        self._size = self._size._replace(warm=0)
        self._hand_out()

    def close(self) -> None:
        """Let the workers go; a question that is still there gets no answer."""
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._queue.fail(LEAVING)
        for worker in list(self._workers.values()):
            if worker.at is not None or not worker.is_ready:
                self._kill(worker, LEAVING)
            else:
                self._dismiss(worker)

    def ask(
        self, kind: str, text: bytes, patience: float, descriptors: Sequence[int] = ()
    ) -> asyncio.Future[bytes]:
        """Return the answer to come, or WorkerLost.

        Questions of a *kind* share the workers with others. A worker that has had
        this one for *patience* seconds is killed. *descriptors* go with the
        question and stay the caller's to close.
        """
        question = Question(kind, text, patience, descriptors, self._loop)
        if self._is_closed:
            question.fail(LEAVING)
            return question.answer
        self._queue.put(question)
        self._hand_out()
        if self._queue:
            self._start_missing()
        return question.answer

    def _hand_out(self) -> None:
        """Give waiting questions to idle workers."""
        while self._idle and (question := self._queue.take()) is not None:
            self._give(self._idle.pop(), question)
        if self._queue:
            self._after(GROW_AFTER, self._grow)
        if self._is_retired:
            for worker in self._idle[:]:
                self._dismiss(worker)

    def _give(self, worker: Worker, question: Question) -> None:
        self._fewest_idle = min(self._fewest_idle, len(self._idle))
        try:
            socket.send_fds(worker.end, [question.packet], question.descriptors)
        except ConnectionError:
            self._queue.put_back(question)  # it has just died, and has not seen it
            self._replace(worker)
            return
        except OSError as error:  # too long, or no memory: no other worker can be asked it
            self._queue.is_answered(question)
            question.fail(f"a worker cannot be asked: {error.strerror}")
            self._idle.append(worker)
            return
        worker.at = question
        worker.began = self._loop.time()
        worker.patience_ends = worker.began + question.patience
        self._after(LOOK_EVERY, self._look)

    def _on_packet(self, worker: Worker) -> None:
        try:
            packet = worker.end.recv(LARGEST_ANSWER)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._on_end(worker, unread=True)
            return
        if not packet:
            self._on_end(worker, unread=False)
        elif worker.at is not None and packet[:TAG_BYTES] == worker.at.tag:
            self._on_answer(worker, worker.at, packet[TAG_BYTES:])
        elif packet == HELLO and not worker.is_ready:
            worker.is_ready = True
            self._failures = 0
            self._idle.append(worker)
            self._start_missing()  # which failures may have kept from it
            self._hand_out()
        else:
            # What it says next might be taken for an answer.
            log.error("worker %d of %s speaks out of turn: killing it", worker.number, self._name)
            self._kill(worker, "its worker process spoke out of turn")
            self._start_missing()
            self._hand_out()

    def _on_answer(self, worker: Worker, question: Question, answer: bytes) -> None:
        worker.at = None
        self._queue.is_answered(question)
        if not question.is_abandoned:
            question.answer.set_result(answer[1:])
        if answer[:1] == LEAVES:
            self._replace(worker)
        else:
            self._idle.append(worker)
            self._hand_out()

    def _on_end(self, worker: Worker, *, unread: bool) -> None:
        """Part with a worker that has died. What it has not read is asked again."""
        if not worker.is_ready:
            self._failures += 1
        question, worker.at = worker.at, None
        if question is not None and unread:
            self._queue.put_back(question)
        elif question is not None:
            self._queue.is_answered(question)
            question.fail("its worker process died: another line says how")
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        self._dismiss(worker)
        self._start_missing()
        self._hand_out()

    def _kill(self, worker: Worker, why: str) -> None:
        self._source.kill(worker.number)
        self._failures += not worker.is_ready
        if worker.at is not None:
            self._queue.is_answered(worker.at)
            worker.at.fail(why)
        self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        """Close our end, which is how a worker is told to go; one that does not is killed."""
        self._loop.call_later(LEAVE_GRACE, self._source.kill, worker.number)
        del self._workers[worker.number]
        if worker in self._idle:
            self._idle.remove(worker)
        self._loop.remove_reader(worker.end)
        worker.end.close()

    def _start_missing(self) -> None:
        """Start what is missing to the warm ones; after failures one, after a pause."""
        if self._failures:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
            self._after(pause, self._start_one)
            return
        wanted = max(self._size.warm, 1 if self._queue else 0)
        for _ in range(wanted - len(self._workers) - self._starting):
            self._start_one()

    def _start_one(self) -> None:
        """Start one more, wanted or not: after failures that shows whether they are over."""
        if len(self._workers) + self._starting < self._size.most:
            self._starting += 1
            self._source.start(self._on_started)

    def _on_started(self, number: int, end: socket.socket | None) -> None:
        self._starting -= 1
        if end is None:
            self._failures += 1
            self._start_missing()
        elif self._is_closed:
            end.close()
        else:
            worker = Worker(number, end, self._loop.time() + START_PATIENCE)
            self._workers[number] = worker
            self._loop.add_reader(end, self._on_packet, worker)
            self._after(LOOK_EVERY, self._look)

    def _grow(self) -> None:
        """Start one worker more while a question waits for long and there may be more."""
        oldest = self._queue.oldest()
        if oldest is None:
            return
        waited = self._loop.time() - oldest
        coming = self._starting + sum(not worker.is_ready for worker in self._workers.values())
        if waited >= GROW_AFTER and coming < self._queue.turns() and not self._failures:
            self._start_one()
        self._after(GROW_AFTER, self._grow)

    def _look(self) -> None:
        """Have those killed that are at a question, or at getting ready, for too long."""
        now = self._loop.time()
        at_work = [w for w in self._workers.values() if w.at is not None or not w.is_ready]
        for worker in at_work:
            if now >= worker.patience_ends or self._is_forlorn(worker, now):
                log.error("worker %d of %s does not answer: killing it", worker.number, self._name)
                self._kill(worker, f"no answer in {now - worker.began:.1f} s")
                self._start_missing()
                self._hand_out()
        if at_work:
            self._complain(now)
            self._after(LOOK_EVERY, self._look)

    def _is_forlorn(self, worker: Worker, now: float) -> bool:
        """Say whether *worker* is at what nobody waits for, though others wait for a worker.

        Not at once: it may have got its question late, and be about to answer.
        """
        return (
            worker.at is not None
            and worker.at.is_abandoned
            and now - worker.began >= FORLORN_PATIENCE
            and self._queue.is_in_the_way(worker.at)
        )

    def _shrink(self) -> None:
        """Dismiss those that nobody needed since the last look, but for the warm ones."""
        surplus = min(self._fewest_idle, len(self._workers) - self._size.warm)
        for worker in self._idle[: max(0, surplus)]:
            self._dismiss(worker)
        self._fewest_idle = len(self._idle)
        self._after(SHRINK_EVERY, self._shrink)

    def _complain(self, now: float) -> None:
        """Tell, now and then, of questions that wait for long because workers are busy."""
        since = self._queue.waiting_since()
        busy = sum(worker.at is not None for worker in self._workers.values())
        is_due = now - self._complained >= SECONDS_BETWEEN_COMPLAINTS
        if since is not None and now - since >= LONG_WAIT and busy and is_due:
            self._complained = now
            log.warning(
                "%d workers of %s are busy, and %d questions wait, one for %.1f s:"
                " what they ask is slow, or -n is too low",
                busy,
                self._name,
                len(self._queue),
                now - since,
            )

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call *do* in so many seconds, unless it is to be called already."""
        if do not in self._timers and not self._is_closed:
            self._timers[do] = self._loop.call_later(seconds, self._on_time, do)

    def _on_time(self, do: Callable[[], None]) -> None:
        del self._timers[do]
        do()
