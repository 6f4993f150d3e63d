"""The doors of the daemon, by its settings; one engine is behind all."""

import asyncio
import logging
import resource
import secrets
import socket

from pysaslauthd import offer
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.exchange import Exchanges, Parts
from pysaslauthd.model import Secret
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.sasl.server import registry
from pysaslauthd.sasl.server.mechanism import Surroundings
from pysaslauthd.server import conversation, dovecot, mux
from pysaslauthd.server.auth import KEY_BYTES
from pysaslauthd.server.listener import Listeners
from pysaslauthd.server.waiting import Bounds
from pysaslauthd.wire.mux import OUTAGE_REPLY, Limits, encode_reply

log = logging.getLogger(__name__)

SPARE_DESCRIPTORS = 256  # for everything that is neither client nor server
STOP_GRACE = 0.25  # seconds for clients that have connected and not yet asked
ON_OUTAGE = {"tempfail": OUTAGE_REPLY, "no": encode_reply("NO internal mechanism failure")}


class Doors:
    """What is served on *listeners*; to be told by what settings before it is opened."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._key = Secret(secrets.token_bytes(KEY_BYTES))
        self._mux: mux.MuxDoor | None = None
        self._dovecot: dovecot.DovecotDoor | None = None
        self._exchanges: Exchanges | None = None

    def follow(self, settings: Settings, parts: Parts) -> None:
        """Serve by *settings* from now on, and ask *parts*.

        StartupError, and all stays as it was, where no SASL mechanism could be offered.
        """
        loop = asyncio.get_running_loop()
        # Of systemd's sockets the settings say nothing.
        doors = bool(self._listeners.mux) + bool(self._listeners.dovecot)
        most = most_connections(settings) // max(1, doors)
        rules = mux_rules(settings, parts.authenticator, most)
        if self._listeners.dovecot:
            here = parts.distrusting_realms().without_delays()
            self._follow_dovecot(loop, settings, here, most)
        if self._mux is None:
            self._mux = mux.MuxDoor(loop, rules)
        else:
            self._mux.follow(rules)

    def _follow_dovecot(
        self, loop: asyncio.AbstractEventLoop, settings: Settings, parts: Parts, most: int
    ) -> None:
        possible = Exchanges(parts, registry.usable())
        offered = offer.choose(settings, possible.mechanisms)
        lacking = [one for one in settings.dovecot_mechanisms or () if one.upper() not in offered]
        if lacking:
            log.warning(
                "dovecot_mechanisms: the backend %s cannot complete %s: not offered",
                settings.mechanism,
                ", ".join(lacking),
            )
        if self._exchanges is None:
            self._exchanges = possible
        else:
            self._exchanges.follow(parts)
        rules = conversation.Rules(
            self._exchanges,
            Surroundings(socket.gethostname(), self._key, realm=parts.names.default_realm),
            offered,
            settings.failure_delay,
            only_secured=settings.dovecot_secured_only,
            tells_outage=settings.on_outage == "no",
        )
        limits = dovecot.Limits(most, offer.allowed(settings))
        if self._dovecot is None:
            self._dovecot = dovecot.DovecotDoor(loop, rules, limits)
        else:
            self._dovecot.follow(rules, limits)

    def open(self) -> None:
        """Let clients in."""
        for listener in self._listeners.mux:
            if self._mux is not None:
                self._mux.listen(listener)
        for listener in self._listeners.dovecot:
            if self._dovecot is not None:
                self._dovecot.listen(listener)

    async def answered(self) -> None:
        """Return when every answer that is under way now has been given."""
        for door in (self._mux, self._dovecot):
            if door is not None:
                await door.answered()

    async def stop(self) -> None:
        """Answer who has asked, and let nobody else in."""
        stopping = []
        if self._mux is not None:
            stopping.append(self._mux.stop(STOP_GRACE))
        if self._dovecot is not None:
            stopping.append(self._dovecot.stop())
        await asyncio.gather(*stopping)  # for each, as long as a backend may take


def mux_rules(settings: Settings, engine: Authenticator, most: int) -> mux.Rules:
    """Return how the mux door serves, with *most* connections."""
    return mux.Rules(
        engine.check,
        Limits(
            settings.login_bytes,
            settings.password_bytes,
            settings.service_bytes,
            settings.realm_bytes,
        ),
        Bounds(settings.idle_after, most),
        ON_OUTAGE[settings.on_outage],
    )


def most_connections(settings: Settings) -> int:
    """Return how many connections the doors may have, by what descriptors allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_DESCRIPTORS + find_mechanism(settings).connections(settings)
    return descriptors - min(wanted, descriptors // 2)
