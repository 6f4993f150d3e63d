"""Other people's SASL clients, each in a process of its own, at our server.

A client's program reads questions and writes answers, as lines of JSON: `serve`. All
strings in them are in base64.
"""

import base64
import json
import os
import subprocess
import sys
from typing import IO, NamedTuple, Protocol

from tests.helpers.processes import DEADLINE
from tests.helpers.sasl_servers import ROOT, Reply, SaslServer


class Wish(NamedTuple):
    """How a client is to authenticate. None: it is not told.

    In names and passwords surrogate escapes stand for bytes that are no UTF-8.
    """

    mechanism: str
    user: str
    password: str
    authzid: str | None = None
    realm: str | None = None
    channel_type: str | None = None
    channel_data: bytes | None = None


class ClientRefuses(Exception):
    """A client will not go on."""


class SaslClient(Protocol):
    """A client that is in one exchange at a time; either method may raise ClientRefuses."""

    def begin(self, wish: Wish, /) -> bytes | None:
        """Return the initial response, None if there is none, whatever has become of the last."""
        ...

    def respond(self, challenge: bytes, /) -> bytes:
        """Return the response."""
        ...


def log_in(server: SaslServer, client: SaslClient, wish: Wish) -> Reply:
    """Return the server's last word; as in SMTP, data come as a challenge before a success."""
    reply = server.start(wish.mechanism, client.begin(wish))
    while reply.is_challenge or reply.data is not None:
        reply = server.answer(client.respond(reply.data or b""))
    return reply


def serve(client: SaslClient) -> None:
    """Answer questions from standard input until it ends."""
    for line in sys.stdin:
        strings = [_decode(text) for text in json.loads(line)]
        said: bytes | None = None
        error: bytes | None = None
        try:
            said = _answer(client, strings)
        except ClientRefuses as refusal:
            error = str(refusal).encode()
        sys.stdout.write(f"{json.dumps([_encode(said), _encode(error)])}\n")
        sys.stdout.flush()


def _answer(client: SaslClient, strings: list[bytes | None]) -> bytes | None:
    """Return what *client* says to a challenge, or to a wish."""
    if len(strings) == 1:
        return client.respond(strings[0] or b"")
    *texts, data = strings
    mechanism, user, password, authzid, realm, channel = (
        None if text is None else os.fsdecode(text) for text in texts
    )
    wish = Wish(mechanism or "", user or "", password or "", authzid, realm, channel, data)
    return client.begin(wish)


class ClientProcess:
    """A client that runs as a program."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    def begin(self, wish: Wish, /) -> bytes | None:
        """Begin an exchange."""
        *texts, data = wish
        return self._ask(*(None if text is None else os.fsencode(text) for text in texts), data)

    def respond(self, challenge: bytes, /) -> bytes:
        """Go on with it."""
        return self._ask(challenge) or b""

    def end(self) -> None:
        """Close its input, which ends it."""
        self._process.communicate(timeout=DEADLINE)

    def _ask(self, *strings: bytes | None) -> bytes | None:
        question = json.dumps([_encode(string) for string in strings])
        _pipe(self._process.stdin).write(f"{question}\n".encode())
        _pipe(self._process.stdin).flush()
        said, error = json.loads(_pipe(self._process.stdout).readline())
        if error is not None:
            raise ClientRefuses((_decode(error) or b"").decode())
        return _decode(said)


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    """Return a process's pipe, which is there since it was asked for."""
    assert end is not None
    return end


def _encode(string: bytes | None) -> str | None:
    return None if string is None else base64.b64encode(string).decode()


def _decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
