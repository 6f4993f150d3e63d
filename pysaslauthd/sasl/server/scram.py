"""SCRAM (RFC 5802, 7677) seen from the server.

The password is asked for last: until then nothing depends on who has one, and a client
that stays away costs no question. A failure is not told as `e=`: the protocol around
says it at once, and the RFC's words for it would tell which names there are.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, Unavailable
from pysaslauthd.sasl.prep import NotPreparable, prepare_query
from pysaslauthd.sasl.scram import (
    NONCE,
    SHA_1,
    SHA_256,
    SHA_512,
    decode_base64,
    encode_base64,
    parse_attributes,
    unescape,
)
from pysaslauthd.sasl.server.mechanism import (
    ChannelBinding,
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    fetch,
    first_message,
    say,
)
from pysaslauthd.sasl.server.scram_keys import ITERATIONS, KeyRing, Proof
from pysaslauthd.sasl.server.text import name

CLIENT_FIRST = re.compile(rb"((n|y|p=[A-Za-z0-9.-]+),(a=[^,]+)?,)(.*)", re.DOTALL)
LETTERS_OF_FINAL = re.compile("cr[^p]*p")


class ClientFirst(NamedTuple):
    """What the client says first; *header* is the gs2-header, *bare* what follows it."""

    header: bytes
    flag: bytes
    authzid: str
    authcid: str
    nonce: str
    bare: bytes


class ClientFinal(NamedTuple):
    """What the client says last; *binding* is what `c=` stands for."""

    binding: bytes
    nonce: str
    without_proof: bytes
    proof: bytes


Binds = Callable[[bytes, ChannelBinding | None], bytes]
"""Returns the data to be bound to, with a client's flag, on such a channel."""


def script(
    keys: KeyRing, binds: Binds, surroundings: Surroundings, initial: bytes | None
) -> Script:
    first = parse_client_first((yield from first_message(initial)))
    binding = first.header + binds(first.flag, surroundings.channel_binding)
    nonce = first.nonce + surroundings.nonces()
    salt = encode_base64(keys.salt(surroundings.key, first.authcid))
    server_first = f"r={nonce},s={salt},i={ITERATIONS}".encode()

    final = parse_client_final((yield from say(server_first)))
    if final.binding != binding:
        raise MalformedMessage("SCRAM: c= is not the gs2-header and the channel binding")
    if final.nonce != nonce:
        raise MalformedMessage("SCRAM: the nonce is not the server's")

    stored = yield from fetch(first.authcid)
    if isinstance(stored, Unavailable):
        return Finished(stored, first.authcid, first.authzid)
    proof = Proof(final.proof, b",".join([first.bare, server_first, final.without_proof]))
    signature = yield from keys.signature(surroundings.key, first.authcid, stored.password, proof)
    verdict = stored.verdict(is_proven=signature is not None)
    if signature is None or not isinstance(verdict, Accepted):
        return Finished(verdict, first.authcid, first.authzid)
    server_final = f"v={encode_base64(signature)}".encode()
    return Finished(verdict, first.authcid, first.authzid, server_final)


def without_plus(flag: bytes, channel: ChannelBinding | None) -> bytes:
    """Return no data, unless the client wants some, or was kept from wanting some.

    `y` is said by who could bind, but sees no -PLUS mechanism: where one is
    offered, somebody has taken it out of the offer (RFC 5802 section 6).
    """
    if flag.startswith(b"p"):
        raise MalformedMessage("SCRAM: channel binding without a -PLUS mechanism")
    if flag == b"y" and channel is not None:
        raise MalformedMessage("SCRAM: the client was not shown the -PLUS mechanism")
    return b""


def with_plus(flag: bytes, channel: ChannelBinding | None) -> bytes:
    """Return the data of *channel*, if the client wants to be bound to that."""
    if channel is None:
        raise MalformedMessage("SCRAM: there is no channel to bind to")
    if flag != f"p={channel.type}".encode():
        raise MalformedMessage("SCRAM: the client does not bind to this channel")
    return channel.data


def parse_client_first(message: bytes) -> ClientFirst:
    """Return what *message* says; extensions are ignored."""
    found = CLIENT_FIRST.fullmatch(message)
    if not found:
        raise MalformedMessage("SCRAM: the client's first message has no gs2-header")
    header, flag, attribute, bare = found.groups()
    attributes = parse_attributes(bare)
    if "".join(letter for letter, _ in attributes[:2]) != "nr":
        raise MalformedMessage("SCRAM: the client's first message is not n=, r=")
    saslname, nonce = (value for _, value in attributes[:2])
    if not NONCE.fullmatch(nonce):
        raise MalformedMessage("SCRAM: the client's nonce is not printable")
    as_sent = name(unescape(saslname).encode(), "authcid")
    authcid, authzid = prepared(as_sent), parse_authzid(attribute)
    # libsasl's clients say twice who they are, and prepare neither: it is still one name.
    return ClientFirst(
        *(header, flag, authcid if authzid == as_sent else authzid, authcid, nonce, bare)
    )


def parse_authzid(attribute: bytes | None) -> str:
    """Return the name in `a=`; "" where there is none."""
    if attribute is None:
        return ""
    ((_, saslname),) = parse_attributes(attribute)
    return name(unescape(saslname).encode(), "authzid")


def prepared(authcid: str) -> str:
    """Return the name that users are looked for by: a query (RFC 5802 section 5.1)."""
    try:
        query = prepare_query(authcid)
    except NotPreparable as error:
        raise MalformedMessage(f"SCRAM: the authcid {error}") from None
    if not query:
        raise MalformedMessage("SCRAM: SASLprep leaves nothing of the authcid")
    return query


def parse_client_final(message: bytes) -> ClientFinal:
    """Return what *message* says; extensions are ignored, but proved."""
    attributes = parse_attributes(message)
    letters = "".join(letter for letter, _ in attributes)
    if not LETTERS_OF_FINAL.fullmatch(letters):
        raise MalformedMessage("SCRAM: the client's last message is not c=, r=, p=")
    binding, nonce, *_, proof = (value for _, value in attributes)
    without_proof, _, _ = message.rpartition(b",")
    return ClientFinal(decode_base64(binding), nonce, without_proof, decode_base64(proof))


TRAITS = Traits(mutual_auth=True)
OF_SHA_1, OF_SHA_256, OF_SHA_512 = map(KeyRing, (SHA_1, SHA_256, SHA_512))


def mechanism(digest: str, keys: KeyRing) -> Mechanism:
    """Return SCRAM-*digest* with these *keys*."""
    start = partial(script, keys, without_plus)
    return Mechanism(f"SCRAM-{digest}", Need.STORED_PASSWORD, TRAITS, start)


def plus_mechanism(digest: str, keys: KeyRing) -> Mechanism:
    """Return SCRAM-*digest*-PLUS with these *keys*."""
    start = partial(script, keys, with_plus)
    return Mechanism(f"SCRAM-{digest}-PLUS", Need.CHANNEL_BINDING, TRAITS, start)


SCRAM_SHA_1 = mechanism("SHA-1", OF_SHA_1)
SCRAM_SHA_1_PLUS = plus_mechanism("SHA-1", OF_SHA_1)
SCRAM_SHA_256 = mechanism("SHA-256", OF_SHA_256)
SCRAM_SHA_256_PLUS = plus_mechanism("SHA-256", OF_SHA_256)
SCRAM_SHA_512 = mechanism("SHA-512", OF_SHA_512)
SCRAM_SHA_512_PLUS = plus_mechanism("SHA-512", OF_SHA_512)
