"""Other people's SASL servers, each in a process of its own, and our client that talks to them.

A server's module reads questions and writes replies, as lines of JSON: `serve`.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from pysaslauthd.sasl.client import ClientExchange
from tests.helpers.processes import DEADLINE

ROOT = Path(__file__).parents[2]
SERVICE, HOST = "ldap", "directory.test.example"
BY_CERTIFICATE = "joe"  # whom EXTERNAL is about


class Reply(NamedTuple):
    """What a server says: more to ask; success, for *user*; or neither, which is a refusal."""

    is_challenge: bool = False
    is_success: bool = False
    data: bytes | None = None
    user: str | None = None


REFUSAL = Reply()


class SaslServer(Protocol):
    """A server that is in one exchange at a time."""

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        """Begin an exchange, whatever has become of the last."""
        ...

    def answer(self, response: bytes, /) -> Reply:
        """Go on with it."""
        ...


def authenticate(server: SaslServer, exchange: ClientExchange) -> Reply:
    """Return the server's last word; a success has been accepted by *exchange*."""
    reply = server.start(exchange.mechanism.name, exchange.initial)
    while reply.is_challenge:
        reply = server.answer(exchange.respond(reply.data or b""))
    if reply.is_success:
        exchange.finish(reply.data)
    return reply


def serve(server: SaslServer) -> None:
    """Answer questions from standard input until it ends."""
    for line in sys.stdin:
        mechanism, text = json.loads(line)
        message = _decode(text)
        if mechanism is None:
            reply = server.answer(message or b"")
        else:
            reply = server.start(mechanism, message)
        said = reply._replace(data=None)
        sys.stdout.write(f"{json.dumps([*said, _encode(reply.data)])}\n")
        sys.stdout.flush()


class ServerProcess:
    """A server that runs as `python -m MODULE ARGUMENTS`."""

    def __init__(self, module: str, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        """Begin an exchange."""
        return self._ask(mechanism, initial)

    def answer(self, response: bytes, /) -> Reply:
        """Go on with it."""
        return self._ask(None, response)

    def end(self) -> None:
        """Close its input, which ends it."""
        self._process.communicate(timeout=DEADLINE)

    def _ask(self, mechanism: str | None, message: bytes | None) -> Reply:
        question = json.dumps([mechanism, _encode(message)])
        _pipe(self._process.stdin).write(f"{question}\n".encode())
        _pipe(self._process.stdin).flush()
        *said, text = json.loads(_pipe(self._process.stdout).readline())
        return Reply(*said)._replace(data=_decode(text))


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    """Return a process's pipe, which is there since it was asked for."""
    assert end is not None
    return end


def _encode(message: bytes | None) -> str | None:
    return None if message is None else base64.b64encode(message).decode()


def _decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
