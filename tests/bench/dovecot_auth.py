"""Requests at the door that Postfix and Exim ask: ours beside Dovecot's own auth.

Both have the same users, whose passwords are stored as they are, and clients that
speak as Postfix does. Dovecot is as it is installed: one process for all
connections, that knows its file of passwords by heart, and asks another process
before each request whether its address is to be slowed down. Where that is
switched off it stands beside as *free*.

A server's processor time is that of all its processes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import database, load, peers
from tests.bench.load import Load, Yardstick
from tests.bench.measure import (
    compare,
    others_row,
    p99_row,
    peers_cpu_row,
    rate_row,
    wrong_row,
)
from tests.bench.report import Goal
from tests.bench.servers import OURS, ours
from tests.helpers.processes import Server, accepts, short_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.bench.measure import Bench, Samples
    from tests.bench.report import Row

NEEDED = {"dovecot": "dovecot-core"}
CONFIGURATION = """\
protocols =
base_dir = {directory}/run
log_path = {directory}/log
ssl = no
auth_mechanisms = plain cram-md5 scram-sha-1 scram-sha-256
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0600
  }}
}}
"""
# It asks as long as there is somebody to ask.
WITHOUT_PENALTY = """\
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""


class Way(NamedTuple):
    """So many connections, with so many requests *in_flight* on each, and the rate's goal."""

    connections: int
    in_flight: int
    goal: Goal

    def __str__(self) -> str:
        return f"{self.connections} x {self.in_flight} in flight"


WAYS = (Way(1, 1, Goal(1.0)), Way(8, 1, Goal(1.0)), Way(8, 8, Goal(1.3)))
P99_GOALS = {"dovecot": Goal(1.0, is_ceiling=True)}
CHALLENGED = ("CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")
CHALLENGED_WAY = WAYS[1]
# So few that the clients have soon salted each password: ours keeps to its salts.
# Dovecot, which makes one for each exchange, leaves them as much to do as itself.
CHALLENGED_USERS = 8


@dataclass(frozen=True)
class Door:
    """One server's socket at *path*; *pid* is its first process, *log* what it has said."""

    name: str
    title: str
    path: Path
    pid: int
    log: Path

    def asked(self, mechanism: str, in_flight: int) -> Yardstick:
        """Return the server as one that is asked with *mechanism*."""

        def command(counted: Load, tools: Path) -> list[str]:
            question = counted.question
            how = [str(self.path), mechanism, str(in_flight)]
            fields = [question.login, question.password, question.realm]
            return [str(tools / "authload"), *load.options(counted), *how, *fields]

        return Yardstick(self.name, self.title, command, (self.pid,), self.log)


def dovecot(bench: Bench) -> list[Row]:
    """Compare requests with PLAIN in several ways, then the mechanisms with a challenge."""
    with contextlib.ExitStack() as stack:
        doors = [
            door for run in (pysaslauthd, theirs, free) if (door := _usable(bench, stack, run))
        ]
        plain = [_compared(bench, doors, "PLAIN", way) for way in WAYS]
        challenged = [_compared(bench, doors, name, CHALLENGED_WAY) for name in CHALLENGED]
    return [*_plain_rows(plain), *_challenged_rows(challenged), *_last_rows([*plain, *challenged])]


def _compared(bench: Bench, doors: Sequence[Door], mechanism: str, way: Way) -> Samples:
    counted = bench.load(way.connections)
    if mechanism != "PLAIN":
        counted = replace(counted, users=min(CHALLENGED_USERS, bench.users))
    bench.say(f"{mechanism}, {way}:")
    return compare(bench, [door.asked(mechanism, way.in_flight) for door in doors], counted)


def _plain_rows(plain: Sequence[Samples]) -> list[Row]:
    rows = []
    for way, samples in zip(WAYS, plain, strict=True):
        title = f"dovecot: PLAIN, {way}"
        rows += [
            rate_row(f"{title}: right answers/s", samples, {"dovecot": way.goal}),
            peers_cpu_row(f"{title}: CPU us/answer", samples),
            p99_row(f"{title}: p99 us", samples, P99_GOALS),
        ]
    return rows


def _challenged_rows(challenged: Sequence[Samples]) -> list[Row]:
    titles = [f"dovecot: {name}, {CHALLENGED_WAY}" for name in CHALLENGED]
    return [
        rate_row(f"{title}: right answers/s", samples, {})
        for title, samples in zip(titles, challenged, strict=True)
    ]


def _last_rows(compared: Sequence[Samples]) -> list[Row]:
    return [
        wrong_row("dovecot: answers that were wrong or missing", compared),
        others_row("dovecot: CPU that others took meanwhile, %", compared),
    ]


def _usable(
    bench: Bench,
    stack: contextlib.ExitStack,
    run: Callable[[Bench], AbstractContextManager[Door]],
) -> Door | None:
    with bench.noting_problems():
        door = stack.enter_context(run(bench))
        bench.titles.setdefault(door.name, door.title)
        bench.warm_up(door.asked("PLAIN", 1), bench.load(1))
        return door
    return None


@contextlib.contextmanager
def pysaslauthd(bench: Bench) -> Iterator[Door]:
    """Run pysaslauthd with such a door."""
    path = bench.work / "auth"
    server = ours("sasldb", "--dovecot", str(path))
    with bench.running(server) as process:
        yield Door(OURS.name, f"{OURS.title} `--dovecot`", path, process.pid, process.log)


def theirs(bench: Bench) -> AbstractContextManager[Door]:
    """Run Dovecot's auth as it is installed."""
    return _theirs(bench, "dovecot", "dovecot: auth as installed", "")


def free(bench: Bench) -> AbstractContextManager[Door]:
    """Run Dovecot's auth without a look at who failed before."""
    return _theirs(bench, "free", "free: Dovecot without penalties", WITHOUT_PENALTY)


@contextlib.contextmanager
def _theirs(bench: Bench, name: str, title: str, settings: str) -> Iterator[Door]:
    peers.need(NEEDED)
    with short_directory("dv-") as directory:
        log = directory / "log"
        # Its own logger writes there; without the file there would be no last words.
        log.touch()
        users = [f"{database.LOGIN}{number}@{database.REALM}" for number in range(bench.users)]
        lines = "".join(f"{user}:{{PLAIN}}{database.PASSWORD}\n" for user in users)
        (directory / "users").write_text(lines)
        configuration = directory / "dovecot.conf"
        configuration.write_text(CONFIGURATION.format(directory=directory) + settings)
        argv = ["dovecot", "-F", "-c", str(configuration)]
        with Server(argv, directory / "output") as server:
            server.wait_until(lambda: accepts(directory / "auth"))
            yield Door(name, title, directory / "auth", server.pid, log)
