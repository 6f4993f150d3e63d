"""The front's side of the workers: who is asked what, who has hung, who is to be replaced.

A worker answers one question at a time. One that does not answer in time is
killed, one that dies is replaced, and only the question it was at is lost.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pysaslauthd.workers.child import LEAVES
from pysaslauthd.workers.frames import LARGEST_ANSWER

log = logging.getLogger(__name__)

LONGEST_QUEUE = 1024  # questions; more than can be answered in time
GROW_AFTER = 0.01  # seconds in the queue before another worker is worth its start
LOOK_EVERY = 0.1  # seconds, for workers that have hung
SHRINK_EVERY = 30.0  # seconds, for workers that nobody needed
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between starts that come to nothing


class WorkerLost(Exception):
    """There is no answer; the text says why and is safe to log."""


class Size(NamedTuple):
    """How many workers: *warm* ones are always there, *most* where the work needs them."""

    warm: int
    most: int


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


class Question:
    """One question that waits for its answer."""

    __slots__ = ("answer", "asked", "descriptors", "packet", "patience")

    def __init__(
        self,
        packet: bytes,
        patience: float,
        descriptors: list[int],
        answer: asyncio.Future[bytes],
        asked: float,
    ) -> None:
        self.packet = packet
        self.patience = patience
        self.descriptors = descriptors
        self.answer = answer
        self.asked = asked

    def fail(self, why: str) -> None:
        """Say that there will be no answer, unless nobody waits for one any more."""
        if not self.answer.done():
            self.answer.set_exception(WorkerLost(why))


class Worker:
    """A running worker: our end of its channel, and what it is at until when."""

    __slots__ = ("at", "end", "number", "patience_ends", "served")

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number = number
        self.end = end
        self.at: Question | None = None
        self.patience_ends = 0.0
        self.served = 0


class Pool:
    """Asks workers from *source*; *name* is for the log. Belongs to the running event loop."""

    def __init__(self, name: str, source: Source, size: Size) -> None:
        self._name = name
        self._source = source
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Question] = deque()
        self._workers: dict[int, Worker] = {}
        self._idle: list[Worker] = []
        self._fewest_idle = 0  # since the last look
        self._starting = 0
        self._failures = 0  # starts in a row that came to nothing
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._closed = False

    def open(self) -> None:
        """Start the workers that are kept warm."""
        self._after(SHRINK_EVERY, self._shrink)
        self._start_missing()

    def close(self) -> None:
        """Let the workers go; a question that is still there gets no answer."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for question in self._queue:
            question.fail("the daemon is leaving")
        self._queue.clear()
        for worker in list(self._workers.values()):
            if worker.at is not None:
                worker.at.fail("the daemon is leaving")
                self._source.kill(worker.number)
            self._dismiss(worker)

    def ask(
        self, packet: bytes, patience: float, descriptors: list[int] | None = None
    ) -> asyncio.Future[bytes]:
        """Return the answer to come, or WorkerLost.

        A worker that has had the question for *patience* seconds is killed.
        *descriptors* go with the question and stay the caller's to close.
        """
        answer = self._loop.create_future()
        question = Question(packet, patience, descriptors or [], answer, self._loop.time())
        if self._closed:
            question.fail("the daemon is leaving")
        elif self._idle and not self._queue:
            self._give(self._idle.pop(), question)
        elif len(self._queue) >= LONGEST_QUEUE:
            question.fail(f"{LONGEST_QUEUE} questions are waiting already: see -n")
        else:
            self._queue.append(question)
            self._start_missing()
            self._after(GROW_AFTER, self._grow)
        return answer

    def _hand_out(self) -> None:
        """Give waiting questions to idle workers; forget those nobody waits for."""
        while self._queue and (self._idle or self._queue[0].answer.done()):
            question = self._queue.popleft()
            if not question.answer.done():
                self._give(self._idle.pop(), question)

    def _give(self, worker: Worker, question: Question) -> None:
        self._fewest_idle = min(self._fewest_idle, len(self._idle))
        try:
            socket.send_fds(worker.end, [question.packet], question.descriptors)
        except ConnectionError:
            self._queue.appendleft(question)  # it has just died, and has not seen it
            self._lose(worker)
            return
        except OSError as error:  # too long, or no memory: no other worker can be asked it
            question.fail(f"a worker cannot be asked: {error.strerror}")
            self._idle.append(worker)
            return
        worker.at = question
        worker.patience_ends = self._loop.time() + question.patience
        self._after(LOOK_EVERY, self._look)

    def _on_answer(self, worker: Worker) -> None:
        try:
            packet = worker.end.recv(LARGEST_ANSWER)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._on_end(worker, unread=True)
            return
        if not packet:
            self._on_end(worker, unread=False)
            return
        question, worker.at = worker.at, None
        if question is None:
            # The next it says might be taken for the answer to another question.
            log.error("worker %d of %s speaks unasked: killing it", worker.number, self._name)
            self._source.kill(worker.number)
            self._replace(worker)
            return
        worker.served += 1
        self._failures = 0
        if not question.answer.done():
            question.answer.set_result(packet[1:])
        if packet[:1] == LEAVES:
            self._dismiss(worker)
            self._start_missing()
        else:
            self._idle.append(worker)
        self._hand_out()

    def _on_end(self, worker: Worker, *, unread: bool) -> None:
        """Part with a worker that has died. What it has not read is asked again."""
        question = worker.at
        if question is None:
            self._lose(worker)
        elif unread:
            self._queue.appendleft(question)
            self._lose(worker)
        else:
            question.fail("its worker process died: see the lines before")
            self._replace(worker)

    def _lose(self, worker: Worker) -> None:
        """Part with a worker that died by itself; if it never served, pause before the next."""
        if worker.served == 0:
            self._failures += 1
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        self._dismiss(worker)
        self._start_missing()
        self._hand_out()

    def _dismiss(self, worker: Worker) -> None:
        """Close our end, which is how a worker is told to go."""
        del self._workers[worker.number]
        if worker in self._idle:
            self._idle.remove(worker)
        self._loop.remove_reader(worker.end)
        worker.end.close()

    def _start_missing(self) -> None:
        """Start what is missing to the warm ones; after failures, only after a pause."""
        if self._failures:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
            self._after(pause, self._start_another)
            return
        for _ in range(self._missing()):
            self._start()

    def _missing(self) -> int:
        wanted = max(self._size.warm, 1 if self._queue else 0)
        return wanted - len(self._workers) - self._starting

    def _start_another(self) -> None:
        if self._missing() > 0:
            self._start()

    def _start(self) -> None:
        self._starting += 1
        self._source.start(self._on_started)

    def _on_started(self, number: int, end: socket.socket | None) -> None:
        self._starting -= 1
        if end is None:
            self._failures += 1
            self._start_missing()
            return
        if self._closed:
            end.close()
            return
        worker = Worker(number, end)
        self._workers[number] = worker
        self._idle.append(worker)
        self._loop.add_reader(end, self._on_answer, worker)
        self._hand_out()

    def _grow(self) -> None:
        """Start one worker more while a question waits for long and there may be more."""
        self._hand_out()
        if not self._queue:
            return
        waited = self._loop.time() - self._queue[0].asked
        has_room = len(self._workers) + self._starting < self._size.most
        if waited >= GROW_AFTER and has_room and not self._failures:
            self._start()
        self._after(GROW_AFTER, self._grow)

    def _look(self) -> None:
        """Have those killed that have had a question for too long."""
        now = self._loop.time()
        busy = [worker for worker in self._workers.values() if worker.at is not None]
        for worker in busy:
            if now >= worker.patience_ends and worker.at is not None:
                log.error("worker %d of %s does not answer: killing it", worker.number, self._name)
                worker.at.fail(f"no answer within {worker.at.patience:g} s")
                self._source.kill(worker.number)
                self._dismiss(worker)
        if busy:
            self._start_missing()
            self._after(LOOK_EVERY, self._look)

    def _shrink(self) -> None:
        """Dismiss those that nobody needed since the last look, but for the warm ones."""
        surplus = min(self._fewest_idle, len(self._workers) - self._size.warm)
        for worker in self._idle[: max(0, surplus)]:
            self._dismiss(worker)
        self._fewest_idle = len(self._idle)
        self._after(SHRINK_EVERY, self._shrink)

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call *do* in so many seconds, unless it is to be called already."""
        if do not in self._timers and not self._closed:
            self._timers[do] = self._loop.call_later(seconds, self._on_time, do)

    def _on_time(self, do: Callable[[], None]) -> None:
        del self._timers[do]
        do()
