"""The backend `-a ldap`: from its settings to the servers and rules that it works by."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.elsewhere import refuse_cleartext, tls_context
from pysaslauthd.plugins.mechanism import Mechanism, make_pool
from pysaslauthd.remote.endpoint import Endpoint, Security, split_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from pysaslauthd.backends.base import PasswordVerifier
    from pysaslauthd.backends.ldap.lookup import GroupAttribute, GroupFilter, Search
    from pysaslauthd.backends.ldap.methods import Method
    from pysaslauthd.backends.ldap.sasl import SaslRules
    from pysaslauthd.backends.ldap.server import TakeOn
    from pysaslauthd.config.settings import Settings
    from pysaslauthd.config.tables import Ldap
    from pysaslauthd.wire.ldap import SearchRules
    from pysaslauthd.workers.child import Answer
    from pysaslauthd.workers.hashes import HashWorkers
    from pysaslauthd.workers.pool import Source

log = logging.getLogger(__name__)

NAME = "ldap"
URI = re.compile("(ldap|ldaps|ldapi)://([^/?]*)", re.IGNORECASE)
PORTS = {"ldap": 389, "ldaps": 636}
SHARED = 8  # connections of each server beside those for passwords, and for looks at it
EXTERNAL = "EXTERNAL"  # the mechanism that has no password
DEFAULT_SOCKET = "/var/run/slapd/ldapi"  # of OpenLDAP, as Debian builds it


def _configure(settings: Settings) -> Settings:
    """Read the C daemon's file, unless the settings have a table of their own."""
    from pysaslauthd.config.classic import with_identity

    table = settings.ldap
    if settings.mechanism_option is not None or table is None:
        table = _read(settings)
    if _uses_tls(_endpoints(table).values()):
        table = with_identity(table, NAME)
    return msgspec.structs.replace(settings, ldap=table)


def _read(settings: Settings) -> Ldap:
    """Return what the C daemon's file and libldap's settings make; log what has no effect.

    Paths are relative to the run directory, which the C daemon enters before it reads this.
    """
    from pysaslauthd.config import classic, ldap, libldap
    from pysaslauthd.remote.tls import knows_ciphers

    path = Path(settings.run_directory, settings.mechanism_option or classic.DEFAULT_FILE)
    options = libldap.read_options(os.environ, settings.run_directory)
    table, warnings, places = ldap.read_file(str(path), options, settings.run_directory)
    if table.tls_ciphers is not None and not knows_ciphers(table.tls_ciphers):
        unknown = f"OpenSSL knows no cipher by {table.tls_ciphers!r}; GnuTLS is not used here"
        warnings.append(f"{places['tls_ciphers']}: ignored: {unknown}")
        table = msgspec.structs.replace(table, tls_ciphers=None)
    for warning in warnings:
        log.warning("%s", warning)
    return table


def _check(settings: Settings) -> None:
    table = _table(settings)
    endpoints = _endpoints(table)
    if not endpoints:
        raise StartupError("ldap_servers: there is none")
    if _shows_passwords(table):
        for endpoint in endpoints.values():
            cure = "use ldaps:// or ldap_start_tls: yes"
            refuse_cleartext(endpoint, settings, "ldap_servers", cure)
    _tls(table, endpoints.values())
    for endpoint in endpoints.values():
        _identity(table, endpoint)
    _group(table)
    if table.auth_method == "fastbind":
        _check_name(table)
    else:
        _user_search(table)
    if table.auth_method == "custom":
        _check_hashing()


def _check_name(table: Ldap) -> None:
    if table.filter.startswith("(") and not table.use_sasl:
        raise StartupError(
            f"ldap_filter: {table.filter}: ldap_auth_method: fastbind wants the name of the"
            " entry there, such as uid=%u,ou=people,dc=example,dc=org"
        )


def _check_hashing() -> None:
    from pysaslauthd.passwords import libcrypt, schemes

    libcrypt.load()
    if rival := schemes.rival_library():
        log.warning("%s", rival)


