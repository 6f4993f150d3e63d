"""Which of the questions that wait is the next: turns, shares, bounds."""

import asyncio

import pytest

from pysaslauthd.workers import questions as module
from pysaslauthd.workers.questions import TAG_BYTES, Question, Queue, WorkerLost

SHARE = 2


def question(kind: str = "imap", text: bytes = b"") -> Question:
    """Make one as it is asked now."""
    return Question(kind, text, 1.0, (), asyncio.get_running_loop())


def queue_of(*waiting: Question, share: int = SHARE) -> Queue:
    queue = Queue(share)
    for one in waiting:
        queue.put(one)
    return queue


def questions(*kinds: str) -> list[Question]:
    return [question(kind) for kind in kinds]


def take_all(queue: Queue) -> list[Question]:
    """Take what may be taken while none of it is answered."""
    return list(iter(queue.take, None))


def why(failed: Question) -> str:
    """Return what its asker is told."""
    with pytest.raises(WorkerLost) as told:
        failed.answer.result()
    return str(told.value)


class TestQuestions:
    async def test_one_is_sent_behind_its_tag(self) -> None:
        asked = question(text=b"hello")

        assert asked.packet == asked.tag + b"hello"
        assert len(asked.tag) == TAG_BYTES

    async def test_the_same_text_asked_twice_has_two_tags(self) -> None:
        assert question(text=b"hello").tag != question(text=b"hello").tag

    async def test_one_that_fails_says_why(self) -> None:
        asked = question()

        asked.fail("no reason")

        assert why(asked) == "no reason"

    async def test_one_is_abandoned_when_its_asker_has_gone(self) -> None:
        asked = question()
        before = asked.is_abandoned

        asked.answer.cancel()

        assert (before, asked.is_abandoned) == (False, True)

    async def test_one_that_is_abandoned_cannot_fail(self) -> None:
        asked = question()
        asked.answer.cancel()

        asked.fail("no reason")

        assert asked.answer.cancelled()


class TestTurns:
    async def test_an_empty_queue_has_nothing(self) -> None:
        queue = queue_of()

        assert queue.take() is None
        assert not queue

    async def test_a_kind_is_asked_in_the_order_of_its_coming(self) -> None:
        asked = questions("imap", "imap", "imap")

        assert take_all(queue_of(*asked, share=3)) == asked

    async def test_kinds_take_turns(self) -> None:
        one, two, three, other, another = questions("imap", "imap", "imap", "smtp", "smtp")

        queue = queue_of(one, two, three, other, another, share=3)

        assert take_all(queue) == [one, other, two, another, three]

    async def test_a_kind_that_comes_later_need_not_wait_for_all_of_another(self) -> None:
        one, two, three, other = questions("imap", "imap", "imap", "smtp")
        queue = queue_of(one, two, three, share=4)

        first = queue.take()
        queue.put(other)

        assert [first, *take_all(queue)] == [one, two, other, three]

    async def test_what_is_taken_does_not_wait(self) -> None:
        queue = queue_of(*questions("imap", "imap", "smtp"))
        before = len(queue)

        queue.take()

        assert (before, len(queue)) == (3, 2)


class TestShares:
    async def test_no_kind_has_more_than_its_share_in_hand(self) -> None:
        asked = questions("imap", "imap", "imap")

        assert take_all(queue_of(*asked)) == asked[:SHARE]

    async def test_others_pass_a_kind_that_has_its_share(self) -> None:
        one, two, three, other = questions("imap", "imap", "imap", "smtp")

        assert take_all(queue_of(one, two, three, other)) == [one, other, two]

    async def test_an_answer_makes_room_for_the_next_of_its_kind(self) -> None:
        one, two, three = questions("imap", "imap", "imap")
        queue = queue_of(one, two, three)
        take_all(queue)

        queue.is_answered(one)

        assert take_all(queue) == [three]

    async def test_an_answer_makes_no_room_for_another_kind(self) -> None:
        one, *others = questions("smtp", "imap", "imap", "imap")
        queue = queue_of(one, *others)
        take_all(queue)

        queue.is_answered(one)

        assert queue.take() is None


