"""The C daemon with `-a ldap`, and what it asks a directory server."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from tests.helpers.ber import Tree
from tests.helpers.cyrus import Cyrus, cyrus
from tests.helpers.ldap_recorder import SEARCH, Recorder, Search, recorder
from tests.helpers.processes import short_directory


class Login(NamedTuple):
    """What an application asks about."""

    user: str
    service: str = ""
    realm: str = ""


class Twin:
    """The C daemon by some lines of its file, and the server that it asks."""

    def __init__(self, daemon: Cyrus, server: Recorder) -> None:
        self._daemon = daemon
        self._server = server

    def asked(self, login: Login, tag: int) -> list[list[Tree]]:
        """Return the operations of that kind that a login makes it ask."""
        self._server.messages.clear()
        assert self._daemon.ask(login.user, "pw", login.realm, login.service) in (b"NO", b"OK")
        return self._server.asked(tag)

    def search(self, login: Login) -> Search:
        """Return the one search that a login makes."""
        (content,) = self.asked(login, SEARCH)
        return Search(content[0][1], content[6])


@contextmanager
def twin(*lines: str, entries: Mapping[bytes, bytes] | None = None) -> Iterator[Twin]:
    """Run it while the block runs."""
    with recorder(entries) as server, short_directory("sd-") as directory:
        file = directory / "saslauthd.conf"
        file.write_text("\n".join([f"ldap_servers: {server.uri}", *lines, ""]), newline="")
        environment = {"PATH": os.environ["PATH"], "LDAPNOINIT": ""}
        with cyrus("ldap", "-O", str(file), environment=environment) as daemon:
            yield Twin(daemon, server)
