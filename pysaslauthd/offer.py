"""Which mechanisms our own doors offer, and to whom the Dovecot door does, by the settings."""

import ipaddress
from collections.abc import Iterable

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.sasl.server import registry
from pysaslauthd.sasl.server.mechanism import Mechanism, Need
from pysaslauthd.server.listener import INET, Networks

THIS_MACHINE = ("127.0.0.0/8", "::1/128")
NEED_PASSWORDS = {Need.STORED_PASSWORD, Need.CHANNEL_BINDING}


def check(settings: Settings) -> None:
    """Raise StartupError where the Dovecot door could not be served by *settings*."""
    known = registry.usable()
    if not find_mechanism(settings).has_passwords:
        known = tuple(one for one in known if one.need not in NEED_PASSWORDS)
    choose(settings, known)
    strangers = [place for place in settings.dovecot if not _is_here(place)]
    if strangers and not settings.dovecot_allow:
        raise StartupError(
            f"--dovecot {strangers[0]}: whoever reaches it may ask, and passwords go unencrypted",
            "name the addresses that may ask, in dovecot_allow, or listen on 127.0.0.1",
        )
    allowed(settings)


def choose(settings: Settings, possible: Iterable[Mechanism]) -> dict[str, Mechanism]:
    """Return those of *possible* that are offered, by name; StartupError if there is none.

    In the order in which they are named, as with Dovecot. Postfix does not start without:
    nobody could hand in mail, with a password or without.
    """
    names = settings.dovecot_mechanisms
    _check_names(names or ())
    found = {one.name: one for one in possible}
    if names is None:
        found = {name: one for name, one in found.items() if is_default(one)}
    else:
        found = {name: found[name] for name in map(str.upper, names) if name in found}
    if not found:
        raise StartupError(
            f"dovecot_mechanisms: the backend {settings.mechanism} can complete none of them,"
            " and Postfix does not start without any",
        )
    return found


def allowed(settings: Settings) -> Networks:
    """Return the networks from which one may ask over TCP; StartupError where one is none."""
    try:
        return [ipaddress.ip_network(text) for text in settings.dovecot_allow or THIS_MACHINE]
    except ValueError as error:
        raise StartupError(f"dovecot_allow: {error}") from None


def _is_here(place: str) -> bool:
    host, _, _ = place.removeprefix(INET).rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return True  # a path, or what cannot be listened at


def is_default(mechanism: Mechanism) -> bool:
    """Say whether *mechanism* is offered where none are named.

    EXTERNAL would fail for all but Dovecot's own servers: no other names a certificate's
    owner. Many a client that sees -PLUS takes it, and has another type of channel binding.
    """
    return not mechanism.traits.anonymous and mechanism.need not in {
        Need.EXTERNAL_IDENTITY,
        Need.CHANNEL_BINDING,
    }


def named(setting: str, name: str, known: Iterable[Mechanism]) -> Mechanism:
    """Return the mechanism of that *name*; StartupError lists those *known*, if there is none."""
    mechanism = registry.find(name)
    if mechanism is None:
        names = " ".join(one.name for one in known)
        raise StartupError(f"{setting}: there is no mechanism {name}", f"known are {names}")
    return mechanism


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        mechanism = named("dovecot_mechanisms", name, registry.STRONGEST_FIRST)
        if mechanism.need is Need.CHANNEL_BINDING:
            raise StartupError(
                f"dovecot_mechanisms: {name} is bound to TLS, of which a mail server tells nothing"
            )
