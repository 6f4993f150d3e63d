"""The dialogues of tests/vectors/sasl as our server has them, and what clients say wrongly.

An item of bad-clients.json is *like* a good dialogue, but the client's message number *at*,
from 0 on, is another, and must be refused with *error*. In it, NONCE stands for the nonce
that the good message has.
"""

import base64
import json
import os
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pysaslauthd.sasl.scram import SHA_1, SHA_256, SHA_512
from pysaslauthd.sasl.server.mechanism import Mechanism, Surroundings
from pysaslauthd.sasl.server.registry import find
from pysaslauthd.sasl.server.scram import script, without_plus
from pysaslauthd.sasl.server.scram_keys import KeyRing
from tests.helpers.sasl_dialogues import VECTORS, Dialogue, good
from tests.helpers.sasl_own_server import HERE, OwnServer

HASHES = {"SCRAM-SHA-1": SHA_1, "SCRAM-SHA-256": SHA_256, "SCRAM-SHA-512": SHA_512}


class ClientFault(NamedTuple):
    """A client's message that must be refused with *error*, in place of the good one."""

    name: str
    dialogue: Dialogue
    at: int
    client: bytes
    error: str


def bad_clients() -> list[ClientFault]:
    """Return the faults of bad-clients.json."""
    by_name = {dialogue.name: dialogue for dialogue in good()}
    items = json.loads((VECTORS / "bad-clients.json").read_text())
    return [
        ClientFault(
            *(item["name"], by_name[item["like"]], item["at"]),
            *(with_nonce(os.fsencode(item["client"]), by_name[item["like"]]), item["error"]),
        )
        for item in items
    ]


def with_nonce(message: bytes, dialogue: Dialogue) -> bytes:
    """Return *message* with the dialogue's nonce for NONCE."""
    if b"NONCE" not in message:
        return message
    return message.replace(b"NONCE", found('(?:nonce="|r=)([^",]+)', dialogue.server[0]).encode())


def server_of(dialogue: Dialogue) -> OwnServer:
    """Return a server that makes the dialogue's nonces and knows its user."""
    credentials = dialogue.credentials
    password = credentials.password.reveal() if credentials.password else b""
    return OwnServer(
        {credentials.authcid: os.fsdecode(password)},
        MAKERS.get(dialogue.mechanism, of_scram)(dialogue),
    )


def mechanism_of(dialogue: Dialogue) -> Mechanism:
    """Return the dialogue's mechanism, with its salt if it has one."""
    mechanism = find(dialogue.mechanism)
    assert mechanism is not None
    scram = HASHES.get(dialogue.mechanism)
    if scram is None:
        return mechanism
    salt = base64.b64decode(found(",s=([^,]+)", dialogue.server[0]))
    keys = KeyRing(scram, lambda _key, _name: salt)
    return mechanism._replace(start=partial(script, keys, without_plus))


def of_password(_dialogue: Dialogue) -> Surroundings:
    """Return surroundings of no consequence."""
    return HERE


def of_external(_dialogue: Dialogue) -> Surroundings:
    """Return where a client has a certificate."""
    return HERE._replace(external="joe")


def of_cram_md5(dialogue: Dialogue) -> Surroundings:
    """Return where the challenge is made of the dialogue's nonce and host."""
    nonce, host = dialogue.server[0].decode()[1:-1].split("@")
    return HERE._replace(host=host, nonces=lambda: nonce)


def of_digest_md5(dialogue: Dialogue) -> Surroundings:
    """Return where the challenge has the dialogue's nonce and realm."""
    nonce = found('nonce="([^"]+)', dialogue.server[0])
    realm = found('realm="([^"]+)', dialogue.server[0])
    service = dialogue.credentials.service
    return HERE._replace(service=service, realm=realm, nonces=lambda: nonce)


def of_scram(dialogue: Dialogue) -> Surroundings:
    """Return where the server's part of the nonce is the dialogue's."""
    nonce = found("r=([^,]+)", dialogue.server[0]).removeprefix(dialogue.nonce)
    return HERE._replace(nonces=lambda: nonce)


def found(pattern: str, message: bytes) -> str:
    """Return what of *message* the group in *pattern* is."""
    match = re.search(pattern, message.decode())
    assert match is not None
    return match[1]


MAKERS: dict[str, Callable[[Dialogue], Surroundings]] = {
    "EXTERNAL": of_external,
    "PLAIN": of_password,
    "CRAM-MD5": of_cram_md5,
    "DIGEST-MD5": of_digest_md5,
}
