"""The backends that ask the system, shadow and PAM, and the cache in front of them.

Where each answer costs a hash, the hash is what is measured: the goal is to
lose next to nothing around it, and to keep those waiting for none of it.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from tests.bench import load, system
from tests.bench.load import Load, Question
from tests.bench.measure import (
    Bench,
    clients,
    compare,
    cpu_row,
    others_row,
    plain_row,
    rate_row,
    rotated,
    start,
    wrong_row,
)
from tests.bench.report import Goal, Row
from tests.bench.servers import OURS, TUNED, Running, cyrus, ours, tuned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.load import Sample
    from tests.bench.measure import Samples

LOGIN = "bench"
# The accounts are real: who reads this must not come in by one that a killed run has left.
PASSWORD = secrets.token_hex(16)
ACCOUNTS = 50
RIGHT = Question(LOGIN, PASSWORD)
WRONG = Question(LOGIN, f"not {PASSWORD}", answer="NO")

PERMIT, UNIX = "pysaslauthd-bench-permit", "pysaslauthd-bench-unix"
# Who may come in without a password needs no account either.
PERMITTED = Question("nobody", PASSWORD, service=PERMIT)

THREADS = 8
CACHED_THREADS = (8, 64)
HASH_GOALS = {"cyrus": Goal(0.95)}
PERMIT_GOALS = {"cyrus": Goal(2.5)}
CACHED_GOALS = {"tuned": Goal(1.25)}
NO_HASH_GOAL = Goal(5000, is_ceiling=True)  # microseconds

LONGEST = 60.0  # seconds; a bound for loads that something else ends


def shadow(bench: Bench) -> list[Row]:
    """Compare the backends that hash by themselves."""
    with system.accounts(LOGIN, ACCOUNTS, PASSWORD):
        return _side_by_side(bench, "shadow", "shadow", RIGHT, HASH_GOALS)


def pam_permit(bench: Bench) -> list[Row]:
    """Compare what it costs to ask PAM, where the stack itself costs nothing."""
    with system.pam_service(PERMIT, "pam_permit.so"):
        return _side_by_side(bench, "pam_permit", "pam", PERMITTED, PERMIT_GOALS)


def pam_unix(bench: Bench) -> list[Row]:
    """Compare PAM where its stack hashes."""
    question = Question(LOGIN, PASSWORD, service=UNIX)
    with system.accounts(LOGIN, ACCOUNTS, PASSWORD), system.pam_service(UNIX, "pam_unix.so"):
        return _side_by_side(bench, "pam_unix", "pam", question, HASH_GOALS)


def _side_by_side(
    bench: Bench, title: str, mechanism: str, question: Question, goals: Mapping[str, Goal]
) -> list[Row]:
    counted = Load(THREADS, bench.seconds, ACCOUNTS, question=question)
    with contextlib.ExitStack() as stack:
        servers = start(bench, stack, (ours(mechanism), cyrus(mechanism)), counted)
        samples = compare(bench, servers, counted)
    return _rows(title, {THREADS: samples}, goals)


def cached(bench: Bench) -> list[Row]:
    """Compare the caches: every account's password has been found right once."""
    compared: dict[int, Samples] = {}
    with system.accounts(LOGIN, ACCOUNTS, PASSWORD), contextlib.ExitStack() as stack:
        servers = _start_with_caches_full(bench, stack)
        for threads in CACHED_THREADS:
            counted = Load(threads, bench.seconds, ACCOUNTS, question=RIGHT)
            compared[threads] = compare(bench, servers, counted)
    return _rows("cached", compared, CACHED_GOALS)


def _start_with_caches_full(bench: Bench, stack: contextlib.ExitStack) -> list[Running]:
    # One thread asks for everybody exactly once.
    everybody = Load(1, LONGEST, ACCOUNTS, requests=ACCOUNTS, question=RIGHT)
    servers = start(bench, stack, (ours("shadow", "-c"), tuned("shadow")), everybody)
    for server in servers:
        load.apply(everybody, server, bench.tools)
    return servers


def _rows(title: str, compared: Mapping[int, Samples], goals: Mapping[str, Goal]) -> list[Row]:
    rows: list[Row] = []
    for threads, samples in compared.items():
        who = clients(threads)
        rows.append(rate_row(f"{title}: right answers/s, {who}", samples, goals))
        rows.append(cpu_row(f"{title}: CPU us/request, {who}", samples))
    wrong = wrong_row(f"{title}: answers that were wrong or missing", compared.values())
    others = others_row(f"{title}: CPU that others took meanwhile, %", compared.values())
    return [*rows, wrong, others]


def saturated(bench: Bench) -> list[Row]:
    """Compare the waits for answers that need no hash while others keep hashes busy.

    The others have wrong passwords, for no cache keeps those from the hash. Who
    answers the one client soon is asked more often and has less time to hash: so
    the refusals are shown too.
    """
    cached_user: dict[str, list[Sample]] = {}
    in_database: dict[str, list[Sample]] = {}
    refused: dict[str, list[float]] = {}
    hashes = Load(THREADS, LONGEST, ACCOUNTS, question=WRONG)
    one_user = Load(1, bench.seconds, 1, question=RIGHT)
    with system.accounts(LOGIN, ACCOUNTS, PASSWORD), contextlib.ExitStack() as stack:
        pairs = _start_pairs(bench, stack, one_user)
        for number in range(bench.rounds):
            for hashing, neighbour in rotated(pairs, number):
                name = hashing.name
                with load.going_on(hashes, hashing, bench.tools) as others:
                    waited = load.apply(one_user, hashing, bench.tools)
                    beside = load.apply(bench.load(1), neighbour, bench.tools)
                cached_user.setdefault(name, []).append(waited)
                in_database.setdefault(name, []).append(beside)
                refused.setdefault(name, []).append(others.rate)
                bench.say(
                    f"saturated, round {number + 1}, {name}: p99 {waited.p99:,.0f} us cached, "
                    f"{beside.p99:,.0f} us sasldb, beside {others.rate:,.0f} refusals/s"
                )
    return [
        _wait_row("saturated: p99 us of a cached user", cached_user),
        _wait_row("saturated: p99 us of sasldb in another instance", in_database),
        Row(f"saturated: refusals/s meanwhile, {clients(THREADS)}", refused),
        wrong_row("saturated: answers that were wrong or missing", (cached_user, in_database)),
    ]


def _start_pairs(
    bench: Bench, stack: contextlib.ExitStack, one_user: Load
) -> list[tuple[Running, Running]]:
    """Start one that hashes and one that never does beside it: two of ours, two C daemons."""
    pairs: list[tuple[Running, Running]] = []
    for hashing, neighbour in ((ours("shadow", "-c"), OURS), (tuned("shadow"), TUNED)):
        pairs += zip(
            start(bench, stack, [hashing], one_user),
            start(bench, stack, [neighbour], bench.load(1)),
            strict=False,
        )
    return pairs


def _wait_row(title: str, samples: Samples) -> Row:
    seen = {name: [sample.p99 for sample in rounds] for name, rounds in samples.items()}
    return plain_row(f"{title}, {clients(1)}", seen, NO_HASH_GOAL, digits=0)