def _shows_passwords(table: Ldap) -> bool:
    """Say whether a password or a hash goes over the connection as it is."""
    if not table.use_sasl or table.auth_method != "fastbind":
        return True
    mechanism = _sasl_rules(table).mechanism
    return mechanism is not None and mechanism.reveals_password


def _make(settings: Settings, source: Source) -> PasswordVerifier:
    from pysaslauthd.backends.ldap.server import Limits, Server
    from pysaslauthd.backends.ldap.verifier import Ldap, Rules
    from pysaslauthd.remote.connect import Connector
    from pysaslauthd.workers.hashes import HashWorkers

    table = _table(settings)
    endpoints = _endpoints(table)
    context = _tls(table, endpoints.values())
    limits = Limits(table.timeout, table.connections)
    servers = [
        Server(uri, Connector(endpoint, context, table.timeout), _identity(table, endpoint), limits)
        for uri, endpoint in endpoints.items()
    ]
    hashes = None
    if table.auth_method == "custom":
        pool = make_pool(NAME, settings, source, hashes=True, kept=1)
        hashes = HashWorkers(NAME, pool, settings.deadlines)
    rules = Rules(_method(table, hashes), _group(table), table.default_realm)
    return Ldap(servers, rules, hashes)


def _connections(settings: Settings) -> int:
    table = _table(settings)
    return len(table.servers) * (table.connections + SHARED)


def _work(_settings: Settings) -> Answer:
    from pysaslauthd.passwords import schemes
    from pysaslauthd.workers.hashes import checking_hashes

    return checking_hashes(schemes.any_fits, NAME)


def _table(settings: Settings) -> Ldap:
    from pysaslauthd.config.tables import Ldap

    return settings.ldap or Ldap()


def _endpoints(table: Ldap) -> dict[str, Endpoint]:
    return {uri: parse_server(uri, start_tls=table.start_tls) for uri in table.servers}


def parse_server(uri: str, *, start_tls: bool) -> Endpoint:
    """Return where *uri*, of ldap_servers, leads; StartupError where it leads nowhere.

    Of RFC 4516 scheme, host and port count, as for libldap; both of these may be missing.
    """
    found = URI.match(uri)
    if found is None:
        raise StartupError(f"ldap_servers: {uri}: it begins with ldap://, ldaps:// or ldapi://")
    scheme, place = found[1].lower(), unquote(found[2])
    if scheme == "ldapi":
        return _socket(uri, place or DEFAULT_SOCKET)
    if scheme == "ldaps" and start_tls:
        raise StartupError(f"ldap_servers: {uri}: ldap_start_tls is for ldap:// only")
    if not place or re.match(":[0-9]", place):
        place = f"localhost{place}"
    try:
        host, port = split_port(place, PORTS[scheme])
    except ValueError as error:
        raise StartupError(f"ldap_servers: {uri}: {error}") from None
    unencrypted = Security.STARTTLS if start_tls else Security.NONE
    return Endpoint(host, port, Security.TLS if scheme == "ldaps" else unencrypted)


def _socket(uri: str, path: str) -> Endpoint:
    if not path.startswith("/"):
        raise StartupError(
            f"ldap_servers: {uri}: a socket's path begins with /, which is %2F in a URI"
        )
    return Endpoint("localhost", 0, Security.NONE, path)


def _tls(table: Ldap, endpoints: Iterable[Endpoint]) -> ssl.SSLContext | None:
    """Return the context for *endpoints*, None where none of them has TLS."""
    return tls_context(table, NAME) if _uses_tls(endpoints) else None


def _uses_tls(endpoints: Iterable[Endpoint]) -> bool:
    return any(endpoint.security is not Security.NONE for endpoint in endpoints)


