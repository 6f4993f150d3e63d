"""Worker processes that are children of the test, and what is asked of them."""

import asyncio
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from pysaslauthd import privileges
from pysaslauthd.backends.in_workers import InWorkers
from pysaslauthd.model import Deadlines
from pysaslauthd.workers.child import Answer, Term, serve
from pysaslauthd.workers.pool import Pool, Size
from tests.helpers.instance import is_alive
from tests.helpers.processes import DEADLINE, POLL_EVERY

FOR_EVER = Term(0, 0)
GRACE = 1.0  # seconds; to be killed while it writes what was covered spoils that
PATIENT = Deadlines(DEADLINE, {})
PID, COUNT, HANG, DIE, HELD = b"pid", b"count", b"hang", b"die", b"held"


def run_in_child(work: Callable[[socket.socket], object]) -> tuple[int, socket.socket]:
    """Fork a child that does *work* and ends; return its process id and our end of its channel.

    It holds nothing else of ours, and dies with us.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            privileges.close_all_but([theirs.fileno()])
            privileges.die_with(parent)
            work(theirs)
            status = 0
        except BaseException:  # noqa: BLE001 (it must never return into the tests)
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    return pid, ours


@contextmanager
def child(work: Callable[[socket.socket], object]) -> Iterator[tuple[int, socket.socket]]:
    """Run a child that does *work* while the block runs; its id and our end of its channel."""
    pid, end = run_in_child(work)
    end.settimeout(DEADLINE)
    try:
        with end:
            yield pid, end
    finally:
        collect(pid)


def collect(pid: int) -> None:
    """Reap the child *pid*, if nobody has; kill it, if it does not end by itself."""
    with suppress(ProcessLookupError, ChildProcessError):
        ended = os.pidfd_open(pid)
        if not select.select([ended], [], [], GRACE)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(ended)
        os.waitpid(pid, 0)


def obedient() -> Answer:
    """Return what does as it is told: the words above, or else says the question again."""
    served = 0

    def answer(question: bytes, descriptors: list[int]) -> bytes:
        nonlocal served
        served += 1
        if question == COUNT:
            return b"%d" % served
        if question == HANG:
            signal.pause()
        if question == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if question == HELD:
            (gate,) = descriptors
            os.write(gate, b"x")
            os.read(gate, 1)
            os.close(gate)
        return b"%d" % os.getpid() if question in {PID, HELD} else question

    return answer


class Gate:
    """Holds workers: who is asked HELD with its *descriptors* answers once it is open."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(0)
        self._arrived = 0
        self.descriptors = [self._theirs.fileno()]

    def arrived(self) -> int:
        """Return how many have come so far."""
        with suppress(BlockingIOError):
            self._arrived += len(self._ours.recv(1000))
        return self._arrived

    def open(self) -> None:
        """Let everybody go on."""
        self._ours.send(b"x" * 1000)

    def close(self) -> None:
        """Close our ends; nobody is held any more."""
        self._ours.close()
        self._theirs.close()


class Children:
    """A `Source` of workers that are children of the test; *serve* is what each does.

    *pids* has them in the order of their start: the first has number 1. *refusals*
    says how many starts come to nothing first.
    """

    def __init__(self, serve: Callable[[socket.socket], object], refusals: int = 0) -> None:
        self.pids: list[int] = []
        self.killed: list[int] = []
        self.asked_at: list[float] = []
        self._serve = serve
        self._refusals = refusals

    def start(self, on_started: Callable[[int, socket.socket | None], None], /) -> None:
        """Fork one, or not, in the loop's next turn."""
        loop = asyncio.get_running_loop()
        self.asked_at.append(loop.time())
        loop.call_soon(self._start, on_started)

    def _start(self, on_started: Callable[[int, socket.socket | None], None]) -> None:
        if self._refusals:
            self._refusals -= 1
            on_started(0, None)
            return
        pid, end = run_in_child(self._serve)
        end.settimeout(0)
        self.pids.append(pid)
        on_started(len(self.pids), end)

    def kill(self, number: int, /) -> None:
        """Kill one, unless it has ended: who is told to go is to be killed in the end, anyhow."""
        if is_alive(self.pids[number - 1]):
            self.killed.append(number)
            os.kill(self.pids[number - 1], signal.SIGKILL)

    def end(self) -> None:
        """Reap all, when their channels are closed."""
        for pid in self.pids:
            collect(pid)


def serving(
    answer: Callable[[], Answer] = obedient, term: Term = FOR_EVER, refusals: int = 0
) -> Children:
    """Return a source of workers that serve *term* with what *answer* makes in each."""
    return Children(lambda end: serve(end, answer(), term), refusals)


def serving_after(first: Callable[[socket.socket], object]) -> Children:
    """Return a source whose first worker does *first*; the others serve as they are told."""

    def work(end: socket.socket) -> None:
        if source.pids:
            serve(end, obedient(), FOR_EVER)
        else:
            first(end)

    source = Children(work)
    return source


def count_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return when *condition* holds; AssertionError, naming *what*, at the deadline."""
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {DEADLINE:g} seconds"
        await asyncio.sleep(POLL_EVERY)


@asynccontextmanager
async def backend(source: Children, deadlines: Deadlines = PATIENT) -> AsyncIterator[InWorkers]:
    """Return an open backend `table` that asks one worker of *source* at a time."""
    made = InWorkers("table", Pool("table", source, Size(1, 1, 1)), deadlines, uses_address=False)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        source.end()
