"""A Dovecot to log in at: as it is installed, or letting users in as fast as it can.

As installed, each login has a process for its password, and each session one.
At its fastest its processes stay from one login to the next (what it calls
high-performance mode), it knows a password by heart once it has seen it, and
writes no log of what goes well.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.bench import database, peers
from tests.bench.peers import Peer
from tests.helpers import dovecot as helper

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = {"dovecot": "dovecot-core", "/usr/lib/dovecot/imap": "dovecot-imapd"}
AS_MANY_AS_COME = 20_000
# Nobody is refused, however many come from this machine.
AS_INSTALLED = """\
auth_verbose = no
mail_max_userip_connections = 0
"""
FASTEST = f"""\
{AS_INSTALLED}
info_log_path = /dev/null
auth_cache_size = 64 M
default_client_limit = {AS_MANY_AS_COME}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = {AS_MANY_AS_COME}
}}
service imap {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = {AS_MANY_AS_COME}
}}
"""


@contextlib.contextmanager
def dovecot(users: int, settings: str) -> Iterator[Peer]:
    """Run it with the users of the benchmark and one of the *settings*."""
    peers.need(NEEDED)
    passwords = {f"{database.LOGIN}{number}": database.PASSWORD.encode() for number in range(users)}
    with helper.dovecot(passwords, settings=settings) as running:
        yield Peer(running.pid, running.port, running.users.with_name("log"))
