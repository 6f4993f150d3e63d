"""The backend that asks an IMAP server: which one, by `-O` as the C daemon has it or by a URL."""

import ipaddress
import re
import socket

import msgspec

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.classic import with_identity
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Rimap as Table
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.elsewhere import refuse_cleartext, tls_context
from pysaslauthd.plugins.mechanism import Mechanism
from pysaslauthd.remote.endpoint import Endpoint, Security, parse_port, split_port
from pysaslauthd.workers.pool import Source

IMAP, IMAPS = 143, 993  # ports
SCHEMES = {
    "imap": (Security.NONE, IMAP),
    "imap+starttls": (Security.STARTTLS, IMAP),
    "imaps": (Security.TLS, IMAPS),
}
NO_HOST = re.compile(r"[\s/@?#]")


def parse_server(text: str) -> Endpoint:
    """Return the server that *text* names; ValueError, with a text to show, where it names none.

    `host`, `host/port` with a port or a service's name (services(5)), or a URL
    `imap://host:port`, `imap+starttls://...` or `imaps://...`.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return _parse_classic(text)
    if scheme.lower() not in SCHEMES:
        raise ValueError(f"not imap://, imap+starttls:// or imaps://: {text!r}")
    security, default = SCHEMES[scheme.lower()]
    host, port = split_port(rest.removesuffix("/"), default)
    return Endpoint(_checked(host), port, security)


def _parse_classic(text: str) -> Endpoint:
    host, slash, port = text.partition("/")
    if ":" in host and not _is_address(host):
        raise ValueError(f"not a host: {host!r}; host/143, or a URL such as imaps://host, is")
    return Endpoint(_checked(host), _find_port(port) if slash else IMAP, Security.NONE)


def _checked(host: str) -> str:
    if not host or NO_HOST.search(host) or (":" in host and not _is_address(host)):
        raise ValueError(f"not a host: {host!r}")
    return host


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _find_port(text: str) -> int:
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        return parse_port(text)


def _configure(settings: Settings) -> Settings:
    """Return *settings* with the server as a URL in the table, wherever it was named."""
    table = settings.rimap or Table()
    text = table.server if settings.mechanism_option is None else settings.mechanism_option
    if not text:
        raise StartupError(
            "rimap_init: no hostname specified",
            "name the IMAP server, such as -O imaps://imap.example.org (server in table [rimap])",
        )
    try:
        endpoint = parse_server(text)
    except ValueError as error:
        raise StartupError(f"{_setting(settings)}: {error}") from None
    scheme = next(name for name, (kind, _) in SCHEMES.items() if kind is endpoint.security)
    table = msgspec.structs.replace(with_identity(table, "rimap"), server=f"{scheme}://{endpoint}")
    return msgspec.structs.replace(settings, rimap=table)


def _setting(settings: Settings) -> str:
    return "server in table [rimap]" if settings.mechanism_option is None else "-O"


def _check(settings: Settings) -> None:
    endpoint, table = _endpoint(settings)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    refuse_cleartext(
        endpoint, settings, _setting(settings), f"use imaps://{host} or imap+starttls://{host}"
    )
    if endpoint.security is not Security.NONE:
        tls_context(table, "rimap")


def _make(settings: Settings, _source: Source) -> PasswordVerifier:
    from pysaslauthd.backends.rimap import Rimap
    from pysaslauthd.remote.connect import Connector

    endpoint, table = _endpoint(settings)
    context = None if endpoint.security is Security.NONE else tls_context(table, "rimap")
    connector = Connector(endpoint, context, table.timeout)
    return Rimap(connector, table.timeout, table.connections)


def _endpoint(settings: Settings) -> tuple[Endpoint, Table]:
    """Return the server and its table, once `_configure` has been there."""
    table = settings.rimap or Table()
    return parse_server(table.server), table


def _connections(settings: Settings) -> int:
    return (settings.rimap or Table()).connections


RIMAP = Mechanism(("rimap",), _check, _make, _configure, connections=_connections)
