"""The backend that asks a directory: OpenLDAP's slapd, here and some milliseconds away."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from tests.bench import database, peers
from tests.bench.load import Load, Yardstick
from tests.bench.peers import Peer
from tests.bench.remote import AWAY, AWAY_GOALS, Contest, daemons, side_by_side
from tests.bench.report import Goal
from tests.bench.servers import NotMeasuredError
from tests.helpers.slapd import SUFFIX, person, slapd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.measure import Bench
    from tests.bench.report import Row

NEEDED = {"slapd": "slapd", "slapadd": "slapd", "ldapwhoami": "ldap-utils"}
MEGABYTE = 1 << 20
BYTES_FOR_A_USER = 8192  # with its indexes, generously

NEAR_GOALS = {"cyrus": Goal(1.2), "cyrus32": Goal(1.2)}
LDAP3_THREADS = 16


def near(bench: Bench) -> list[Row]:
    """Compare where the directory is on the same machine; ldap3 by itself is shown beside."""
    with directory(bench) as peer:
        servers = daemons("ldap", str(configuration(bench, peer)), (peer.pid,))
        goals = dict.fromkeys((8, 64), NEAR_GOALS)
        yardsticks = []
        with bench.noting_problems():
            yardsticks.append(ldap3_alone(peer))
        return side_by_side(
            bench, Contest("ldap", servers, goals, bench.users, "slapd", yardsticks)
        )


def away(bench: Bench) -> list[Row]:
    """Compare where each word to the directory, and each from it, takes some time."""
    with directory(bench) as peer, peers.delayed(peer, AWAY, bench.tools) as relay:
        option = str(configuration(bench, relay))
        servers = daemons("ldap", option, (peer.pid, relay.pid))
        title = f"ldap, {AWAY:g} ms away"
        return side_by_side(bench, Contest(title, servers, {64: AWAY_GOALS}, bench.users))


@contextlib.contextmanager
def directory(bench: Bench) -> Iterator[Peer]:
    """Run slapd with the users of the benchmark, whose passwords are {SSHA}."""
    peers.need(NEEDED)
    entries = "".join(
        person(f"{database.LOGIN}{number}", _ssha(number)) for number in range(bench.users)
    )
    size = f"maxsize {16 * MEGABYTE + bench.users * BYTES_FOR_A_USER}"
    with slapd(entries, database=size) as running:
        yield Peer(running.pid, running.port, running.directory / "output")


def _ssha(number: int) -> str:
    salt = number.to_bytes(8, "big")
    digest = hashlib.sha1(database.PASSWORD.encode() + salt, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def configuration(bench: Bench, peer: Peer, *lines: str) -> Path:
    """Return a file that tells ours and the C daemon to ask *peer*."""
    path = bench.work / "ldap.conf"
    servers = f"ldap_servers: ldap://127.0.0.1:{peer.port}/"
    path.write_text("\n".join([servers, f"ldap_search_base: {SUFFIX}", *lines, ""]))
    return path


def ldap3_alone(peer: Peer) -> Yardstick:
    """Return ldap3 as a yardstick; NotMeasuredError if it is not installed."""
    if importlib.util.find_spec("ldap3") is None:
        raise NotMeasuredError("ldap3 is missing: pip install ldap3")

    def command(load: Load, _tools: Path) -> list[str]:
        bounds = ["-t", str(LDAP3_THREADS), "-s", str(load.seconds), "-u", str(load.users)]
        question = [load.question.login, load.question.password]
        run = [sys.executable, "-m", "tests.bench.ldap3_load", *bounds]
        return [*run, str(peer.port), SUFFIX, *question]

    title = f"ldap3: alone, {LDAP3_THREADS} threads, no daemon"
    return Yardstick("ldap3", title, command, (peer.pid,), peer.log)
