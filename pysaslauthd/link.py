"""The front's end of its channel to the supervisor, and the workers that come over it."""

import asyncio
import contextlib
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from socket import SocketType
from typing import NamedTuple

from pysaslauthd import channel
from pysaslauthd.worker import ADDRESSES
from pysaslauthd.workers.pool import Pool, Size, Source, WorkerLost

ADDRESS_PATIENCE = 0.5  # seconds; an answer is not held up for longer by its log line
WHOSE_ADDRESS = b"?"  # the whole question: the connection comes with it
FRUITLESS = 10.0  # seconds in which a process whose client could not be told is not asked about
MOST_FRUITLESS = 1024  # processes
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED

OnStarted = Callable[[int, socket.socket | None], None]


class Link:
    """Says that the front lives, asks for workers. *end* does not block."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._asked: deque[OnStarted] = deque()

    def say(self, word: bytes) -> None:
        """Send a word; a supervisor that does not listen has its own troubles."""
        with contextlib.suppress(OSError):
            self._end.send(word)

    def start_worker(self, kind: str, generation: int, on_started: OnStarted) -> None:
        """Ask for a worker by the settings of *generation*; see `Source.start`."""
        try:
            self._end.send(channel.ask_start(kind, generation))
        except OSError:
            asyncio.get_running_loop().call_soon(on_started, 0, None)
        else:
            self._asked.append(on_started)

    def on_worker(self, word: channel.Word) -> None:
        """Hand on the worker that *word* brings, or that there is none, to who asked first."""
        granted = channel.WORKER.fullmatch(word.text)
        end = None if word.descriptor is None else socket.socket(fileno=word.descriptor)
        self._asked.popleft()(int(granted[1]) if granted else 0, end)


class Workers(NamedTuple):
    """The `Source` of workers of one kind, by the settings of one generation."""

    link: Link
    kind: str
    generation: int

    def start(self, on_started: OnStarted, /) -> None:
        """Have one started."""
        self.link.start_worker(self.kind, self.generation, on_started)

    def kill(self, number: int, /) -> None:
        """Have one killed."""
        self.link.say(channel.ask_kill(number))


class Addresses:
    """Finds the address of the client of a process that asks: for refusals, logs and PAM.

    A worker that may look into other processes does it; it is given the
    connection itself, so that nothing can be learned of who has not asked.
    """

    def __init__(self, source: Source) -> None:
        self._pool = Pool(ADDRESSES, source, Size(warm=0, most=1))
        self._fruitless: OrderedDict[int, float] = OrderedDict()  # process id: until when

    def worth_asking(self, connection: SocketType) -> bool:
        """Say whether there is hope: a process of many clients, or of none, stays what it is."""
        until = self._fruitless.get(asking_process(connection))
        return until is None or time.monotonic() > until

    async def find(self, connection: SocketType) -> str:
        """Return `address;port`, or "" where it cannot be told, or not soon."""
        try:
            async with asyncio.timeout(ADDRESS_PATIENCE):
                answer = await self._pool.ask(
                    WHOSE_ADDRESS, ADDRESS_PATIENCE, [connection.fileno()]
                )
        except (TimeoutError, WorkerLost):
            return ""
        if not answer:
            self._note_fruitless(asking_process(connection))
        return answer.decode(errors="replace")

    def close(self) -> None:
        """Let the worker go."""
        self._pool.close()

    def _note_fruitless(self, pid: int) -> None:
        self._fruitless[pid] = time.monotonic() + FRUITLESS
        self._fruitless.move_to_end(pid)
        if len(self._fruitless) > MOST_FRUITLESS:
            self._fruitless.popitem(last=False)


def asking_process(connection: SocketType) -> int:
    """Return the id of the process that opened *connection*; 0 where it is not known here."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    except OSError:
        return 0
    pid: int = CREDENTIALS.unpack(credentials)[0]
    return pid
