"""What ldap3 can do by itself: each thread searches for a user and binds as what it finds.

Both on connections that are kept, as the C daemon and ours do it. It takes
muxload's options and reports as muxload does; ldap3 is needed here only.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field

from ldap3 import NO_ATTRIBUTES, NONE, SUBTREE, Connection, Server
from ldap3.core.exceptions import LDAPException

PATIENCE = 10  # whole seconds for one connect or one answer


@dataclass
class Client:
    """A thread's two connections, and what has come of its questions."""

    searching: Connection
    binding: Connection
    base: str
    password: str
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: int = 0

    def ask_until(self, end: float, login: str, users: int, first: int) -> None:
        """Ask for the users in turn, for the first whatever the time is."""
        number = first
        while (before := time.monotonic()) < end or number == first:
            try:
                if self.is_right(f"{login}{number % users}"):
                    self.latencies.append(time.monotonic() - before)
                else:
                    self.wrong += 1
            except LDAPException:
                self.errors += 1
                return
            number += 1

    def is_right(self, user: str) -> bool:
        """Say whether the directory takes the password for that user's."""
        self.searching.search(
            self.base, f"(uid={user})", SUBTREE, attributes=NO_ATTRIBUTES, size_limit=1
        )
        found = [entry for entry in self.searching.response if entry["type"] == "searchResEntry"]
        if len(found) != 1:
            return False
        return bool(self.binding.rebind(found[0]["dn"], self.password, read_server_info=False))


def main() -> int:
    """Connect, ask for so long, and report."""
    options = _parser().parse_args()
    try:
        clients = [_client(options) for _ in range(options.threads)]
    except LDAPException as error:
        sys.exit(str(error))
    cpu, began = time.process_time(), time.monotonic()
    threads = [
        threading.Thread(
            target=client.ask_until,
            args=(
                began + options.seconds,
                options.login,
                options.users,
                number * options.users // options.threads,
            ),
        )
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _report(clients, time.monotonic() - began, time.process_time() - cpu)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ask a directory on loopback with ldap3.")
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("-s", dest="seconds", type=float, default=1.0)
    parser.add_argument("-u", dest="users", type=int, default=1)
    parser.add_argument("port", type=int)
    parser.add_argument("base")
    parser.add_argument("login")
    parser.add_argument("password")
    return parser


def _client(options: argparse.Namespace) -> Client:
    server = Server("127.0.0.1", options.port, get_info=NONE, connect_timeout=PATIENCE)
    searching, binding = (
        Connection(server, auto_bind=True, check_names=False, receive_timeout=PATIENCE)
        for _ in range(2)
    )
    return Client(searching, binding, options.base, options.password)


def _report(clients: list[Client], seconds: float, cpu: float) -> None:
    latencies = sorted(latency for client in clients for latency in client.latencies)
    right = len(latencies)
    said = {
        "right": right,
        "wrong": sum(client.wrong for client in clients),
        "errors": sum(client.errors for client in clients),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "right_per_second": right / seconds,
        "p99_us": latencies[right * 99 // 100] * 1e6 if right else 0,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    sys.exit(main())
