"""What is compared, and what is asked of ours.

A new comparison is a function from a Bench to rows, entered in COMPARISONS;
its servers are records as in servers.py, and a column is a server's name.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tests.bench import (
    backends,
    dovecot_auth,
    growth,
    imap,
    in_flight,
    kerberos,
    ldap,
    load,
    mechanisms,
    processes,
    submission,
)
from tests.bench.load import Load
from tests.bench.measure import (
    Bench,
    clients,
    compare,
    cpu_row,
    median_ratio,
    others_row,
    p99_row,
    plain_row,
    rate_row,
    start,
    wrong_row,
)
from tests.bench.report import Check, Goal, Row
from tests.bench.servers import CYRUS, FLOOR, OURS, TUNED, NotMeasuredError, Running

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.measure import Samples

SERVERS = (OURS, CYRUS, TUNED, FLOOR)
THREADS = (1, 8, 64)

BUSY_GOALS = {"cyrus": Goal(2.5, 2.0), "tuned": Goal(1.4, 1.25), "floor": Goal(0.7, 0.65)}
RATE_GOALS = {1: {"cyrus": Goal(1.0)}, 8: BUSY_GOALS, 64: BUSY_GOALS}
P99_GOALS = {64: {"cyrus": Goal(1.0, is_ceiling=True)}}

SILENT = 10_000
SILENT_THREADS = 8
SILENT_GOAL = Goal(0.85)

REST = 1.0  # seconds after the last request
MB = 1_000_000
MEMORY_GOAL = Goal(35, is_ceiling=True)
# Who listens may still be far from answering: both times are shown.
FIRST_REQUEST = Load(threads=1, seconds=10, users=1, requests=1)
START_GOAL = Goal(0.5, is_ceiling=True)


def rates(bench: Bench) -> list[Row]:
    """Compare requests per second, processor time, latency, and count what was not right."""
    rate: list[Row] = []
    cpu: list[Row] = []
    p99: list[Row] = []
    compared: list[Samples] = []
    with contextlib.ExitStack() as stack:
        servers = start(bench, stack, SERVERS, bench.load(1))
        for threads in THREADS:
            samples = compare(bench, servers, bench.load(threads))
            who = clients(threads)
            rate.append(rate_row(f"right answers/s, {who}", samples, RATE_GOALS[threads]))
            cpu.append(cpu_row(f"CPU us/request, {who}", samples))
            p99.append(p99_row(f"p99 us, {who}", samples, P99_GOALS.get(threads, {})))
            compared.append(samples)
    wrong = wrong_row("answers that were wrong or missing", compared)
    others = others_row("CPU that others took meanwhile, %", compared)
    return [*rate, *cpu, *p99, wrong, others]


def silent(bench: Bench) -> list[Row]:
    """Compare ours with itself while thousands are connected and say nothing."""
    alone: list[float] = []
    crowded: list[float] = []
    ways = [("alone", _rate_alone, alone), ("in a crowd", _rate_in_a_crowd, crowded)]
    with bench.noting_problems(), bench.running(OURS) as server:
        for number in range(bench.rounds):
            for where, measure, seen in ways:
                seen.append(measure(bench, server))
                bench.say(f"silent, round {number + 1}, ours {where}: {seen[-1]:,.0f}/s")
            ways.reverse()
    title = f"right answers/s, {clients(SILENT_THREADS)}"
    crowd = f"the same beside {SILENT:,} silent connections"
    if len(crowded) < bench.rounds:
        return [Row(crowd, {})]
    check = Check("alone", median_ratio(crowded, alone), SILENT_GOAL)
    return [Row(f"{title}, alone", {"ours": alone}), Row(crowd, {"ours": crowded}, checks=[check])]


def _rate_alone(bench: Bench, server: Running) -> float:
    # The warm-up also lets the server see the last crowd off.
    counted = bench.load(SILENT_THREADS)
    bench.warm_up(server, counted)
    return load.apply(counted, server, bench.tools).rate


def _rate_in_a_crowd(bench: Bench, server: Running) -> float:
    with load.silent_crowd(SILENT, server.socket, bench.tools) as crowd:
        rate = _rate_alone(bench, server)
    if crowd.held < SILENT:
        raise NotMeasuredError(f"of {SILENT} silent connections {crowd.held} were left at the end")
    return rate


def at_rest(bench: Bench) -> list[Row]:
    """Compare the time until a server listens and answers, and its memory after some work."""
    listens: dict[str, list[float]] = {}
    answers: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(bench.rounds):
        for server in SERVERS:
            with bench.noting_problems(), bench.running(server) as process:
                load.apply(FIRST_REQUEST, process, bench.tools)
                answered = time.monotonic() - process.began
                bench.warm_up(process, bench.load(SILENT_THREADS))
                time.sleep(REST)
                megabytes = processes.proportional_bytes(process.pid) / MB
                listens.setdefault(server.name, []).append(process.start_seconds)
                answers.setdefault(server.name, []).append(answered)
                memory.setdefault(server.name, []).append(megabytes)
    return [
        plain_row("start to listening, s", listens, START_GOAL, digits=3),
        plain_row("start to the first answer, s", answers, START_GOAL, digits=3),
        plain_row("memory of all processes at rest (PSS), MB", memory, MEMORY_GOAL, digits=1),
    ]


COMPARISONS: dict[str, Callable[[Bench], list[Row]]] = {
    "rates": rates,
    "silent": silent,
    "rest": at_rest,
    "shadow": backends.shadow,
    "saturated": backends.saturated,
    "pam_permit": backends.pam_permit,
    "pam_unix": backends.pam_unix,
    "cached": backends.cached,
    "growth": growth.growth,
    "ldap": ldap.near,
    "ldap_away": ldap.away,
    "rimap": imap.as_installed,
    "rimap_fast": imap.fastest,
    "rimap_away": imap.away,
    "kerberos5": kerberos.kerberos5,
    "in_flight": in_flight.in_flight,
    "mechanisms": mechanisms.mechanisms,
    "submission": submission.submission,
    "dovecot": dovecot_auth.dovecot,
}
