"""One benchmark run: its settings, its servers, and how they are compared.

Servers are compared within a round: a round runs each once, and the order
rotates, so that a neighbour's load falls on all alike. What counts is the
median of the rounds' ratios, not the ratio of medians.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from tests.bench import load
from tests.bench.load import Asked, Load, Sample
from tests.bench.report import Check, Goal, Row
from tests.bench.servers import NotMeasuredError, Place, Running, Server, last_words, running
from tests.helpers.processes import ServerFailed

if TYPE_CHECKING:
    from pathlib import Path

WARM_UP = 0.5  # seconds; enough for the C daemon's cache to meet a thousand users

NONE_NOT_RIGHT = Goal(1, is_ceiling=True)

Samples = Mapping[str, Sequence[Sample]]
T = TypeVar("T")


@dataclass
class Bench:
    """What all comparisons need. *problems* says what could not be measured.

    *titles* are those of what has been measured, by name.
    """

    tools: Path
    work: Path
    database: Path
    rounds: int
    seconds: float
    users: int
    problems: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    _places: int = 0

    def say(self, text: str) -> None:
        """Tell the person who waits; the table alone goes to standard output."""
        print(text, file=sys.stderr, flush=True)

    def load(self, threads: int) -> Load:
        """Return the load of a counted run with so many threads that asks about the database."""
        return Load(threads, self.seconds, self.users)

    def warm_up(self, server: Asked, counted: Load) -> None:
        """Let *server* fill its caches; only what answers rightly is worth measuring."""
        sample = load.apply(replace(counted, seconds=WARM_UP), server, self.tools)
        if not sample.right:
            words = last_words(server.log)
            raise NotMeasuredError(f"{server.name} is there but gives no right answer: {words}")

    def running(self, server: Server) -> contextlib.AbstractContextManager[Running]:
        """Run *server* in a directory that no other has used."""
        self._places += 1
        self.titles.setdefault(server.name, server.title)
        return running(server, Place(self.tools, self.database, self.work / f"r{self._places}"))

    @contextlib.contextmanager
    def noting_problems(self) -> Iterator[None]:
        """Go on without what cannot be measured, but do not forget it."""
        try:
            yield
        except (NotMeasuredError, ServerFailed, OSError, subprocess.SubprocessError) as problem:
            self.problems.append(str(problem))
            self.say(f"not measured: {problem}")


def start(
    bench: Bench, stack: contextlib.ExitStack, servers: Sequence[Server], first: Load
) -> list[Running]:
    """Start the servers until *stack* closes; return those that answer *first* rightly."""
    started = []
    for server in servers:
        with bench.noting_problems():
            process = stack.enter_context(bench.running(server))
            bench.warm_up(process, first)
            started.append(process)
    return started


def compare(bench: Bench, servers: Sequence[Asked], counted: Load) -> Samples:
    """Return each server's sample of each round, by the server's name."""
    for server in servers:
        bench.warm_up(server, counted)
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    for number in range(bench.rounds):
        for server in rotated(servers, number):
            sample = load.apply(counted, server, bench.tools)
            samples[server.name].append(sample)
            bench.say(
                f"{counted.threads} threads, round {number + 1}, "
                f"{server.name}: {sample.rate:,.0f}/s"
            )
    return samples


def rotated(servers: Sequence[T], by: int) -> list[T]:
    """Return the servers with another one first in each round."""
    first = by % len(servers) if servers else 0
    return [*servers[first:], *servers[:first]]


def clients(threads: int) -> str:
    """Return how a row's title says so many client threads."""
    return f"{threads} client thread{'s' if threads > 1 else ''}"


def rate_row(title: str, samples: Samples, goals: Mapping[str, Goal]) -> Row:
    """Return the row of right answers per second."""
    return row(title, samples, lambda sample: sample.rate, goals)


def cpu_row(title: str, samples: Samples) -> Row:
    """Return the row of processor time per right answer, in microseconds."""
    return row(title, samples, lambda sample: sample.cpu, {}, digits=1)


def peers_cpu_row(title: str, samples: Samples) -> Row:
    """Return the row of what a right answer took of those whom the servers ask."""
    return row(title, samples, lambda sample: sample.peers_cpu, {}, digits=1)


def p99_row(title: str, samples: Samples, goals: Mapping[str, Goal]) -> Row:
    """Return the row of the times, in microseconds, that one answer of a hundred exceeds."""
    return row(title, samples, lambda sample: sample.p99, goals)


def row(
    measure: str,
    samples: Samples,
    number: Callable[[Sample], float],
    goals: Mapping[str, Goal],
    digits: int = 0,
) -> Row:
    """Return a row with each server's numbers and the median ratios of ours to the others."""
    seen = {name: [number(sample) for sample in rounds] for name, rounds in samples.items()}
    checks = [
        Check(name, median_ratio(seen["ours"], numbers), goals.get(name))
        for name, numbers in seen.items()
        if "ours" in seen and name != "ours"
    ]
    return Row(measure, seen, digits, checks)


def plain_row(measure: str, seen: Mapping[str, Sequence[float]], goal: Goal, digits: int) -> Row:
    """Return a row whose goal is about ours alone."""
    checks = [Check("", median(seen["ours"]), goal)] if "ours" in seen else []
    return Row(measure, seen, digits, checks)


def wrong_row(title: str, compared: Iterable[Samples]) -> Row:
    """Return the row that counts the answers that were not right in all those samples."""
    seen: dict[str, list[float]] = {}
    for samples in compared:
        for name, rounds in samples.items():
            seen.setdefault(name, [0])[0] += sum(sample.not_right for sample in rounds)
    return plain_row(title, seen, NONE_NOT_RIGHT, digits=0)


def others_row(title: str, compared: Iterable[Samples]) -> Row:
    """Return the row of how busy the machine was otherwise, in percent."""
    seen: dict[str, list[float]] = {}
    for samples in compared:
        for name, rounds in samples.items():
            seen.setdefault(name, []).extend(sample.others for sample in rounds)
    return Row(title, seen, 1)


def median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    # A server that gave no right answer at all is beaten without bound.
    pairs = zip(ours, others, strict=True)
    return median(mine / other if other else float("inf") for mine, other in pairs)
