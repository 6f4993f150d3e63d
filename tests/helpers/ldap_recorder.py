"""A directory server that takes everybody for who they say they are, and notes what it is asked."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import NamedTuple

from pysaslauthd.wire.ber import encode
from tests.helpers.ber import Tree, tree
from tests.helpers.processes import DEADLINE

LONG_FORM = 0x80
BIND, SEARCH, COMPARE, EXTENDED = 0x60, 0x63, 0x6E, 0x77
SEARCH_ENTRY, SEARCH_DONE = 0x64, 0x65
RESULTS = {  # the tag of the answer, and success, compareFalse, protocolError
    BIND: (0x61, b"\x0a\x01\x00"),
    SEARCH: (SEARCH_DONE, b"\x0a\x01\x00"),
    COMPARE: (0x6F, b"\x0a\x01\x05"),
    EXTENDED: (0x78, b"\x0a\x01\x02"),
}


class Search(NamedTuple):
    """What somebody has searched for: where, and by which filter."""

    base: bytes
    filter: Tree


class Recorder:
    """Listens at *port* of 127.0.0.1; *messages* are what has come, in order.

    *entries* has by the base of a search the name of the one entry that it finds.
    """

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self.messages: list[bytes] = []
        self._entries = entries
        self._talks: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"ldap://127.0.0.1:{self.port}/"

    def asked(self, tag: int) -> list[list[Tree]]:
        """Return the contents of the operations of that kind."""
        operations = (tree(message)[1][1] for message in self.messages)
        return [content for found, content in operations if found == tag]

    @property
    def searches(self) -> list[Search]:
        """What has been searched for."""
        return [Search(content[0][1], content[6]) for content in self.asked(SEARCH)]

    @property
    def binds(self) -> list[bytes]:
        """By which names somebody has bound."""
        return [content[1][1] for content in self.asked(BIND)]

    def serve(self) -> None:
        """Accept connections until the listener is shut down."""
        with self._listener, suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                talk = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._talks.append(talk)
                talk.start()

    def wait_for_clients(self) -> None:
        """Return when all who have been answered have hung up, and what they said is noted."""
        for talk in self._talks:
            talk.join(timeout=DEADLINE)

    def stop(self) -> None:
        """End `serve`."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            while message := _receive(stream):
                self.messages.append(message)
                connection.sendall(self._answer(message))

    def _answer(self, message: bytes) -> bytes:
        (_, number), (tag, content), *_ = tree(message)[1]
        if tag not in RESULTS:
            return b""
        found = b""
        if tag == SEARCH and content[0][1] in self._entries:
            name = encode(0x04, self._entries[content[0][1]])
            found = _message(number, SEARCH_ENTRY, name + encode(0x30, b""))
        kind, code = RESULTS[tag]
        return found + _message(number, kind, code + b"\x04\x00\x04\x00")


def _receive(stream: BufferedReader) -> bytes:
    """Return the next message; nothing where its sender has hung up."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    size = head[1]
    if size >= LONG_FORM:
        digits = stream.read(size - LONG_FORM)
        head, size = head + digits, int.from_bytes(digits, "big")
    return head + stream.read(size)


def _message(number: bytes, tag: int, content: bytes) -> bytes:
    return encode(0x30, encode(0x02, number) + encode(tag, content))


@contextmanager
def recorder(entries: Mapping[bytes, bytes] | None = None) -> Iterator[Recorder]:
    """Serve in a thread while the block runs."""
    made = Recorder(entries or {})
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(timeout=DEADLINE)
