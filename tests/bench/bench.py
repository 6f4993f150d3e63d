"""The benchmark's command line; `scripts/bench` calls it.

It reports and never judges: rows that lose are printed as such and the exit
status stays 0. It is 1 when something could not be measured at all.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import database, load, report
from tests.bench.comparisons import COMPARISONS
from tests.bench.measure import Bench
from tests.bench.system import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from tests.bench.report import Row

# A unix socket's path has at most 107 bytes, so TMPDIR is not asked.
SHORT = "/tmp"

ROUNDS, QUICK_ROUNDS = 5, 3
LEGEND = """
Each number is the median of the rounds; a ratio is ours to the other's within a
round, and the median of those. "LOSES" misses the goal, "not done" by more than
is allowed. Load generator and server share the cores."""

SECONDS, QUICK_SECONDS = 2.0, 0.5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the benchmark's options."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Compare with the C daemon.")
    parser.add_argument("--quick", action="store_true", help="three short rounds: a rough picture")
    parser.add_argument(
        "--only", action="append", choices=list(COMPARISONS), help="this comparison (repeatable)"
    )
    parser.add_argument("--users", type=int, default=1000, help="users in the database (1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    # From scripts/bench: the mount namespace that must not be changed.
    parser.add_argument("--outside", default="", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 1 if something could not be measured."""
    options = build_parser().parse_args(argv)
    for ending in ENDINGS:
        signal.signal(ending, _leave)
    machine = report.machine()
    with tempfile.TemporaryDirectory(prefix="mux-", dir=SHORT) as work:
        bench = _prepare(options, Path(work))
        groups = _measure(bench, options.only or list(COMPARISONS), options.outside)
    print(f"{machine}\n{bench.rounds} rounds of {bench.seconds:g} s, {bench.users} users\n")
    print(report.tables(groups, bench.titles))
    print(LEGEND)
    for problem in bench.problems:
        print(f"\nnot measured: {problem}")
    if options.json:
        rows = [row for group in groups for row in group]
        options.json.write_text(json.dumps(report.as_json(rows, machine), indent=2) + "\n")
    return 1 if bench.problems else 0


def _prepare(options: argparse.Namespace, work: Path) -> Bench:
    # The front of ours is not root: it must be able to reach its database here.
    work.chmod(0o755)
    return Bench(
        tools=work,
        work=work,
        database=work / "sasldb2",
        rounds=QUICK_ROUNDS if options.quick else ROUNDS,
        seconds=QUICK_SECONDS if options.quick else SECONDS,
        users=options.users,
    )


def _measure(bench: Bench, names: Sequence[str], outside: str) -> list[list[Row]]:
    groups: list[list[Row]] = []
    with bench.noting_problems():
        load.build(bench.tools)
        database.make(bench.database, bench.users)
        with database.in_place_of(database.SYSTEM, bench.database, outside):
            for name in names:
                bench.say(f"{name}:")
                with bench.noting_problems():
                    groups.append(COMPARISONS[name](bench))
    return groups


def _leave(number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second signal must not break off the putting back.
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
