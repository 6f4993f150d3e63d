"""The life of a worker: one question after the other, until it has served its time."""

import contextlib
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import AuthRequest, AuthResult, Unavailable
from pysaslauthd.workers.frames import LARGEST_QUESTION, decode_question, encode_answer
from pysaslauthd.workers.questions import TAG_BYTES

log = logging.getLogger(__name__)

HELLO = b"ready"
STAYS, LEAVES = b"\0", b"\1"  # the first byte of each answer, behind its question's tag
REQUESTS_BETWEEN_LOOKS = 16  # at our own size
MOST_LEAKED = 128  # descriptors
PAGE = resource.getpagesize()

Answer = Callable[[bytes, list[int]], bytes]
Q = TypeVar("Q")


class Term(NamedTuple):
    """How long a worker serves: so many *requests*, so many bytes of *growth*; 0: without end."""

    requests: int
    growth: int


class Size(NamedTuple):
    """What a process has in use: bytes of memory, and descriptors."""

    memory: int
    descriptors: int

    def is_outgrown(self, growth: int) -> bool:
        """Say whether this process has grown by more than *growth* bytes since, or leaks.

        OSError where it cannot look any more.
        """
        now = own_size()
        return (
            now.memory - self.memory > growth > 0
            or now.descriptors - self.descriptors > MOST_LEAKED
        )


def serve(end: socket.socket, answer: Answer, term: Term) -> None:
    """Say that we are ready, and answer what comes over *end* until its other side closes.

    Or until the term is over: the last answer says that it is the last. *answer*
    gets a question and the descriptors that came with it, which it must close.
    """
    worker = os.getpid()
    served = 0
    first_size = None
    with contextlib.suppress(ConnectionError):  # if it is closed, that shows below
        end.send(HELLO)
    while True:
        try:
            question, descriptors, _, _ = socket.recv_fds(end, TAG_BYTES + LARGEST_QUESTION, 1)
        except ConnectionResetError:  # it closed without having read the last answer
            return
        if not question:
            return
        tag = question[:TAG_BYTES]
        reply = answer(question[TAG_BYTES:], descriptors)
        if os.getpid() != worker:
            # A PAM module has forked, and its child came back: a second answer to this
            # question would be taken for the answer to the next.
            os._exit(1)
        del question  # a password is not kept while waiting for the next
        served += 1
        leaves = served == term.requests
        if served % REQUESTS_BETWEEN_LOOKS == 0:
            try:
                first_size = first_size or own_size()
                leaves = leaves or first_size.is_outgrown(term.growth)
            except OSError:  # there is no descriptor left to look with
                leaves = True
        with contextlib.suppress(ConnectionError):
            end.send(tag + (LEAVES if leaves else STAYS) + reply)
        if leaves:
            return


def own_size() -> Size:
    """Return what this process has in use; OSError where it cannot look any more."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return Size(resident * PAGE, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 (names will do)


def checking(check: Callable[[AuthRequest], AuthResult], name: str) -> Answer:
    """Return what answers whole requests by *check*; *name* is the backend's."""
    return answering(decode_question, check, name)


def answering(decode: Callable[[bytes], Q], check: Callable[[Q], AuthResult], name: str) -> Answer:
    """Return what answers by *check* what *decode* makes of a question; *name* is the backend's.

    A fault of *check* is logged and told as an outage; the worker lives on.
    """

    def answer(question: bytes, descriptors: list[int]) -> bytes:
        for descriptor in descriptors:  # nobody should send any
            os.close(descriptor)
        try:
            result = check(decode(question))
        except MalformedMessage as error:
            result = Unavailable(str(error), name)
        except Exception:
            log.exception("fault in backend %s", name)
            result = Unavailable("internal error", name)
        return encode_answer(result)

    return answer
