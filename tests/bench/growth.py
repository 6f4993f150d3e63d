"""What ours keeps of each request: its memory, early and late in a long run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import load, processes, system
from tests.bench.backends import PERMIT, PERMITTED
from tests.bench.load import Load
from tests.bench.measure import plain_row
from tests.bench.report import Goal
from tests.bench.servers import NotMeasuredError, ours

if TYPE_CHECKING:
    from tests.bench.measure import Bench
    from tests.bench.report import Row
    from tests.bench.servers import Running

THREADS = 8
EARLY, LATE = 5_000, 50_000  # requests
LONGEST = 60.0  # seconds for either part of them
REST = 1.0  # seconds after the last request
USERS = 1000

# A worker that is replaced takes with it what it kept: 0 means never.
CONFIGURATION = "worker_requests = 0\nworker_growth = 0\n"

MB = 1_000_000
FRONT_GOAL = Goal(1, is_ceiling=True)
WORKERS_GOAL = Goal(5, is_ceiling=True)


@dataclass(frozen=True)
class Memory:
    """What the front takes, and each worker by its process id, in bytes."""

    front: int
    workers: dict[int, int]


def growth(bench: Bench) -> list[Row]:
    """Measure by how much the front and its workers grow between two moments of one run."""
    configuration = bench.work / "growth.toml"
    configuration.write_text(CONFIGURATION)
    server = ours("pam", "--config", str(configuration))
    front: dict[str, list[float]] = {}
    workers: dict[str, list[float]] = {}
    with (
        bench.noting_problems(),
        system.pam_service(PERMIT, "pam_permit.so"),
        bench.running(server) as process,
    ):
        early = _memory_after(bench, process, EARLY)
        late = _memory_after(bench, process, LATE - EARLY)
        if gone := early.workers.keys() - late.workers.keys():
            raise NotMeasuredError(f"growth: {len(gone)} workers ended although none should")
        grown = sum(late.workers.values()) - sum(early.workers.values())
        front["ours"] = [(late.front - early.front) / MB]
        workers["ours"] = [grown / MB]
    between = f"from request {EARLY:,} to {LATE:,}, MB"
    return [
        plain_row(f"growth of the front {between}", front, FRONT_GOAL, digits=2),
        plain_row(f"growth of the workers together {between}", workers, WORKERS_GOAL, digits=2),
    ]


def _memory_after(bench: Bench, server: Running, requests: int) -> Memory:
    counted = Load(THREADS, LONGEST, USERS, requests, PERMITTED)
    sample = load.apply(counted, server, bench.tools)
    if sample.right != requests:
        raise NotMeasuredError(f"growth: of {requests} answers {sample.right} were right")
    time.sleep(REST)
    front, workers = roles(server)
    if not workers:
        raise NotMeasuredError("growth: there are no workers")
    bench.say(f"growth: {requests:,} answers at {sample.rate:,.0f}/s, {len(workers)} workers")
    return Memory(
        processes.anonymous_bytes(front), {pid: processes.anonymous_bytes(pid) for pid in workers}
    )


def roles(server: Running) -> tuple[int, list[int]]:
    """Return the process ids of the front, which listens and is not root, and of the workers."""
    below = [process.pid for process in processes.tree(server.pid) if process.pid != server.pid]
    fronts = [
        pid
        for pid in below
        if processes.user_id(pid) and processes.holds_listener(pid, server.socket)
    ]
    workers = [pid for pid in below if pid not in fronts]
    if len(fronts) != 1:
        raise NotMeasuredError(f"of ours {len(fronts)} fronts are there")
    return fronts[0], workers
