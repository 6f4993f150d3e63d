"""Connections to one server: its addresses in turn, then TLS, all of it within a deadline."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from pysaslauthd.remote.endpoint import Endpoint, Security, is_loopback
from pysaslauthd.remote.resolver import Address, Resolver, Unresolved
from pysaslauthd.remote.tls import explain

GOODBYE = 1.0  # seconds for the end of TLS, which nobody waits for

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Unreachable(Exception):
    """There is no connection; the text names the server and says why."""


class Connector:
    """Connects to *endpoint*, by *context* where that has TLS, within *patience* seconds.

    A name with several addresses is tried by each of them, the one that worked
    last first; each has its share of the time. Belongs to the running event loop.
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
        self._worked: Address | None = None

    async def connect(self, make: Callable[[], P]) -> P:
        """Return what *make* makes, connected; Unreachable where that fails."""
        until = asyncio.get_running_loop().time() + self._patience
        addresses = await self._find_addresses(until)
        problems = []
        for number, address in enumerate(addresses):
            share = (until - asyncio.get_running_loop().time()) / (len(addresses) - number)
            try:
                async with asyncio.timeout(share):
                    connected = await self._connect(address, make)
            except TimeoutError:
                problems.append(f"{address.host}: no connection within {share:.1f} s")
            except OSError as error:
                problems.append(f"{address.host}: {describe(error)}")
            else:
                self._worked = address
                return connected
        raise Unreachable(f"{self.endpoint}: {'; '.join(problems)}")

    async def start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol
    ) -> asyncio.Transport:
        """Return the transport that speaks TLS over *transport* from now on."""
        loop = asyncio.get_running_loop()
        if self._context is None:
            raise Unreachable(f"{self.endpoint}: TLS has not been prepared")
        try:
            async with asyncio.timeout(self._patience):
                made = await loop.start_tls(
                    transport, protocol, self._context, **self._tls_options()
                )
        except TimeoutError:
            raise Unreachable(f"{self.endpoint}: no TLS within {self._patience:g} s") from None
        except OSError as error:
            raise Unreachable(f"{self.endpoint}: {describe(error)}") from error
        if made is None:
            raise Unreachable(f"{self.endpoint}: it hung up before TLS")
        return made

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
        if self.endpoint.security is Security.NONE and self.endpoint.is_here:
            self._refuse_strangers(found)
        return sorted(found, key=lambda address: address != self._worked)

    def _refuse_strangers(self, addresses: list[Address]) -> None:
        """Trust no name server that says where this machine is: passwords go there in clear."""
        strangers = [address.host for address in addresses if not is_loopback(address.host)]
        if strangers:
            raise Unreachable(
                f"{self.endpoint}: its address {strangers[0]} is not of this machine, and passwords"
                " would go there unencrypted"
            )

    async def _connect(self, address: Address, make: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        sock.settimeout(0)
        try:
            await loop.sock_connect(sock, address.sockaddr)
        except BaseException:
            sock.close()
            raise
        if self.endpoint.security is not Security.TLS:
            _, protocol = await loop.create_connection(make, sock=sock)
            return protocol
        _, protocol = await loop.create_connection(
            make, sock=sock, ssl=self._context, **self._tls_options()
        )
        return protocol

    def _tls_options(self) -> dict[str, Any]:
        return {"server_hostname": self.endpoint.host, "ssl_shutdown_timeout": GOODBYE}


def describe(error: OSError) -> str:
    """Return what went wrong with a connection, in the words of OpenSSL or the system."""
    if isinstance(error, ssl.SSLError):
        return explain(error)
    if error.errno:
        return os.strerror(error.errno)
    return str(error) or "it hung up"