def _identity(table: Ldap, endpoint: Endpoint) -> TakeOn:
    from pysaslauthd.backends.ldap import identity
    from pysaslauthd.sasl.client import Credentials

    if table.use_sasl:
        rules = _sasl_rules(table)
        has_name = table.id or (rules.mechanism is not None and rules.mechanism.name == EXTERNAL)
        credentials = Credentials(
            table.id, table.password, table.authz_id, table.realm or None, NAME, endpoint.host
        )
        return identity.proven(rules, credentials) if has_name else identity.anonymous
    if not table.bind_dn.strip():
        return identity.anonymous
    if table.password is None or not table.password.reveal():
        raise StartupError(
            "ldap_bind_dn: there is no password for it, and without one it is nobody",
            "set ldap_password; or leave ldap_bind_dn away, to ask as nobody",
        )
    return identity.named(table.bind_dn, table.password)


def _sasl_rules(table: Ldap) -> SaslRules:
    from pysaslauthd.backends.ldap.sasl import SaslRules
    from pysaslauthd.sasl.client import NoMechanism, find

    try:
        mechanism = find(table.mech) if table.mech else None
    except NoMechanism as error:
        raise StartupError(f"ldap_mech: {error}") from None
    if table.auth_method == "fastbind" and mechanism is not None and mechanism.name == EXTERNAL:
        raise StartupError(
            "ldap_mech: EXTERNAL asks nobody for a password: everybody would be let in",
            'name another mechanism; or use table [ldap] with auth_method = "bind", where only'
            " the service uses SASL",
        )
    private = all(endpoint.is_private for endpoint in _endpoints(table).values())
    return SaslRules(mechanism, private and table.tls_check_peer)


def _method(table: Ldap, hashes: HashWorkers | None) -> Method:
    from pysaslauthd.backends.ldap.methods import Bind, Custom, Fastbind, SaslFastbind
    from pysaslauthd.backends.ldap.templates import Template

    if hashes is not None:
        return Custom(_user_search(table), table.password_attr.encode(), hashes.fits)
    if table.auth_method == "fastbind" and table.use_sasl:
        group = _group(table)
        wants_name = group is not None and group.wants_name
        return SaslFastbind(_sasl_rules(table), table.realm or None, wants_name)
    if table.auth_method == "fastbind":
        return Fastbind(Template(table.filter))
    return Bind(_user_search(table))


def _user_search(table: Ldap) -> Search:
    from pysaslauthd.wire.ldap import NO_ATTRIBUTES, SearchRules

    rules = SearchRules(table.scope, table.deref, table.size_limit, table.time_limit)
    is_custom = table.auth_method == "custom"
    wanted = (table.password_attr.encode(),) if is_custom else NO_ATTRIBUTES
    return _search("ldap_filter", table.search_base, table.filter, rules, wanted)


def _group(table: Ldap) -> GroupAttribute | GroupFilter | None:
    from pysaslauthd.backends.ldap.lookup import GroupAttribute, GroupFilter
    from pysaslauthd.backends.ldap.templates import Template
    from pysaslauthd.wire.ldap import NO_ATTRIBUTES, SearchRules

    if table.group_match_method == "attr":
        if table.group_filter and not table.group_dn:
            raise StartupError("ldap_group_filter: it needs ldap_group_match_method: filter")
        if not table.group_dn:
            return None
        return GroupAttribute(Template(table.group_dn), table.group_attr.encode())
    if not table.group_filter:  # without it everybody would be let in
        raise StartupError("ldap_group_match_method: filter needs an ldap_group_filter")
    base = table.group_search_base or table.search_base
    rules = SearchRules(table.group_scope, table.deref, 1, table.time_limit)
    search = _search("ldap_group_filter", base, table.group_filter, rules, NO_ATTRIBUTES)
    return GroupFilter(search)


def _search(
    setting: str, base: str, filter_: str, rules: SearchRules, attributes: tuple[bytes, ...]
) -> Search:
    from pysaslauthd.backends.ldap.lookup import Search
    from pysaslauthd.wire.ldap_filter import FilterProblem

    try:
        return Search(base, filter_, rules, attributes)
    except FilterProblem as problem:
        raise StartupError(f"{setting}: {filter_}: {problem}") from None


LDAP = Mechanism(
    ("ldap.identity", "ldap.verifier"),
    _check,
    _make,
    _configure,
    _work,
    hashes=True,
    capabilities=frozenset(),
    connections=_connections,
)
