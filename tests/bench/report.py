"""Rows, goals and verdicts, and the table that shows them all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from shutil import which
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

from pysaslauthd import __version__


class Verdict(StrEnum):
    """What a row has come to, better ones first."""

    NO_GOAL = "-"
    OK = "ok"
    LOSES = "LOSES"
    NOT_DONE = "not done"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """A bound to reach. What stays below *least* is not even a first step."""

    bound: float
    least: float | None = None
    is_ceiling: bool = False

    def judge(self, value: float) -> Verdict:
        """Return what *value* means. A ceiling must be stayed under."""
        if value < self.bound if self.is_ceiling else value >= self.bound:
            return Verdict.OK
        if self.least is not None and value < self.least:
            return Verdict.NOT_DONE
        return Verdict.LOSES

    def __str__(self) -> str:
        return f"{'<' if self.is_ceiling else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Check:
    """A number of ours, mostly a ratio to another server, and its goal if it has one."""

    name: str
    value: float
    goal: Goal | None = None

    @property
    def verdict(self) -> Verdict:
        """What the value has come to."""
        return self.goal.judge(self.value) if self.goal else Verdict.NO_GOAL


@dataclass(frozen=True)
class Row:
    """One measure: each server's number in each round, and the checks on ours."""

    measure: str
    rounds: Mapping[str, Sequence[float]]
    digits: int = 0
    checks: Sequence[Check] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """The median for each server."""
        return {name: median(numbers) for name, numbers in self.rounds.items()}

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks; a row without ours has not been measured."""
        if "ours" not in self.rounds:
            return Verdict.NOT_MEASURED
        verdicts = [check.verdict for check in self.checks]
        return max(verdicts, key=list(Verdict).index, default=Verdict.NO_GOAL)

    @property
    def missed(self) -> list[str]:
        """The names of the checks that are not as they should be."""
        fine = (Verdict.OK, Verdict.NO_GOAL)
        return [check.name for check in self.checks if check.name and check.verdict not in fine]


def tables(groups: Iterable[Sequence[Row]], titles: Mapping[str, str]) -> str:
    """Return the groups of rows as tables; those in a row that share their columns share one."""
    shared: list[list[Row]] = []
    for rows in groups:
        before = _columns(shared[-1]) if shared else set()
        if shared and (_columns(rows) <= before or before <= _columns(rows)):
            shared[-1] += rows
        else:
            shared.append([*rows])
    return "\n\n".join(table(rows, titles) for rows in shared)


def _columns(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows for name in row.rounds}


def table(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """Return the rows as a Markdown table that reads as plain text too, without empty columns."""
    names = [name for name in titles if name in _columns(rows)]
    head = ["measure", *(titles[name] for name in names), "ratio or value", "goal", "verdict"]
    lines = [head, *(_cells(row, names) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(map(str.ljust, cells, widths)) + " |"


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    seen = row.values
    values = [f"{seen[name]:,.{row.digits}f}" if name in seen else "" for name in names]
    checks = [f"{check.name} {check.value:.2f}".strip() for check in row.checks]
    goals = [f"{check.name} {check.goal}".strip() for check in row.checks if check.goal]
    verdict = f"{row.verdict}: {', '.join(row.missed)}" if row.missed else row.verdict
    return [row.measure, *values, ", ".join(checks), ", ".join(goals), verdict]


def as_json(rows: Sequence[Row], machine: str) -> dict[str, object]:
    """Return the same numbers for a program, unrounded."""
    return {
        "machine": machine,
        "rows": [
            {
                "measure": row.measure,
                "values": row.values,
                "rounds": {name: list(numbers) for name, numbers in row.rounds.items()},
                "checks": [
                    {"name": check.name, "value": check.value, "verdict": check.verdict}
                    for check in row.checks
                ],
                "verdict": row.verdict,
            }
            for row in rows
        ],
    }


def machine() -> str:
    """Return what the numbers were taken on, and with which versions."""
    parts = [
        f"{_processor()}, {os.cpu_count()} cores",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()} ({sys.executable})",
        f"pysaslauthd {__version__}",
        _first_line(["saslauthd", "-v"]),
        *_dovecot(),
        _first_line(["gcc", "--version"]),
        f"load before {os.getloadavg()[0]:.2f}",
    ]
    return "; ".join(filter(None, parts))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _dovecot() -> list[str]:
    return [f"Dovecot {_first_line([found, '--version'])}"] if (found := which("dovecot")) else []


def _first_line(command: list[str]) -> str:
    """The C daemon tells its version on standard error, the compiler on the other."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return next(iter((done.stdout + done.stderr).splitlines()), "")
