"""Where a server is, and what protects the way to it."""

import ipaddress
from enum import Enum
from typing import NamedTuple

LAST_PORT = 0xFFFF
PORT_DIGITS = 5


class Security(Enum):
    """What keeps others from reading along."""

    NONE = "nothing"
    STARTTLS = "TLS from some point of the dialogue on"
    TLS = "TLS from the first byte on"


class Endpoint(NamedTuple):
    """A server at *port* of *host*, which is a name or an address; or at the unix socket *path*.

    There, *host* is only what a certificate has to be for.
    """

    host: str
    port: int
    security: Security
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        """Whether it is this machine itself, by its name; nothing is looked up."""
        return bool(self.path) or self.host.lower() == "localhost" or is_loopback(self.host)

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.security is not Security.NONE or self.is_here


def is_loopback(address: str) -> bool:
    """Say whether *address* is one of this machine's own, which nothing leaves; a name is not."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def split_port(text: str, default: int) -> tuple[str, int]:
    """Return host and port of `host`, `host:port`, `[address]` or `[address]:port`.

    An IPv6 address may stand alone too. ValueError, with a text to show, where it is none of these.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"not a host: {text!r}")
        port = rest[1:]
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"no host in {text!r}")
    return host, parse_port(port) if port else default


def parse_port(text: str) -> int:
    """Return the port that *text* says in digits; ValueError where it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= PORT_DIGITS):
        raise ValueError(f"not a port: {text!r}")
    port = int(text)
    if not 0 < port <= LAST_PORT:
        raise ValueError(f"not a port: {text!r}")
    return port
