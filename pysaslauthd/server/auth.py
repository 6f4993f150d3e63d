"""What a door that speaks SASL needs of everything below it."""

import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, Self

from pysaslauthd.model import Origin, Secret
from pysaslauthd.sasl.server.mechanism import (
    Challenge,
    ChannelBinding,
    Finished,
    Mechanism,
    Need,
    Surroundings,
)
from pysaslauthd.smtp.banner import Offer
from pysaslauthd.smtp.dialogue import Tries
from pysaslauthd.smtp.options import DEFAULT_POLICY, Policy

KEY_BYTES = 32
DEFAULT_TRIES = Tries()


class Exchange(Protocol):
    """One authentication: `engine.exchange.Exchange`."""

    async def proceed(self, response: bytes | None, /) -> Challenge | Finished:
        """Return what to say next, or the end; None first, then the client's responses."""
        ...


class Exchanges(Protocol):
    """What can be asked: `engine.exchange.Exchanges`."""

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """The mechanisms that may succeed, in the order in which they are offered."""
        ...

    def start(
        self,
        mechanism: Mechanism,
        surroundings: Surroundings,
        initial: bytes | None,
        origin: Origin,
        /,
    ) -> Exchange:
        """Return an exchange in which nothing has happened yet."""
        ...


class State(NamedTuple):
    """What AUTH is at a moment: *offered* mechanisms, their *lines* in EHLO's reply."""

    surroundings: Surroundings
    offered: tuple[Mechanism, ...]
    lines: list[str]


@dataclass(frozen=True)
class Auth:
    """What AUTH of a server is made of; one for all connections.

    *offer* is what there is of *exchanges*, under a policy. *surroundings* are those of
    a connection without TLS; *channel_binding* is what one within TLS has besides.
    """

    exchanges: Exchanges
    offer: Offer
    surroundings: Surroundings
    tries: Tries = DEFAULT_TRIES
    channel_binding: ChannelBinding | None = None

    @classmethod
    def of(
        cls,
        exchanges: Exchanges,
        host: str,
        policy: Policy = DEFAULT_POLICY,
        *,
        broken_clients: bool = False,
    ) -> Self:
        """Return the AUTH of a server called *host*, with what *exchanges* can do.

        *broken_clients* want `AUTH=`.
        """
        offer = Offer(exchanges.mechanisms, policy, broken_clients=broken_clients)
        key = Secret(secrets.token_bytes(KEY_BYTES))
        return cls(exchanges, offer, Surroundings(host, key, realm=host))

    def state(self, *, secured: bool) -> State:
        """Return what AUTH is now; *secured*: within TLS. Each is worked out once."""
        return self._within_tls if secured else self._before_tls

    def warnings(self, *, has_tls: bool) -> list[str]:
        """Return what to tell at start, such as that nobody can log in; *has_tls*: there is TLS."""
        after = self._within_tls.surroundings if has_tls else None
        return self.offer.warnings(self._before_tls.surroundings, after)

    @cached_property
    def _before_tls(self) -> State:
        return self._state(self.surroundings, secured=False)

    @cached_property
    def _within_tls(self) -> State:
        # A mechanism takes it as a sign that its -PLUS form is offered.
        offers = any(one.need is Need.CHANNEL_BINDING for one in self.offer.mechanisms)
        bound = self.channel_binding if offers else None
        return self._state(self.surroundings._replace(channel_binding=bound), secured=True)

    def _state(self, surroundings: Surroundings, *, secured: bool) -> State:
        offered = self.offer.now(surroundings, secured=secured)
        return State(surroundings, offered, self.offer.lines(offered))


class Login(NamedTuple):
    """Who a client has proven to be: *authcid*; who it acts as, *authzid*, is often the same."""

    authcid: str
    authzid: str
    mechanism: str
