"""What clients and servers say to each other in tests/vectors/sasl, good and bad.

In good.json each line begins with its speaker, C or S. An item of bad.json is *like* a
good one, but *after* so many messages the server says something that must be refused.
Surrogate escapes stand for bytes that are no UTF-8.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import ClientExchange, Credentials, find

VECTORS = Path(__file__).parents[1] / "vectors" / "sasl"
NAMES = ("authcid", "authzid", "realm", "service", "host")


class Dialogue(NamedTuple):
    """A whole exchange, as it must go. *client* begins with None where the server does."""

    name: str
    mechanism: str
    credentials: Credentials
    nonce: str
    client: list[bytes | None]
    server: list[bytes]

    def exchange(self, after: int = 0) -> ClientExchange:
        """Return our side of it, *after* so many messages of the server."""
        exchange = ClientExchange(find(self.mechanism), self.credentials, lambda: self.nonce)
        for challenge in self.server[:after]:
            exchange.respond(challenge)
        return exchange

    @property
    def is_mutual(self) -> bool:
        """Whether the server proves that it knows the password."""
        return self.mechanism.startswith(("SCRAM", "DIGEST"))


class Fault(NamedTuple):
    """A server's message that must be refused with *error*, in place of the good one."""

    name: str
    dialogue: Dialogue
    after: int
    server: bytes
    error: str


def good() -> list[Dialogue]:
    """Return the dialogues of good.json."""
    return [_dialogue(item) for item in json.loads((VECTORS / "good.json").read_text())]


def bad() -> list[Fault]:
    """Return the faults of bad.json."""
    by_name = {dialogue.name: dialogue for dialogue in good()}
    items = json.loads((VECTORS / "bad.json").read_text())
    return [
        Fault(
            *(item["name"], by_name[item["like"]], item["after"]),
            *(os.fsencode(item["server"]), item["error"]),
        )
        for item in items
    ]


def _dialogue(item: dict[str, Any]) -> Dialogue:
    names = {name: item[name] for name in NAMES if name in item}
    password = os.fsencode(item.get("password", ""))
    lines = [os.fsencode(line) for line in item["said"]]
    client: list[bytes | None] = [None] if lines[0].startswith(b"S") else []
    client += [line[3:] for line in lines if line.startswith(b"C: ")]
    return Dialogue(
        item["name"],
        item["mechanism"],
        Credentials(password=Secret(password), **names),
        item.get("nonce", ""),
        client,
        [line[3:] for line in lines if line.startswith(b"S: ")],
    )
