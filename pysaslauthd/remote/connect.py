"""Connections to one server: its addresses in turn, then TLS, all of it within a deadline."""

import asyncio
import itertools
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from pysaslauthd.remote.endpoint import Endpoint, Security, is_loopback
from pysaslauthd.remote.resolver import Address, Resolver, Unresolved
from pysaslauthd.remote.tls import explain

GOODBYE = 1.0  # seconds for the end of TLS, which nobody waits for
SHARES = 5  # into so many the time is divided at most, lest each be too short for anybody
ROOM_EVERY = 0.02  # seconds between looks for room in a unix socket's queue

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Unreachable(Exception):
    """There is no connection; the text names the server and says why."""


class Connector:
    """Connects to *endpoint*, by *context* where that has TLS, within *patience* seconds.

    A name with several addresses is tried by each of them, the one that worked
    last first, IPv6 and IPv4 in turns; each has its share of the time. Belongs to the running
    event loop.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        patience: float,
        resolver: Resolver | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._context = context
        self._patience = patience
        self._resolver = resolver or Resolver(endpoint.host, endpoint.port)
        self._must_be_here = endpoint.security is Security.NONE and endpoint.is_here
        self._trusted: list[Address] = []  # what has been found to be of this machine
        self._worked: Address | None = None

    async def connect(self, make: Callable[[], P]) -> P:
        """Return what *make* makes, connected; Unreachable where that fails."""
        until = asyncio.get_running_loop().time() + self._patience
        addresses = await self._find_addresses(until)
        problems = []
        for number, address in enumerate(addresses):
            left = until - asyncio.get_running_loop().time()
            share = left / min(len(addresses) - number, SHARES)
            try:
                async with asyncio.timeout(share):
                    connected = await self._connect(address, make)
            except TimeoutError:
                problems.append(self._about(address, f"no connection within {share:.1f} s"))
            except OSError as error:
                problems.append(self._about(address, self._told(error)))
            else:
                self._worked = address
                return connected
        raise Unreachable(f"{self.endpoint}: {'; '.join(problems)}")

    async def start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol
    ) -> asyncio.Transport:
        """Return the transport that speaks TLS over *transport* from now on.

        Unreachable where that fails, and then *transport* is closed. What the
        server has said before is *protocol*'s to refuse: it came unencrypted.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._start_tls(transport, protocol)
        except TimeoutError:
            raise Unreachable(f"{self.endpoint}: no TLS within {self._patience:g} s") from None
        except OSError as error:
            raise Unreachable(f"{self.endpoint}: {describe(error)}") from error

    async def _find_addresses(self, until: float) -> list[Address]:
        if self.endpoint.path:
            return [Address(socket.AF_UNIX, self.endpoint.path)]
        try:
            async with asyncio.timeout_at(until):
                found = await self._resolver.find()
        except TimeoutError:
            raise Unreachable(
                f"{self.endpoint}: no name server has told its address within {self._patience:g} s"
            ) from None
        except Unresolved as error:
            raise Unreachable(str(error)) from None
        if self._must_be_here and found is not self._trusted:
            self._refuse_strangers(found)
            self._trusted = found
        return sorted(_in_turns(found), key=lambda address: address != self._worked)

    def _refuse_strangers(self, addresses: list[Address]) -> None:
        """Trust no name server that says where this machine is: passwords go there in clear."""
        strangers = [address.host for address in addresses if not is_loopback(address.host)]
        if strangers:
            raise Unreachable(
                f"{self.endpoint}: its address {strangers[0]} is not of this machine, and passwords"
                " would go there unencrypted"
            )

    async def _connect(self, address: Address, make: Callable[[], P]) -> P:
        options: dict[str, Any] = {}
        if self.endpoint.security is Security.TLS:
            options = {"ssl": self._prepared(), **self._tls_options()}
        loop = asyncio.get_running_loop()
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        sock.settimeout(0)
        try:
            if address.family == socket.AF_UNIX:
                await _connect_unix(sock, address.host)
            else:
                await loop.sock_connect(sock, address.sockaddr)
        except BaseException:
            sock.close()
            raise
        _, protocol = await loop.create_connection(make, sock=sock, **options)
        return protocol

    async def _start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol
    ) -> asyncio.Transport:
        context, loop = self._prepared(), asyncio.get_running_loop()
        made = None
        if not transport.is_closing():
            made = await loop.start_tls(transport, protocol, context, **self._tls_options())
        if made is None:
            raise ConnectionResetError("it hung up before TLS")
        return made

    def _prepared(self) -> ssl.SSLContext:
        if self._context is None:
            raise Unreachable(f"{self.endpoint}: TLS has not been prepared")
        return self._context

    def _tls_options(self) -> dict[str, Any]:
        """Return for whom the certificate is to be; none is for a scope or a dot at the end."""
        name = self.endpoint.host.partition("%")[0].removesuffix(".")
        if not name:  # for asyncio that means that any will do
            raise Unreachable(f"{self.endpoint}: no certificate can be for such a name")
        return {"server_hostname": name, "ssl_shutdown_timeout": GOODBYE}

    def _told(self, error: OSError) -> str:
        if self.endpoint.security is Security.TLS and isinstance(error, ConnectionResetError):
            return f"{describe(error)} when TLS began: does it speak TLS there?"
        return describe(error)

    def _about(self, address: Address, problem: str) -> str:
        own = self.endpoint.path or self.endpoint.host
        return problem if address.host == own else f"{address.host}: {problem}"


def _in_turns(addresses: list[Address]) -> list[Address]:
    """Return *addresses* with the families in turns: one of them may lead nowhere (RFC 8305)."""
    first = addresses[0].family
    ours = [address for address in addresses if address.family == first]
    others = [address for address in addresses if address.family != first]
    pairs = itertools.zip_longest(ours, others)
    return [address for pair in pairs for address in pair if address is not None]


async def _connect_unix(sock: socket.socket, path: str) -> None:
    """Connect, when the server has room. asyncio would take its having none for a connection."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:  # its queue is full, and nothing tells when it is not: unix(7)
            await asyncio.sleep(ROOM_EVERY)
        else:
            return


def describe(error: OSError) -> str:
    """Return what went wrong with a connection, in the words of OpenSSL or the system."""
    if isinstance(error, ssl.SSLError):
        return explain(error)
    if error.errno:
        return os.strerror(error.errno)
    return str(error) or "it hung up"