class TestBounds:
    @pytest.fixture(autouse=True)
    def _low(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LONGEST_QUEUE", 4)
        monkeypatch.setattr(module, "LONGEST_OF_A_KIND", 3)

    async def test_a_full_queue_takes_no_more(self) -> None:
        waiting = questions("imap", "imap", "smtp", "smtp")
        queue = queue_of(*waiting)
        refused = question("pop")

        queue.put(refused)

        assert why(refused) == "too many questions are waiting already: see -n"
        assert take_all(queue) == [waiting[0], waiting[2], waiting[1], waiting[3]]

    async def test_a_kind_leaves_room_for_others(self) -> None:
        queue = queue_of(*questions("imap", "imap", "imap"))
        refused, other = questions("imap", "smtp")

        queue.put(refused)
        queue.put(other)

        assert why(refused) == "too many questions are waiting already: see -n"
        assert not other.answer.done()

    async def test_the_abandoned_make_room_in_a_full_queue(self) -> None:
        waiting = questions("imap", "imap", "smtp", "smtp")
        queue = queue_of(*waiting)
        waiting[1].answer.cancel()
        late = question("pop")

        queue.put(late)

        assert take_all(queue) == [waiting[0], waiting[2], late, waiting[3]]

    async def test_the_abandoned_make_room_for_their_own_kind(self) -> None:
        waiting = questions("imap", "imap", "imap")
        queue = queue_of(*waiting, share=9)
        waiting[1].answer.cancel()
        late = question("imap")

        queue.put(late)

        assert take_all(queue) == [waiting[0], waiting[2], late]

    async def test_what_was_refused_leaves_no_trace(self) -> None:
        queue = queue_of(*questions("imap", "imap", "smtp", "smtp"))

        for number in range(100):
            queue.put(question(f"service{number}"))

        assert len(queue) == 4

    async def test_what_is_put_back_has_its_place(self) -> None:
        waiting = questions("imap", "imap", "smtp", "smtp")
        queue = queue_of(*waiting)
        taken = queue.take()
        assert taken is waiting[0]
        queue.put(question("pop"))

        queue.put_back(taken)

        assert len(queue) == 5
        assert not taken.answer.done()


class TestTheAbandoned:
    async def test_they_are_not_asked(self) -> None:
        one, two, three, other = questions("imap", "imap", "imap", "smtp")
        queue = queue_of(one, two, three, other)
        for gone in (one, two, other):
            gone.answer.cancel()

        assert take_all(queue) == [three]

    async def test_they_do_not_wait(self) -> None:
        gone, other = questions("imap", "smtp")
        queue = queue_of(gone, other)

        gone.answer.cancel()

        assert queue.oldest() == other.asked

    async def test_one_that_is_in_hand_counts_until_its_worker_is_done(self) -> None:
        one, two = questions("imap", "imap")
        queue = queue_of(one, two, share=1)
        queue.take()

        one.answer.cancel()
        while_at_it = queue.take()
        queue.is_answered(one)

        assert (while_at_it, queue.take()) == (None, two)


class TestPuttingBack:
    async def test_what_is_put_back_is_the_first_of_its_kind(self) -> None:
        one, two, three = questions("imap", "imap", "imap")
        queue = queue_of(one, two, three, share=3)
        queue.take()

        queue.put_back(one)

        assert take_all(queue) == [one, two, three]

    async def test_what_is_put_back_is_not_in_hand(self) -> None:
        one = question()
        queue = queue_of(one, share=1)
        queue.take()

        queue.put_back(one)

        assert queue.take() is one

    async def test_the_only_one_of_its_kind_can_be_put_back(self) -> None:
        one, other = questions("imap", "smtp")
        queue = queue_of(one, other)
        take_all(queue)

        queue.put_back(one)

        assert take_all(queue) == [one]


class TestTheOldest:
    async def test_there_is_none_where_nothing_waits(self) -> None:
        assert queue_of().oldest() is None

    async def test_it_need_not_be_the_next(self) -> None:
        one, two, other = questions("imap", "imap", "smtp")
        one.asked, two.asked, other.asked = 1.0, 2.0, 3.0
        queue = queue_of(one, two, other)
        queue.take()

        assert queue.oldest() == 2.0

    async def test_one_whose_kind_has_its_share_does_not_count(self) -> None:
        one, two, other = questions("imap", "imap", "smtp")
        one.asked, two.asked, other.asked = 1.0, 2.0, 3.0
        queue = queue_of(one, two, other, share=1)
        queue.take()

        assert queue.oldest() == 3.0


class TestBeingInTheWay:
    async def test_where_nothing_waits_nothing_is(self) -> None:
        one = question()
        queue = queue_of(one)
        queue.take()

        assert not queue.is_in_the_way(one)

    async def test_one_is_where_another_kind_waits(self) -> None:
        one, other = questions("imap", "smtp")
        queue = queue_of(one, other)
        queue.take()

        assert queue.is_in_the_way(one)

    async def test_one_is_where_its_own_kind_waits_though_that_has_its_share(self) -> None:
        one, two = questions("imap", "imap")
        queue = queue_of(one, two, share=1)
        queue.take()

        assert queue.is_in_the_way(one)

    async def test_none_is_where_those_that_wait_have_their_share(self) -> None:
        one, other, another = questions("imap", "smtp", "smtp")
        queue = queue_of(one, other, another, share=1)
        take_all(queue)

        assert not queue.is_in_the_way(one)

    async def test_none_is_where_only_the_abandoned_wait(self) -> None:
        one, other = questions("imap", "smtp")
        queue = queue_of(one, other)
        queue.take()

        other.answer.cancel()

        assert not queue.is_in_the_way(one)


class TestFailing:
    async def test_whatever_waits_is_told(self) -> None:
        waiting = questions("imap", "imap", "smtp")
        queue = queue_of(*waiting)

        queue.fail("the daemon is leaving")

        assert [why(one) for one in waiting] == ["the daemon is leaving"] * 3
        assert not queue

    async def test_what_is_in_hand_is_not(self) -> None:
        taken, other = questions("imap", "imap")
        queue = queue_of(taken, other)
        queue.take()

        queue.fail("the daemon is leaving")

        assert why(other)
        assert not taken.answer.done()


class TestHowMuchWorkThereIs:
    @pytest.mark.parametrize(
        ("kinds", "turns"),
        [
            ([], 0),
            (["imap"], 1),
            (["imap"] * 5, SHARE),
            (["imap"] * 5 + ["smtp"], SHARE + 1),
        ],
        ids=["none", "one", "no more than a kind's share", "for each kind"],
    )
    async def test_there_is_a_turn_for(self, kinds: list[str], turns: int) -> None:
        assert queue_of(*questions(*kinds)).turns() == turns

    async def test_what_is_in_hand_has_had_its_turn(self) -> None:
        queue = queue_of(*questions("imap", "imap", "imap"))
        queue.take()

        assert queue.turns() == SHARE - 1

    async def test_the_longest_waiting_counts_though_its_kind_has_its_share(self) -> None:
        queue = queue_of(*questions("imap", "imap"), share=1)
        queue.take()

        assert queue.oldest() is None
        assert queue.waiting_since() is not None
