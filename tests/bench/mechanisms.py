"""Exchanges a second of each mechanism: our server halves, driven by the engine.

What the client says is rehearsed once with our client halves, and repeated word
for word: so nothing that a client computes is counted. For that the client's
nonces and the server's are the same each time; the server's are made all the
same, and thrown away. Only an exchange that ends in success counts.

The seconds are those of this process's processor time: nothing waits here, and
what others take of the core is not counted (that they may slow it down, is).

Where the keys of a password are derived once and kept (SCRAM), a first login is
shown beside the later ones: then nothing is kept from one to the next.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from pysaslauthd.backends.static import Static
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.exchange import Exchanges, Parts
from pysaslauthd.engine.names import Names
from pysaslauthd.model import Accepted, Deadlines, Origin, Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials
from pysaslauthd.sasl.nonces import random_nonce
from pysaslauthd.sasl.server import registry, scram
from pysaslauthd.sasl.server.mechanism import Challenge, Finished, Need, Surroundings
from pysaslauthd.sasl.server.scram_keys import KeyRing
from tests.bench import client_halves, database
from tests.bench.client_halves import CHANNEL, HASHES, PLUS
from tests.bench.measure import NONE_NOT_RIGHT, plain_row
from tests.bench.report import Row
from tests.bench.servers import OURS, NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pysaslauthd.sasl.server.mechanism import Mechanism
    from tests.bench.measure import Bench

HOST = "mail.test.example"
NAMES = Names(combine=False, default_realm=HOST)
ORIGIN = Origin(database.SERVICE, "192.0.2.7")
CREDENTIALS = Credentials(
    database.LOGIN, Secret(database.PASSWORD.encode()), service=database.SERVICE, host=HOST
)

PART = 0.25  # of the time that other comparisons take for a run: there are many, and no waits
AT_ONCE = 10  # exchanges between two looks at the clock, which cost as much as a step


class Case(NamedTuple):
    """A *mechanism* as it is measured, and the messages of its client, the initial response first.

    *here* is where that client was heard before.
    """

    title: str
    mechanism: Mechanism
    here: Surroundings
    messages: Sequence[bytes | None]


class Seen(NamedTuple):
    """So many exchanges that ended in success, and that did not, in *seconds* of the processor."""

    right: int
    not_right: int
    seconds: float

    @property
    def rate(self) -> float:
        """Successes per second."""
        return self.right / self.seconds


def mechanisms(bench: Bench) -> list[Row]:
    """Measure each mechanism, and a first login apart where it is another thing."""
    bench.titles.setdefault(OURS.name, OURS.title)
    exchanges = users({database.LOGIN: database.PASSWORD})
    cases = [rehearsed(exchanges, *one) for one in to_measure()]
    seen: dict[str, list[Seen]] = {case.title: [] for case in cases}
    for number in range(bench.rounds):
        for case in cases:
            seen[case.title].append(measured(exchanges, case, bench.seconds * PART))
        bench.say(f"mechanisms, round {number + 1}: {len(cases)} measured")
    return _rows(seen)


def to_measure() -> Iterator[tuple[str, Mechanism]]:
    """Yield all mechanisms that can be used here, each with the title of what is measured."""
    for mechanism in registry.usable():
        if make_forgetful := _forgetful(mechanism.name):
            yield f"{mechanism.name}, first login", make_forgetful
        yield mechanism.name, mechanism


def _forgetful(name: str) -> Mechanism | None:
    """Return the mechanism as one that keeps no keys; None where it has none to keep."""
    plain = name.removesuffix(PLUS)
    if plain not in HASHES:
        return None
    make = scram.mechanism if name == plain else scram.plus_mechanism
    return make(plain.removeprefix("SCRAM-"), KeyRing(HASHES[plain], room=0))


def users(passwords: dict[str, str]) -> Exchanges:
    """Return an engine that knows these users by heart, and logs as the daemon does."""
    static = Static({name: Secret(password.encode()) for name, password in passwords.items()})
    audit, deadlines = Audit(NAMES), Deadlines(10.0, {})
    engine = Authenticator(static, NAMES, audit, deadlines)
    return Exchanges(Parts(engine, static, NAMES, audit, deadlines), registry.usable())


def rehearsed(exchanges: Exchanges, title: str, mechanism: Mechanism) -> Case:
    """Return *mechanism* with what a client says; NotMeasuredError if it is not let in with that.

    The client, too, must be content: with the server's proof, where there is one.
    """
    nonce, cnonce = random_nonce(), random_nonce()

    def made_and_replaced() -> str:
        random_nonce()
        return nonce

    here = Surroundings(
        HOST,
        Secret(random_nonce().encode()),
        nonces=made_and_replaced,
        channel_binding=CHANNEL if mechanism.need is Need.CHANNEL_BINDING else None,
        external=database.LOGIN,
    )
    client = ClientExchange(client_halves.find(mechanism.name), CREDENTIALS, lambda: cnonce)
    case = Case(title, mechanism, here, [client.initial])
    return case._replace(messages=asyncio.run(_rehearsal(exchanges, case, client)))


async def _rehearsal(
    exchanges: Exchanges, case: Case, client: ClientExchange
) -> list[bytes | None]:
    messages = [client.initial]
    exchange = exchanges.start(case.mechanism, case.here, client.initial, ORIGIN)
    said = await exchange.proceed(None)
    while isinstance(said, Challenge):
        messages.append(client.respond(said.data))
        said = await exchange.proceed(messages[-1])
    if not isinstance(said.result, Accepted):
        raise NotMeasuredError(f"{case.title}: {said.result}")
    client.finish(said.data)
    return messages


def measured(exchanges: Exchanges, case: Case, seconds: float) -> Seen:
    """Return how many exchanges there were in so many seconds of processor time, or a little more.

    They are not over before the last of them.
    """
    return asyncio.run(_measured(exchanges, case, seconds))


async def _measured(exchanges: Exchanges, case: Case, seconds: float) -> Seen:
    right = done = 0
    began = now = time.process_time()
    while now - began < seconds:
        for _ in range(AT_ONCE):
            right += await _is_let_in(exchanges, case)
        done += AT_ONCE
        now = time.process_time()
    return Seen(right, done - right, now - began)


async def _is_let_in(exchanges: Exchanges, case: Case) -> bool:
    initial, *responses = case.messages
    exchange = exchanges.start(case.mechanism, case.here, initial, ORIGIN)
    said = await exchange.proceed(None)
    for response in responses:
        said = await exchange.proceed(response)
    return isinstance(said, Finished) and isinstance(said.result, Accepted)


def _rows(seen: dict[str, list[Seen]]) -> list[Row]:
    rates = [
        Row(f"{title}: exchanges/s of one core", {OURS.name: [one.rate for one in rounds]})
        for title, rounds in seen.items()
    ]
    not_right = sum(one.not_right for rounds in seen.values() for one in rounds)
    wrong = plain_row(
        "exchanges that did not end in success", {OURS.name: [not_right]}, NONE_NOT_RIGHT, digits=0
    )
    return [*rates, wrong]
