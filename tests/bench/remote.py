"""The backends that ask a server elsewhere: ours and the C daemon beside it, as all see it.

Both ask the same server. The C daemon has one question under way for each of
its processes: so it is shown with its default five, and with 32.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.bench import database
from tests.bench.load import Load, Question
from tests.bench.measure import (
    Bench,
    clients,
    compare,
    cpu_row,
    others_row,
    p99_row,
    peers_cpu_row,
    rate_row,
    start,
    wrong_row,
)
from tests.bench.report import Goal
from tests.bench.servers import Server, cyrus, cyrus32, ours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.load import Asked, Yardstick
    from tests.bench.measure import Samples
    from tests.bench.report import Row

# The database has a realm, and these have none: they take a name as it is.
QUESTION = Question(database.LOGIN, database.PASSWORD)

AWAY = 5.0  # milliseconds, in either direction
AWAY_GOALS = {"cyrus": Goal(8)}


@dataclass(frozen=True)
class Contest:
    """What is compared: the *servers*, which ask *peer*, and *goals* by client threads.

    *peer* is empty where what it costs there is of no interest.
    """

    title: str
    servers: Sequence[Server]
    goals: Mapping[int, Mapping[str, Goal]]
    users: int
    peer: str = ""
    yardsticks: Sequence[Yardstick] = ()
    question: Question = field(default=QUESTION)


def daemons(
    mechanism: str,
    option: str,
    peers: tuple[int, ...],
    environment: Mapping[str, str] | None = None,
) -> list[Server]:
    """Return ours and the C daemon's two with that backend, told by `-O` whom to ask."""
    made = [make(mechanism, "-O", option) for make in (ours, cyrus, cyrus32)]
    return [replace(one, peers=peers, environment=environment or {}) for one in made]


def side_by_side(bench: Bench, contest: Contest) -> list[Row]:
    """Start the servers and compare them, and the yardsticks, at so many client threads each."""
    compared: dict[int, Samples] = {}
    with contextlib.ExitStack() as stack:
        first = _load(bench, contest, min(contest.goals))
        asked: list[Asked] = [*start(bench, stack, contest.servers, first)]
        asked += _usable(bench, contest.yardsticks, first)
        for threads in contest.goals:
            compared[threads] = compare(bench, asked, _load(bench, contest, threads))
    return _rows(contest, compared)


def _load(bench: Bench, contest: Contest, threads: int) -> Load:
    return Load(threads, bench.seconds, contest.users, question=contest.question)


def _usable(bench: Bench, yardsticks: Sequence[Yardstick], first: Load) -> list[Yardstick]:
    usable = []
    for yardstick in yardsticks:
        with bench.noting_problems():
            bench.titles.setdefault(yardstick.name, yardstick.title)
            bench.warm_up(yardstick, first)
            usable.append(yardstick)
    return usable


def _rows(contest: Contest, compared: Mapping[int, Samples]) -> list[Row]:
    rows: list[Row] = []
    for threads, samples in compared.items():
        title, who = contest.title, clients(threads)
        rows.append(rate_row(f"{title}: right answers/s, {who}", samples, contest.goals[threads]))
        rows.append(cpu_row(f"{title}: CPU us/request, {who}", samples))
        if contest.peer:
            what = f"{title}: CPU us/request of {contest.peer}"
            rows.append(peers_cpu_row(f"{what}, {who}", samples))
        rows.append(p99_row(f"{title}: p99 us, {who}", samples, {}))
    wrong = wrong_row(f"{contest.title}: answers that were wrong or missing", compared.values())
    others = others_row(f"{contest.title}: CPU that others took meanwhile, %", compared.values())
    return [*rows, wrong, others]
