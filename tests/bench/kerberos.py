"""The backend that asks a KDC: MIT's, with a realm of its own.

What an answer costs is mostly what a password costs: to make a key of it takes
the client thousands of rounds of a hash.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import database, peers
from tests.bench.remote import Contest, daemons, side_by_side
from tests.helpers.kdc import REALM, SERVER, Kdc
from tests.helpers.processes import short_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measure import Bench
    from tests.bench.report import Row

NEEDED = {"krb5kdc": "krb5-kdc", "kdb5_util": "krb5-kdc", "kadmin.local": "krb5-admin-server"}
USERS = 50
THREADS = 8


@dataclass(frozen=True)
class Realm:
    """A KDC by its process, and what tells a daemon to ask it: `-O`, and the environment."""

    pid: int
    option: str
    environment: dict[str, str]


def kerberos5(bench: Bench) -> list[Row]:
    """Compare where a KDC on the same machine is asked."""
    with realm() as asked:
        servers = daemons("kerberos5", asked.option, (asked.pid,), asked.environment)
        contest = Contest("kerberos5", servers, {THREADS: {}}, USERS, "the KDC")
        return side_by_side(bench, contest)


@contextlib.contextmanager
def realm() -> Iterator[Realm]:
    """Run a KDC with the users of the benchmark, who have to prove their passwords at once."""
    peers.need(NEEDED)
    with short_directory("kd-") as directory:
        kdc = Kdc(directory / "kdc", [REALM])
        user = f'addprinc -pw "{database.PASSWORD}" +requires_preauth {database.LOGIN}'
        users = [f"{user}{number}" for number in range(USERS)]
        kdc.administer(REALM, f"addprinc -randkey host/{SERVER}", *users)
        option = directory / "kerberos5.conf"
        keytab = f"krb5_keytab: {kdc.keytab('keytab')}"
        option.write_text(f"{keytab}\nkrb5_servername: {SERVER}\n")
        kdc.start()
        try:
            yield Realm(kdc.pid, str(option), {"KRB5_CONFIG": str(kdc.config)})
        finally:
            kdc.stop()
