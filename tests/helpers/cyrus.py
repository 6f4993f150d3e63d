"""The C daemon, to compare with."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pysaslauthd.wire.mux import decode_reply, encode_request
from tests.helpers.processes import DEADLINE, Server, accepts, short_directory, wait_for


class Cyrus:
    """`saslauthd` of Cyrus SASL with its socket in *directory*; it answers one at a time."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.mux = directory / "mux"
        self.server = server

    def ask(
        self, user: str, password: str | bytes, realm: str = "", service: str = "imap"
    ) -> bytes:
        """Return the reply's text; b"" where it hung up instead."""
        secret = password.encode() if isinstance(password, str) else password
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(self.mux))
            client.sendall(encode_request(user.encode(), secret, service.encode(), realm.encode()))
            with client.makefile("rb") as reply:
                return decode_reply(reply.read()) or b""


@contextmanager
def cyrus(
    mechanism: str,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[Cyrus]:
    """Run it while the block runs, by the command *within* if there is one; root only."""
    with short_directory("sd-") as directory:
        if within:
            directory.chmod(0o777)  # that may make it another user's
        argv = [*within, *_command(mechanism, flags, directory)]
        with Server(argv, directory / "output", environment) as server:
            made = Cyrus(directory, server)
            server.wait_until(lambda: accepts(made.mux))
            try:
                yield made
            finally:
                # It signals itself while it ends, and now and then hangs in that for ever.
                os.kill(server.pid, signal.SIGKILL)


def refuses_to_start(mechanism: str, *flags: str) -> bool:
    """Say whether it ends at once, with an error; root only."""
    with (
        short_directory("sd-") as directory,
        Server(_command(mechanism, flags, directory), directory / "output") as server,
    ):
        wait_for(lambda: server.has_ended() or accepts(directory / "mux"), "a start, or its end")
        return server.has_ended() and server.stop() != 0


def _command(mechanism: str, flags: Sequence[str], directory: Path) -> list[str]:
    return ["saslauthd", "-a", mechanism, *flags, "-m", str(directory), "-n", "1", "-d"]
