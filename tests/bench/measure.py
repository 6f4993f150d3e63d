"""One benchmark run: its settings, its servers, and how they are compared.

Servers are compared within a round: a round runs each once, and the order
rotates, so that a neighbour's load falls on all alike. What counts is the
median of the rounds' ratios, not the ratio of medians.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from tests.bench import load
from tests.bench.load import Load, Sample
from tests.bench.report import Check, Goal, Row
from tests.bench.servers import NotMeasuredError, Place, Running, Server, last_words, running

if TYPE_CHECKING:
    from pathlib import Path

WARM_UP = 0.5  # seconds; enough for the C daemon's cache to meet a thousand users

Samples = Mapping[str, Sequence[Sample]]


@dataclass
class Bench:
    """What all comparisons need. *problems* says what could not be measured."""

    tools: Path
    work: Path
    database: Path
    rounds: int
    seconds: float
    users: int
    problems: list[str] = field(default_factory=list)
    _places: int = 0

    def say(self, text: str) -> None:
        """Tell the person who waits; the table alone goes to standard output."""
        print(text, file=sys.stderr, flush=True)

    def load(self, threads: int) -> Load:
        """Return the load of a counted run with so many threads."""
        return Load(threads, self.seconds, self.users)

    def warm_up(self, server: Running, threads: int) -> None:
        """Let *server* fill its caches; only what answers rightly is worth measuring."""
        sample = load.apply(Load(threads, WARM_UP, self.users), server, self.tools)
        if not sample.right:
            name, words = server.server.name, last_words(server.log)
            raise NotMeasuredError(f"{name} listens but gives no right answer: {words}")

    def running(self, server: Server) -> contextlib.AbstractContextManager[Running]:
        """Run *server* in a directory that no other has used."""
        self._places += 1
        return running(server, Place(self.tools, self.database, self.work / f"r{self._places}"))

    @contextlib.contextmanager
    def noting_problems(self) -> Iterator[None]:
        """Go on without what cannot be measured, but do not forget it."""
        try:
            yield
        except (NotMeasuredError, OSError, subprocess.SubprocessError) as problem:
            self.problems.append(str(problem))
            self.say(f"not measured: {problem}")


def compare(bench: Bench, servers: Sequence[Running], threads: int) -> Samples:
    """Return each server's sample of each round, by the server's name."""
    for server in servers:
        bench.warm_up(server, threads)
    samples: dict[str, list[Sample]] = {server.server.name: [] for server in servers}
    for number in range(bench.rounds):
        for server in rotated(servers, number):
            sample = load.apply(bench.load(threads), server, bench.tools)
            samples[server.server.name].append(sample)
            bench.say(
                f"{threads} threads, round {number + 1}, {server.server.name}: {sample.rate:,.0f}/s"
            )
    return samples


def rotated(servers: Sequence[Running], by: int) -> list[Running]:
    """Return the servers with another one first in each round."""
    first = by % len(servers) if servers else 0
    return [*servers[first:], *servers[:first]]


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


def median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    # A server that gave no right answer at all is beaten without bound.
    pairs = zip(ours, others, strict=True)
    return median(mine / other if other else float("inf") for mine, other in pairs)
