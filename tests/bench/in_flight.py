"""What thousands of requests cost that nobody answers: memory, and the time of the others.

The server lets one user in, whom ours then knows by its cache, and after that
it accepts connections and is silent.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.bench import database, growth, imap, ldap, load, peers, processes
from tests.bench.load import Load, Question
from tests.bench.measure import plain_row
from tests.bench.remote import QUESTION
from tests.bench.report import Goal, Row
from tests.bench.servers import OURS, NotMeasuredError, last_words, ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.measure import Bench
    from tests.bench.peers import Peer
    from tests.bench.servers import Running, Server

REQUESTS = 2000
WAIT = 60  # seconds: longer than the others are measured, so that no request is given up
UNANSWERED = Load(REQUESTS, WAIT, REQUESTS, REQUESTS, Question("away", database.PASSWORD))
ONE_USER = Load(1, WAIT, 1, requests=1, question=QUESTION)
CONFIGURATION = f"deadline = {WAIT}.0\n"

ARRIVAL = 10.0  # seconds until all must be in flight
REST = 0.5  # seconds after that

MB = 1_000_000
MEMORY_GOAL = Goal(100, is_ceiling=True)
P99_GOAL = Goal(5000, is_ceiling=True)  # microseconds


@dataclass(frozen=True)
class Seen:
    """Memory in bytes, of the front and of all processes, and waits in microseconds."""

    front_before: int
    front_meanwhile: int
    cost: int
    cached: float
    beside: float


def in_flight(bench: Bench) -> list[Row]:
    """Measure ours with a directory, and with an IMAP server, that has fallen silent."""
    rows: list[Row] = []
    with bench.noting_problems(), ldap.directory(bench) as peer:
        option = ldap.configuration(bench, peer, f"ldap_timeout: {WAIT}")
        rows += _beside_silence(bench, "ldap", str(option), peer)
    with (
        bench.noting_problems(),
        peers.compiled("imap", database.PASSWORD, tools=bench.tools) as peer,
    ):
        rows += _beside_silence(bench, "rimap", imap.option(peer), peer)
    return rows


def _beside_silence(bench: Bench, mechanism: str, option: str, peer: Peer) -> list[Row]:
    configuration = bench.work / "in_flight.toml"
    configuration.write_text(CONFIGURATION)
    flags = ["-O", option, "-c", "--config", str(configuration)]
    server = replace(ours(mechanism, *flags), peers=(peer.pid,))
    rounds = []
    with bench.running(OURS) as neighbour:
        bench.warm_up(neighbour, bench.load(1))
        for number in range(bench.rounds):
            rounds.append(_round(bench, server, neighbour, peer))
            bench.say(f"{mechanism}, round {number + 1}: {rounds[-1]}")
    return _rows(f"{REQUESTS:,} requests of {mechanism} in flight", rounds)


def _rows(title: str, rounds: Sequence[Seen]) -> list[Row]:
    before = {"ours": [seen.front_before / MB for seen in rounds]}
    meanwhile = {"ours": [seen.front_meanwhile / MB for seen in rounds]}
    cost = {"ours": [seen.cost / MB for seen in rounds]}
    cached = {"ours": [seen.cached for seen in rounds]}
    beside = {"ours": [seen.beside for seen in rounds]}
    return [
        Row(f"{title}: memory of the front before, MB", before, digits=1),
        Row(f"{title}: memory of the front meanwhile, MB", meanwhile, digits=1),
        plain_row(f"{title}: their cost in all processes, MB", cost, MEMORY_GOAL, digits=1),
        plain_row(f"{title}: p99 us of a cached user", cached, P99_GOAL, digits=0),
        plain_row(f"{title}: p99 us of sasldb in another instance", beside, P99_GOAL, digits=0),
    ]


def _round(bench: Bench, server: Server, neighbour: Running, peer: Peer) -> Seen:
    """Measure once; the instance is new, for one whose server was silent knows that."""
    cached = replace(ONE_USER, seconds=bench.seconds, requests=None)
    with bench.running(server) as process:
        if load.apply(ONE_USER, process, bench.tools).right != 1:
            raise NotMeasuredError(f"ours gives no right answer: {last_words(process.log)}")
        front, _workers = growth.roles(process)
        front_before, before = _memory(front, process)
        with peers.silenced(peer), _unanswered(bench, process, front):
            front_meanwhile, meanwhile = _memory(front, process)
            waited = load.apply(cached, process, bench.tools)
            beside = load.apply(bench.load(1), neighbour, bench.tools)
    if not_right := waited.not_right + beside.not_right:
        raise NotMeasuredError(f"{not_right} answers of others were wrong or missing")
    return Seen(front_before, front_meanwhile, meanwhile - before, waited.p99, beside.p99)


def _memory(front: int, process: Running) -> tuple[int, int]:
    everybody = [below.pid for below in processes.tree(process.pid)]
    return processes.anonymous_bytes(front), sum(map(processes.anonymous_bytes, everybody))


@contextlib.contextmanager
def _unanswered(bench: Bench, process: Running, front: int) -> Iterator[None]:
    """Keep the requests in flight until the block ends; NotMeasuredError if some are not."""
    program, *arguments = load.command(UNANSWERED, process, bench.tools)
    before = processes.open_files(front)
    with subprocess.Popen(
        [program, "-w", str(WAIT), *arguments], stdout=subprocess.DEVNULL
    ) as asks:
        try:
            limit = time.monotonic() + ARRIVAL
            while processes.open_files(front) < before + REQUESTS and time.monotonic() < limit:
                time.sleep(0.01)
            time.sleep(REST)
            yield
            if (count := processes.open_files(front) - before) < REQUESTS:
                raise NotMeasuredError(f"of {REQUESTS:,} requests {count:,} were in flight")
        finally:
            asks.kill()
