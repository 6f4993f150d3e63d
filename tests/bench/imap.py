"""The backend that asks an IMAP server: Dovecot here, one of a script some milliseconds away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import database, load, peers
from tests.bench.dovecot import AS_INSTALLED, FASTEST, dovecot
from tests.bench.load import Load, Yardstick
from tests.bench.remote import AWAY, AWAY_GOALS, Contest, daemons, side_by_side
from tests.bench.report import Goal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.measure import Bench
    from tests.bench.peers import Peer
    from tests.bench.report import Row

NEAR_GOALS = {"dovecot": Goal(0.9)}


def fastest(bench: Bench) -> list[Row]:
    """Compare with what Dovecot can do, at its fastest, if nobody is between it and who asks."""
    return _near(bench, "rimap, fast Dovecot", FASTEST)


def as_installed(bench: Bench) -> list[Row]:
    """Compare where Dovecot is configured as its package does it."""
    return _near(bench, "rimap", AS_INSTALLED)


def _near(bench: Bench, title: str, settings: str) -> list[Row]:
    with dovecot(bench.users, settings) as peer:
        servers = daemons("rimap", option(peer), (peer.pid,))
        goals = dict.fromkeys((8, 64), NEAR_GOALS)
        contest = Contest(title, servers, goals, bench.users, "Dovecot", [itself(peer)])
        return side_by_side(bench, contest)


def away(bench: Bench) -> list[Row]:
    """Compare where the server is quick, but each word takes some time."""
    with (
        peers.compiled("imap", database.PASSWORD, tools=bench.tools) as peer,
        peers.delayed(peer, AWAY, bench.tools) as relay,
    ):
        servers = daemons("rimap", option(relay), (peer.pid, relay.pid))
        title = f"rimap, {AWAY:g} ms away"
        return side_by_side(bench, Contest(title, servers, {64: AWAY_GOALS}, bench.users))


def option(peer: Peer) -> str:
    """Return what `-O` says to ours and to the C daemon."""
    return f"127.0.0.1/{peer.port}"


def itself(peer: Peer) -> Yardstick:
    """Return the server itself as a yardstick."""

    def command(counted: Load, tools: Path) -> list[str]:
        question = [counted.question.login, counted.question.password]
        return [str(tools / "imapload"), *load.options(counted), str(peer.port), *question]

    return Yardstick("dovecot", "dovecot: itself, no daemon", command, (peer.pid,), peer.log)
