"""The backend that asks an HTTP server: httpform."""

import importlib.util

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.httpform import configure
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform as Table
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.elsewhere import refuse_cleartext, tls_context
from pysaslauthd.plugins.mechanism import Mechanism, option_file
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.workers.pool import Source

HTTP_PORT, HTTPS_PORT = 80, 443


def _configure(settings: Settings) -> Settings:
    return configure(settings, option_file(settings))


def _table(settings: Settings) -> Table:
    return settings.httpform or Table()


def _endpoint(table: Table) -> Endpoint:
    security, port = (Security.TLS, HTTPS_PORT) if table.tls else (Security.NONE, HTTP_PORT)
    return Endpoint(table.host, table.port or port, security)


def _check(settings: Settings) -> None:
    if importlib.util.find_spec("aiohttp") is None:
        raise StartupError(
            "-a httpform needs aiohttp, which is not installed",
            "install it: pip install 'pysaslauthd[http]'",
        )
    table = _table(settings)
    refuse_cleartext(
        _endpoint(table),
        settings,
        "httpform_tls",
        "set httpform_tls: yes (tls = true in [httpform])",
    )
    if table.tls:
        tls_context(table, "httpform")


def _make(settings: Settings, _source: Source) -> PasswordVerifier:
    from pysaslauthd.backends.httpform import Httpform
    from pysaslauthd.remote.connect import Connector

    table = _table(settings)
    context = tls_context(table, "httpform") if table.tls else None
    connector = Connector(_endpoint(table), context, table.timeout)
    return Httpform(connector, table.uri, table.data, table.connections)


def _connections(settings: Settings) -> int:
    return _table(settings).connections


HTTPFORM = Mechanism(("httpform",), _check, _make, _configure, connections=_connections)
