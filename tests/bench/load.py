"""The compiled clients: built here, run against a server, read back."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tests.bench import database, processes
from tests.bench.servers import NotMeasuredError, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(__file__).parent
PROGRAMS = ("muxload", "imapload", "smtpload", "authload", "floor", "silent", "relay", "imap")
# By its file: the name without a version comes with the headers, which are not needed.
LIBRARIES = {"authload": ["-l:libcrypto.so.3"]}
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")

# Seconds: the longest wait of one request in clients.h, twice, and some.
STRAGGLERS = 25.0
CROWD_LIMIT = 60.0
CORES = os.cpu_count() or 1
LEAD = 0.3  # until every client of a load that goes on is waiting for its answer


@dataclass(frozen=True)
class Question:
    """What is asked about LOGIN0, LOGIN1 ..., and which answer is the right one."""

    login: str
    password: str
    service: str = database.SERVICE
    realm: str = ""
    answer: str = "OK"


IN_DATABASE = Question(database.LOGIN, database.PASSWORD, realm=database.REALM)


@dataclass(frozen=True)
class Load:
    """So many client threads for so long, asking for so many users in turn.

    *requests* ends it earlier; without it there are as many as time allows.
    """

    threads: int
    seconds: float
    users: int
    requests: int | None = None
    question: Question = IN_DATABASE


@dataclass(frozen=True)
class Yardstick:
    """Clients that speak something else than mux; of whom *peers* are the first processes.

    Mostly they ask what a server would ask, without a server of ours or the C daemon
    between. *command* says how a load is put on the *peers*; it reports as muxload
    does. *log* is what has been said where they are asked.
    """

    name: str
    title: str
    command: Callable[[Load, Path], list[str]]
    peers: tuple[int, ...]
    log: Path


Asked: TypeAlias = Running | Yardstick


@dataclass(frozen=True)
class Sample:
    """One run of one server. Times of requests, and of the processor, are in microseconds.

    *cpu* is what a right answer took of the server, or of the yardstick's
    clients; *peers_cpu* what it took of those that were asked in turn. *others*
    is the share of the machine, in percent, that none of them nor the load
    used: with a busy neighbour the run says little.
    """

    right: int
    not_right: int
    rate: float
    p99: float
    cpu: float
    peers_cpu: float
    others: float


@dataclass
class Meanwhile:
    """A load that goes on beside a measurement, from *process*.

    *rate* are its right answers per second when it has ended.
    """

    process: subprocess.Popen[bytes]
    rate: float = field(default=0.0)


@dataclass
class Crowd:
    """Connections that never say a word; *held* is known when it has dispersed."""

    size: int
    held: int = field(default=0)


def build(tools: Path) -> None:
    """Compile the programs into *tools*."""
    compilers = [subprocess.Popen(_compiler(program, tools)) for program in PROGRAMS]
    # All are waited for, whatever has come of the first.
    ended = [compiler.wait() for compiler in compilers]
    if broken := [program for program, status in zip(PROGRAMS, ended, strict=True) if status]:
        raise NotMeasuredError(f"{', '.join(broken)}: it does not compile")


def _compiler(program: str, tools: Path) -> list[str]:
    source, libraries = SOURCES / f"{program}.c", LIBRARIES.get(program, [])
    return [*COMPILE, "-o", str(tools / program), str(source), *libraries]


def apply(load: Load, asked: Asked, tools: Path) -> Sample:
    """Put *load* on *asked* and return what it bore, and at what cost."""
    before = _times(asked)
    said = _run(load, asked, tools)
    after = _times(asked)
    elapsed, everyone, server, peers, clients = (b - a for a, b in zip(before, after, strict=True))
    right = int(said["right"])
    return Sample(
        right=right,
        not_right=int(said["wrong"] + said["errors"]),
        rate=said["right_per_second"],
        # A quick failure is not a quick answer.
        p99=said["p99_us"] if right else math.inf,
        cpu=_each(server if isinstance(asked, Running) else said["cpu_seconds"], right),
        peers_cpu=_each(peers, right),
        others=max(0.0, everyone - server - peers - clients) / elapsed / CORES * 100,
    )


def _each(seconds: float, right: int) -> float:
    return seconds / right * 1e6 if right else math.inf


def _times(asked: Asked) -> tuple[float, float, float, float, float]:
    children = os.times()
    return (
        time.monotonic(),
        processes.machine_cpu_seconds(),
        processes.cpu_seconds(asked.pid) if isinstance(asked, Running) else 0.0,
        sum(map(processes.cpu_seconds, asked.peers)),
        children.children_user + children.children_system,
    )


def _run(load: Load, asked: Asked, tools: Path) -> dict[str, float]:
    done = subprocess.run(
        command(load, asked, tools),
        capture_output=True,
        timeout=load.seconds + STRAGGLERS,
        check=False,
    )
    return _read_back(done.returncode, done.stdout, done.stderr)


def command(load: Load, asked: Asked, tools: Path) -> list[str]:
    """Return what puts *load* on *asked*."""
    if isinstance(asked, Yardstick):
        return asked.command(load, tools)
    question = load.question
    fields = [question.login, question.password, question.service, question.realm]
    return [str(tools / "muxload"), *options(load), str(asked.socket), *fields]


def options(load: Load) -> list[str]:
    """Return the options that all clients understand."""
    bounds = ["-t", str(load.threads), "-s", str(load.seconds), "-u", str(load.users)]
    if load.requests is not None:
        bounds += ["-n", str(load.requests)]
    return [*bounds, "-x", load.question.answer]


def _read_back(status: int, output: bytes, errors: bytes) -> dict[str, float]:
    if status:
        raise NotMeasuredError(f"the load: {errors.decode(errors='replace').strip()}")
    said: dict[str, float] = json.loads(output)
    return said


@contextlib.contextmanager
def going_on(load: Load, server: Running, tools: Path) -> Iterator[Meanwhile]:
    """Keep *load* on *server* until the block ends; NotMeasuredError if it ended sooner."""
    # A SIGTERM must not find a program that is not prepared for it: so that waits until it is.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = subprocess.Popen(
            command(load, server, tools), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    meanwhile = Meanwhile(process)
    try:
        time.sleep(LEAD)
        yield meanwhile
        has_ended = process.poll() is not None
        process.terminate()
        output, errors = process.communicate(timeout=STRAGGLERS)
        said = _read_back(process.returncode, output, errors)
        if not_right := said["wrong"] + said["errors"]:
            what = f"{not_right:.0f} answers wrong or missing"
            raise NotMeasuredError(f"{server.name} under load: {what}")
        if has_ended:
            raise NotMeasuredError(f"the load on {server.name} ended too soon")
        meanwhile.rate = said["right_per_second"]
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def silent_crowd(size: int, socket: Path, tools: Path) -> Iterator[Crowd]:
    """Hold *size* silent connections open while the caller measures."""
    crowd = Crowd(size)
    process = subprocess.Popen(
        [str(tools / "silent"), str(socket), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        _expect(process, "connected", size)
        yield crowd
        crowd.held = _last_count(process)
    finally:
        process.kill()
        process.communicate()


def _expect(process: subprocess.Popen[bytes], word: str, number: int) -> None:
    assert process.stdout is not None
    line = process.stdout.readline().decode().split()
    if line != [word, str(number)]:
        raise NotMeasuredError(f"of {number} silent connections: {' '.join(line) or 'none'}")


def _last_count(process: subprocess.Popen[bytes]) -> int:
    said, _ = process.communicate(timeout=CROWD_LIMIT)
    return int(said.split()[-1])
