"""The questions that wait for a worker: kinds take turns, and none takes all the workers."""

import asyncio
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence

TAG_BYTES = 8
LONGEST_QUEUE = 1024  # questions; more than can be answered in time
LONGEST_OF_A_KIND = 768


class WorkerLost(Exception):
    """There is no answer; the text says why and is safe to log."""


class Question:
    """One question: what is sent, and the answer that somebody waits for.

    *tag* comes back with the answer, so that nothing else is taken for it.
    """

    __slots__ = ("answer", "asked", "descriptors", "kind", "packet", "patience", "tag")

    def __init__(
        self,
        kind: str,
        text: bytes,
        patience: float,
        descriptors: Sequence[int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.kind = kind
        self.tag = secrets.token_bytes(TAG_BYTES)
        self.packet = self.tag + text
        self.patience = patience
        self.descriptors = descriptors
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self.asked = loop.time()

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answer.done()

    def fail(self, why: str) -> None:
        """Say that there will be no answer, unless nobody waits for one."""
        if not self.answer.done():
            self.answer.set_exception(WorkerLost(why))


class Queue:
    """Questions in the order of their coming, but that kinds take turns.

    A kind has at most *share* questions in hand, so that one whose questions
    are never answered leaves workers for the others.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._waiting: OrderedDict[str, deque[Question]] = OrderedDict()
        self._in_hand: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, question: Question) -> None:
        """Let *question* wait; it fails at once where too many do already."""
        if not self._has_room(question.kind):
            self._forget_abandoned()
        if self._has_room(question.kind):
            self._waiting.setdefault(question.kind, deque()).append(question)
        else:
            question.fail("too many questions are waiting already: see -n")

    def put_back(self, question: Question) -> None:
        """Let a question wait again that was taken and not heard: as the first of its kind."""
        self.is_answered(question)
        self._waiting.setdefault(question.kind, deque()).appendleft(question)

    def take(self) -> Question | None:
        """Return the question whose turn it is, which is in hand until `is_answered`."""
        for question in self._first_ones():
            if self._may_have_more(question.kind):
                self._waiting[question.kind].popleft()
                self._waiting.move_to_end(question.kind)
                self._in_hand[question.kind] += 1
                return question
        return None

    def is_answered(self, question: Question) -> None:
        """Note that *question* is not in hand any more."""
        self._in_hand[question.kind] -= 1
        if not self._in_hand[question.kind]:
            del self._in_hand[question.kind]

    def oldest(self) -> float | None:
        """Return since when the longest waiting has been here, of those whose turn may come."""
        turns = (q.asked for q in self._first_ones() if self._may_have_more(q.kind))
        return min(turns, default=None)

    def turns(self) -> int:
        """Return for how many questions there would be work at once, were there workers."""
        return sum(
            min(len(self._waiting[first.kind]), self._share - self._in_hand[first.kind])
            for first in self._first_ones()
        )

    def waiting_since(self) -> float | None:
        """Return since when the longest waiting of all has been here."""
        return min((question.asked for question in self._first_ones()), default=None)

    def is_in_the_way(self, question: Question) -> bool:
        """Say whether somebody waits who could have the worker that is at *question*."""
        return any(
            first.kind == question.kind or self._may_have_more(first.kind)
            for first in self._first_ones()
        )

    def fail(self, why: str) -> None:
        """Fail whatever waits."""
        for of_a_kind in self._waiting.values():
            for question in of_a_kind:
                question.fail(why)
        self._waiting.clear()

    def _has_room(self, kind: str) -> bool:
        of_a_kind = len(self._waiting.get(kind, ()))
        return len(self) < LONGEST_QUEUE and of_a_kind < LONGEST_OF_A_KIND

    def _may_have_more(self, kind: str) -> bool:
        return self._in_hand[kind] < self._share

    def _first_ones(self) -> Iterator[Question]:
        """Yield the first question of each kind for which somebody still waits."""
        for kind, of_a_kind in list(self._waiting.items()):
            while of_a_kind and of_a_kind[0].is_abandoned:
                of_a_kind.popleft()
            if not of_a_kind:
                del self._waiting[kind]
            else:
                yield of_a_kind[0]

    def _forget_abandoned(self) -> None:
        for kind, of_a_kind in list(self._waiting.items()):
            self._waiting[kind] = deque(q for q in of_a_kind if not q.is_abandoned)
