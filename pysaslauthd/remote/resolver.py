"""Names to addresses, without ever holding the event loop."""

import asyncio
import contextlib
import encodings.idna  # noqa: F401 (getaddrinfo would, when the front cannot read it any more)
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

FRESH = 30.0  # seconds for which addresses are not looked up again
FUTILE = 1.0  # the same where there was none
IPV6 = 6


class Address(NamedTuple):
    """One address of a server, as socket(2) and connect(2) want it."""

    family: int
    sockaddr: Any

    @property
    def host(self) -> str:
        """The address without the port; of a unix socket its path."""
        return self.sockaddr if isinstance(self.sockaddr, str) else str(self.sockaddr[0])


class Unresolved(Exception):
    """A name has no address, or none that could be found out; the text says why."""


LookUp = Callable[[str, int], list[Address]]


def look_up(host: str, port: int) -> list[Address]:
    """Return the addresses of *host*, the best first (getaddrinfo(3)); it may take very long."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [Address(family, sockaddr) for family, _, _, _, sockaddr in found]
    return list(dict.fromkeys(addresses))  # hosts(5) may say a thing twice


class Resolver:
    """Knows the addresses of one name; belongs to the running event loop.

    There is one look-up at a time, in a thread of its own, for it may hang as
    long as a name server does, and nothing waits for that thread at the end.
    Addresses that are no longer fresh are used while they are looked up anew,
    and for as long as that fails: a name server's outage is not the server's.
    """

    def __init__(self, host: str, port: int, look_up: LookUp = look_up) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up
        self._found = _literal(host, port)
        self._problem = ""
        self._good_until = float("inf") if self._found else float("-inf")
        self._looking: asyncio.Future[None] | None = None

    async def find(self) -> list[Address]:
        """Return the addresses, never none; Unresolved where there are none."""
        if time.monotonic() >= self._good_until:
            looking = self._looking or self._look()
            if not self._found:
                await asyncio.shield(looking)
        if not self._found:
            raise Unresolved(f"{self._host}: {self._problem}")
        return self._found

    def _look(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        looking = self._looking = loop.create_future()
        try:
            threading.Thread(target=self._run, args=(loop, looking), daemon=True).start()
        except RuntimeError:  # there are as many threads as there may be
            self._on_found(looking, [], "no thread is left to look it up")
        return looking

    def _run(self, loop: asyncio.AbstractEventLoop, looking: asyncio.Future[None]) -> None:
        """Look up, in a thread; when it comes to an end the loop may be gone."""
        found: list[Address] = []
        problem = "it has no address"
        try:
            found = self._look_up(self._host, self._port)
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError:  # UnicodeError is one, and so is what a NUL makes
            problem = "it is no name"
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_found, looking, found, problem)

    def _on_found(self, looking: asyncio.Future[None], found: list[Address], problem: str) -> None:
        self._good_until = time.monotonic() + (FRESH if found else FUTILE)
        self._found = found or self._found
        self._problem = problem
        self._looking = None
        looking.set_result(None)


def _literal(host: str, port: int) -> list[Address]:
    """Return the one address that *host* is, or none where it is to be looked up.

    So is an address with a scope: that is an interface, whose number may change.
    """
    if "%" in host:
        return []
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return []
    return [Address(socket.AF_INET6 if version == IPV6 else socket.AF_INET, (host, port))]
