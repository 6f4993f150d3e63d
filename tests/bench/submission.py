"""Logins at a submission server: ours beside a Postfix that asks the C saslauthd.

Both are as they are installed, and have the same users. Postfix (libsasl, PLAIN
and LOGIN, saslauthd with five processes) may have as many smtpd as it wants,
sets no bounds to clients, and looks up no names. It logs each connection, as it
always does, here to a file; ours logs refusals.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tests.bench import load, peers
from tests.bench.load import Load, Yardstick
from tests.bench.measure import (
    clients,
    compare,
    others_row,
    p99_row,
    peers_cpu_row,
    rate_row,
    wrong_row,
)
from tests.bench.report import Goal
from tests.bench.servers import CYRUS, OURS
from tests.helpers.daemon import command
from tests.helpers.postfix import postfix_directory, running_postfix
from tests.helpers.processes import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.bench.measure import Bench
    from tests.bench.report import Row

THREADS = 32
GOALS = {"postfix": Goal(1.0)}
NEEDED = {"/usr/sbin/postconf": "postfix"}
PROCESSES = {"default_process_limit": 100}  # its default: three for each client


def submission(bench: Bench) -> list[Row]:
    """Compare logins per second, each in a connection of its own."""
    counted = bench.load(THREADS)
    with contextlib.ExitStack() as stack:
        runs = (ours, one, postfix)
        asked = [server for run in runs if (server := _usable(bench, stack, run, counted))]
        samples = compare(bench, asked, counted)
    who = clients(THREADS)
    return [
        rate_row(f"submission: AUTH PLAIN/s, {who}", samples, GOALS),
        peers_cpu_row(f"submission: CPU us/login of all processes, {who}", samples),
        p99_row(f"submission: p99 us, {who}", samples, {}),
        wrong_row("submission: logins that were wrong or missing", [samples]),
        others_row("submission: CPU that others took meanwhile, %", [samples]),
    ]


def _usable(
    bench: Bench,
    stack: contextlib.ExitStack,
    run: Callable[[Bench], AbstractContextManager[Yardstick]],
    first: Load,
) -> Yardstick | None:
    with bench.noting_problems():
        server = stack.enter_context(run(bench))
        bench.titles.setdefault(server.name, server.title)
        bench.warm_up(server, first)
        return server
    return None


def ours(bench: Bench) -> AbstractContextManager[Yardstick]:
    """Run as many of pysaslsmtpd as there are cores, which share a port."""
    cores = len(os.sched_getaffinity(0))
    return _instances(bench, cores, OURS.name, f"ours: {cores} of pysaslsmtpd, `--reuse-port`")


def one(bench: Bench) -> AbstractContextManager[Yardstick]:
    """Run one pysaslsmtpd."""
    return _instances(bench, 1, "one", "one: pysaslsmtpd by itself")


@contextlib.contextmanager
def _instances(bench: Bench, number: int, name: str, title: str) -> Iterator[Yardstick]:
    port, log = free_port(), bench.work / f"{name}.log"
    flags = ["--listen", f"127.0.0.1:{port}", "-a", "sasldb", "-O", str(bench.database)]
    argv = [*command("smtpd"), *flags, "--reuse-port"]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(argv, log)) for _ in range(number)]
        # Each says so in the one log; a greeting would tell of one only.
        servers[0].wait_until(lambda: servers[0].output().count("serving") == number)
        pids = tuple(server.pid for server in servers)
        yield Yardstick(name, title, logins_at(port), pids, log)


@contextlib.contextmanager
def postfix(bench: Bench) -> Iterator[Yardstick]:
    """Run Postfix, and the C saslauthd that it asks."""
    peers.need(NEEDED)
    with bench.running(CYRUS) as daemon, postfix_directory() as directory:
        sasl = {
            "pwcheck_method": "saslauthd",
            "saslauthd_path": daemon.socket,
            "mech_list": "PLAIN LOGIN",
        }
        with running_postfix(directory, sasl, PROCESSES, group="") as running:
            yield Yardstick(
                "postfix",
                "postfix: C saslauthd `-n 5`",
                logins_at(running.port),
                (running.pid, daemon.pid),
                directory / "maillog",
            )


def logins_at(port: int) -> Callable[[Load, Path], list[str]]:
    """Return what puts a load on the submission server at *port* of 127.0.0.1."""

    def load_program(counted: Load, tools: Path) -> list[str]:
        question = counted.question
        fields = [question.login, question.password, question.realm]
        return [str(tools / "smtpload"), *load.options(counted), str(port), *fields]

    return load_program
