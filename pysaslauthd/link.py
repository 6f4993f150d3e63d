"""The front's end of its channel to the supervisor, and the workers that come over it."""

import asyncio
import contextlib
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from socket import SocketType
from typing import NamedTuple

from pysaslauthd import channel
from pysaslauthd.server.peers import asking_process
from pysaslauthd.worker import ADDRESSES
from pysaslauthd.workers.pool import Pool, Size, Source
from pysaslauthd.workers.questions import WorkerLost

log = logging.getLogger(__name__)

ADDRESS_PATIENCE = 0.5  # seconds; an answer is not held up for longer by its log line
WHOSE_ADDRESS = b"?"  # the whole question: the connection comes with it
FRUITLESS = 10.0  # seconds in which a process whose client could not be told is not asked about
MOST_FRUITLESS = 1024  # processes
OVERLOADED = 1.0  # seconds without addresses after one was not found in time
SAY_AGAIN = 0.1  # seconds
WISH_PATIENCE = 10.0  # seconds for the supervisor to start a worker

OnStarted = Callable[[int, socket.socket | None], None]


class Link:
    """Says that the front lives, asks for workers. *end* does not block."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._wishes: dict[int, OnStarted] = {}
        self._last_wish = 0

    def beat(self) -> None:
        """Give a sign of life; a supervisor that does not listen will hear the next."""
        with contextlib.suppress(OSError):
            self._end.send(channel.ALIVE)

    def say(self, word: bytes) -> None:
        """Send a word, again and again while the supervisor does not listen."""
        try:
            self._end.send(word)
        except BlockingIOError:
            asyncio.get_running_loop().call_later(SAY_AGAIN, self.say, word)
        except OSError:
            return  # there is no supervisor any more

    def kill(self, number: int) -> None:
        """Have worker *number* killed."""
        self.say(channel.ask_kill(number))

    def start_worker(self, kind: str, generation: int, on_started: OnStarted) -> None:
        """Ask for a worker by the settings of *generation*; see `Source.start`."""
        self._last_wish += 1
        wish = self._last_wish
        self._wishes[wish] = on_started
        loop = asyncio.get_running_loop()
        try:
            self._end.send(channel.ask_start(kind, generation, wish))
        except OSError:
            loop.call_soon(self._fulfil, wish, 0, None)
        else:
            loop.call_later(WISH_PATIENCE, self._fulfil, wish, 0, None)

    def on_answer(self, word: channel.Word) -> None:
        """Hand on the worker that *word* brings, or that there is none, to who wished for it."""
        end = None if word.descriptor is None else socket.socket(fileno=word.descriptor)
        if granted := channel.WORKER.fullmatch(word.text):
            self._fulfil(int(granted[1]), int(granted[2]), end)
        elif refused := channel.NO_WORKER.fullmatch(word.text):
            self._fulfil(int(refused[1]), 0, None)
        else:
            log.error("the supervisor sent a word that is not known here: restart the daemon")

    def _fulfil(self, wish: int, number: int, end: socket.socket | None) -> None:
        on_started = self._wishes.pop(wish, None)
        if on_started is not None:
            on_started(number, end)
        elif end is not None:
            end.close()  # it comes too late


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
        self.link.kill(number)


class Addresses:
    """Finds the address of the client of a process that asks: for refusals, logs and PAM.

    A worker that may look into other processes does it; it is given the
    connection itself, so that nothing can be learned of who has not asked.
    """

    def __init__(self, source: Source) -> None:
        self._pool = Pool(ADDRESSES, source, Size(warm=0, most=1, share=1))
        self._overloaded_until = float("-inf")
        self._fruitless: OrderedDict[int, float] = OrderedDict()  # process id: until when

    def worth_asking(self, connection: SocketType) -> bool:
        """Say whether there is hope: a process of many clients, or of none, stays what it is."""
        now = time.monotonic()
        until = self._fruitless.get(asking_process(connection), now)
        return now >= until and now >= self._overloaded_until

    async def find(self, connection: SocketType) -> str:
        """Return `address;port`, or "" where it cannot be told, or not soon."""
        try:
            async with asyncio.timeout(ADDRESS_PATIENCE):
                answer = await self._pool.ask(
                    ADDRESSES, WHOSE_ADDRESS, ADDRESS_PATIENCE, [connection.fileno()]
                )
        except (TimeoutError, WorkerLost):
            self._overloaded_until = time.monotonic() + OVERLOADED
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
