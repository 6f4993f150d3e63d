"""The life of a worker: one question after the other, until it has served its time."""

import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import AuthRequest, AuthResult, Unavailable
from pysaslauthd.workers.frames import LARGEST_QUESTION, decode_question, encode_answer

log = logging.getLogger(__name__)

STAYS, LEAVES = b"\0", b"\1"  # the first byte of each answer
REQUESTS_BETWEEN_LOOKS = 16  # at our own size
PAGE = resource.getpagesize()

Answer = Callable[[bytes, list[int]], bytes]


class Term(NamedTuple):
    """How long a worker serves: so many *requests*, so many bytes of *growth*; 0: without end."""

    requests: int
    growth: int


def serve(end: socket.socket, answer: Answer, term: Term) -> None:
    """Answer what comes over *end* until its other side closes, or the term is over.

    *answer* gets a question and the descriptors that came with it, which it
    must close. The last answer says that it is the last.
    """
    worker = os.getpid()
    served = first_size = 0
    while True:
        try:
            question, descriptors, _, _ = socket.recv_fds(end, LARGEST_QUESTION, 1)
        except ConnectionResetError:  # it closed without having read the last answer
            return
        if not question:
            return
        reply = answer(question, descriptors)
        if os.getpid() != worker:
            # A PAM module has forked, and its child came back: a second answer to this
            # question would be taken for the answer to the next.
            os._exit(1)
        del question  # a password is not kept while waiting for the next
        served += 1
        leaves = served == term.requests
        if served % REQUESTS_BETWEEN_LOOKS == 0 and term.growth:
            size = resident_bytes()
            first_size = first_size or size
            leaves = leaves or size - first_size > term.growth
        try:
            end.send((LEAVES if leaves else STAYS) + reply)
        except BrokenPipeError:
            return
        if leaves:
            return


def resident_bytes() -> int:
    """Return how much memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def checking(check: Callable[[AuthRequest], AuthResult], name: str) -> Answer:
    """Return what answers questions about passwords by *check*; *name* is the backend's.

    A fault of *check* is logged and told as an outage; the worker lives on.
    """

    def answer(question: bytes, _descriptors: list[int]) -> bytes:
        try:
            result = check(decode_question(question))
        except MalformedMessage as error:
            result = Unavailable(str(error), name)
        except Exception:
            log.exception("fault in backend %s", name)
            result = Unavailable("internal error", name)
        return encode_answer(result)

    return answer
