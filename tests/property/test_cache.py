"""The cache against what it means: a dictionary of the passwords last found good."""

import gc
from typing import Protocol

from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.engine.cache import Cache
from pysaslauthd.model import AuthRequest, Origin, Reason, Secret

LIFETIME = 10.0
# Six keys, the buckets of one slot, so nothing is ever pushed out; they, and the
# passwords, run into each other where lengths are not told.
FEW_ACCOUNTS = [("a", "b"), ("ab", ""), ("a", "")]
FEW_PASSWORDS = [b"", b"b", b"pw", b"bpw"]
passwords = st.sampled_from(FEW_PASSWORDS)
services = st.sampled_from(["", "b"])
LATEST = 30
moments = st.integers(0, LATEST).map(float)


def questions(accounts: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[AuthRequest]:
    return st.builds(asked, accounts, passwords, services, moments)


def asked(account: tuple[str, str], password: bytes, service: str, moment: float) -> AuthRequest:
    user, realm = account
    return AuthRequest(user, Secret(password), realm, Origin(service), moment)


class Memory(Protocol):
    """What the cache and its model have in common."""

    def accepted(self, request: AuthRequest) -> None: ...
    def refused(self, request: AuthRequest, reason: Reason) -> None: ...


class Model:
    """The same rules, with names and passwords as they are and room for everybody."""

    def __init__(self) -> None:
        self._good: dict[tuple[str, str], dict[str, float]] = {}
        self._password: dict[tuple[str, str], bytes] = {}
        self._refused: dict[tuple[str, str], float] = {}

    def holds(self, request: AuthRequest) -> bool:
        account = (request.user, request.realm)
        moment = self._good.get(account, {}).get(request.origin.service, float("-inf"))
        is_same = self._password.get(account) == request.password.reveal()
        return is_same and moment > request.received - LIFETIME

    def accepted(self, request: AuthRequest) -> None:
        account = (request.user, request.realm)
        known = self._good.get(account, {})
        is_other = self._password.get(account) != request.password.reveal()
        news = [*(known.values() if is_other else ()), self._refused.get(account, float("-inf"))]
        if max(news) > request.received:
            return
        self._refused.pop(account, None)
        if is_other:
            self._good[account] = {}
        self._password[account] = request.password.reveal()
        self._good[account][request.origin.service] = request.received

    def refused(self, request: AuthRequest, reason: Reason) -> None:
        account = (request.user, request.realm)
        is_same = self._password.get(account) == request.password.reveal()
        is_known = account in self._good or account in self._refused
        if is_known and (is_same or reason is not Reason.WRONG_PASSWORD):
            self._good.pop(account, None)
            self._password.pop(account, None)
            self._refused[account] = request.received


Event = tuple[AuthRequest, Reason | None]


def events(accounts: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[list[Event]]:
    verdicts = st.none() | st.none() | st.sampled_from(Reason)
    return st.lists(st.tuples(questions(accounts), verdicts), max_size=30)


def in_order(history: list[Event]) -> list[Event]:
    """Return *history* with answers that come in the order of their questions."""
    return sorted(history, key=lambda event: event[0].received)


def happen(history: list[Event], *memories: Memory) -> None:
    for request, reason in history:
        for memory in memories:
            if reason is None:
                memory.accepted(request)
            else:
                memory.refused(request, reason)


few = st.sampled_from(FEW_ACCOUNTS)
many = st.tuples(st.text("ab@", max_size=3), st.text("ab", max_size=2))


@given(events(few), questions(few))
def test_with_room_enough_it_holds_what_the_model_holds(
    history: list[Event], request: AuthRequest
) -> None:
    cache, model = Cache(8, LIFETIME), Model()

    happen(history, cache, model)

    assert cache.holds(request) == model.holds(request)


@given(events(many), st.data())
def test_with_little_room_it_holds_nothing_the_model_does_not(
    history: list[Event], data: st.DataObject
) -> None:
    cache, model = Cache(1, LIFETIME), Model()
    happen(in_order(history), cache, model)
    asked_before = st.sampled_from([request for request, _ in history]) if history else st.nothing()

    request = data.draw(asked_before | questions(many))

    assert model.holds(request) or not cache.holds(request)


@given(events(many), questions(many))
def test_whoever_was_let_in_last_is_held(history: list[Event], request: AuthRequest) -> None:
    cache = Cache(1, LIFETIME)
    happen(in_order(history), cache)
    request = request._replace(received=LATEST)

    cache.accepted(request)

    assert cache.holds(request)


@given(st.integers(1, 5000))
def test_its_table_is_never_larger_than_its_setting(kilobytes: int) -> None:
    cache = Cache(kilobytes, LIFETIME)

    (table,) = [part for part in gc.get_referents(cache) if isinstance(part, bytearray)]

    assert len(table) <= kilobytes * 1024
