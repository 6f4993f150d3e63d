"""What the backends that ask servers elsewhere share: their settings as rules, and refusals."""

import ssl

from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Tls
from pysaslauthd.errors import StartupError
from pysaslauthd.remote.endpoint import Endpoint
from pysaslauthd.remote.tls import TlsProblem, TlsRules, make_context


def tls_context(table: Tls, name: str) -> ssl.SSLContext:
    """Return the context that *table* describes; StartupError, for *name*, where it makes none."""
    rules = TlsRules(
        table.tls_check_peer,
        table.tls_cacert_file,
        table.tls_cacert_dir,
        table.tls_minimum,
        table.tls_ciphers,
        table.tls_identity,
    )
    try:
        return make_context(rules)
    except TlsProblem as problem:
        raise StartupError(f"{name}: {problem}") from None


def refuse_cleartext(endpoint: Endpoint, settings: Settings, setting: str, cure: str) -> None:
    """Raise StartupError where a password would go to *endpoint* for all on the way to read.

    *setting* is what would let it, *cure* what would not.
    """
    if not endpoint.is_private and endpoint.host not in settings.allow_cleartext:
        raise StartupError(
            f"{setting}: passwords would go unencrypted to {endpoint.host}",
            f"{cure}; or allow it: --allow-cleartext {endpoint.host}"
            " (allow_cleartext in the configuration file)",
        )
