"""The C daemon with `-a ldap`, and what it asks a directory server."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from pysaslauthd.wire.mux import encode_request
from tests.helpers.ber import Tree
from tests.helpers.ldap_recorder import SEARCH, Recorder, Search, recorder
from tests.helpers.processes import DEADLINE, Server, accepts, short_directory


class Login(NamedTuple):
    """What an application asks about."""

    user: str
    service: str = ""
    realm: str = ""


class Twin:
    """The C daemon by some lines of its file, and the server that it asks."""

    def __init__(self, mux: str, server: Recorder) -> None:
        self._mux = mux
        self._server = server

    def asked(self, login: Login, tag: int) -> list[list[Tree]]:
        """Return the operations of that kind that a login makes it ask."""
        self._server.messages.clear()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(self._mux)
            user, service, realm = (field.encode() for field in login)
            client.sendall(encode_request(user, b"pw", service, realm))
            assert client.makefile("rb").read() in (b"\0\2NO", b"\0\2OK")
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
        argv = ["saslauthd", "-a", "ldap", "-O", str(file), "-m", str(directory), "-n", "1", "-d"]
        environment = {"PATH": os.environ["PATH"], "LDAPNOINIT": ""}
        with Server(argv, directory / "output", environment) as daemon:
            daemon.wait_until(lambda: accepts(directory / "mux"))
            yield Twin(str(directory / "mux"), server)
            # It signals itself while it ends, and may hang in that.
            os.kill(daemon.pid, signal.SIGKILL)
