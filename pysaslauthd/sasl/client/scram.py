"""SCRAM (RFC 5802, 7677) seen from the client, without channel binding (the -PLUS names)."""

import hmac
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.client.credentials import (
    Credentials,
    UnusableCredentials,
    optional_name,
    password_bytes,
    required_name,
)
from pysaslauthd.sasl.client.exchange import (
    Mechanism,
    Script,
    ServerNotGenuine,
    ServerRefused,
)
from pysaslauthd.sasl.nonces import Nonces
from pysaslauthd.sasl.prep import NotPreparable, prepare_query, prepare_stored
from pysaslauthd.sasl.scram import (
    NONCE,
    SHA_1,
    SHA_256,
    SHA_512,
    Scram,
    decode_base64,
    encode_base64,
    escape,
    exclusive_or,
    parse_attributes,
)

# The fewer, the faster can passwords be tried on what was said; a false server would
# ask for one. No real one has a reason for less than this (RFC 7677 section 4).
LEAST_ITERATIONS = 4096
# The more, the longer we are at work; a false server would ask for all there are. So
# many take half a second with SHA-512; OWASP's advice for SHA-256 is 600,000.
MOST_ITERATIONS = 1_000_000

COUNT = re.compile("[1-9][0-9]*")
ERRORS = {  # RFC 5802 section 7
    "invalid-encoding",
    "extensions-not-supported",
    "invalid-proof",
    "channel-bindings-dont-match",
    "server-does-support-channel-binding",
    "channel-binding-not-supported",
    "unsupported-channel-binding-type",
    "unknown-user",
    "invalid-username-encoding",
    "no-resources",
}


class ServerFirst(NamedTuple):
    """What the server says first; *nonce* is both halves' together."""

    nonce: str
    salt: bytes
    iterations: int


def script(scram: Scram, credentials: Credentials, nonces: Nonces) -> Script:
    username = prepared_username(credentials)
    password = prepared_password(credentials)
    gs2_header = channel_binding_and_authzid(credentials)
    cnonce = nonces()
    client_first_bare = f"n={escape(username)},r={cnonce}"

    server_first_message = yield f"{gs2_header}{client_first_bare}".encode()
    server_first = parse_server_first(server_first_message, cnonce)

    salted_password = scram.salted_password(password, server_first.salt, server_first.iterations)
    without_proof = f"c={encode_base64(gs2_header.encode())},r={server_first.nonce}".encode()
    auth_message = b",".join([client_first_bare.encode(), server_first_message, without_proof])
    client_key = scram.client_key(salted_password)
    client_signature = scram.signature(scram.stored_key(client_key), auth_message)
    proof = encode_base64(exclusive_or(client_key, client_signature))

    server_final_message = yield b"%b,p=%b" % (without_proof, proof.encode())
    server_signature = scram.signature(scram.server_key(salted_password), auth_message)
    check_server_final(server_final_message, server_signature)
    return b""


def prepared_username(credentials: Credentials) -> str:
    """Return the authcid as it is sent: a query (RFC 5802 section 5.1)."""
    return prepared(required_name(credentials.authcid, "authcid"), "authcid", prepare_query)


def prepared_password(credentials: Credentials) -> bytes:
    """Return what is hashed: a stored string (RFC 5802 section 2.2)."""
    try:
        password = password_bytes(credentials).decode()
    except UnicodeDecodeError:
        raise UnusableCredentials("the password is not UTF-8") from None
    return prepared(password, "password", prepare_stored).encode()


def prepared(text: str, what: str, prepare: Callable[[str], str]) -> str:
    """Return *text* as *prepare* has it, if that is not nothing."""
    try:
        found = prepare(text)
    except NotPreparable as error:
        raise UnusableCredentials(f"the {what} {error}") from None
    if not found:
        raise UnusableCredentials(f"SASLprep leaves nothing of the {what}")
    return found


def channel_binding_and_authzid(credentials: Credentials) -> str:
    """Return the gs2-header, which says that we know of no channel binding."""
    authzid = optional_name(credentials.authzid, "authzid")
    return f"n,a={escape(authzid)}," if authzid else "n,,"


def parse_server_first(message: bytes, cnonce: str) -> ServerFirst:
    """Return what *message* says, if it answers *cnonce*; extensions are ignored."""
    letters, values = zip(*server_attributes(message), strict=True)
    if letters[:3] != ("r", "s", "i"):
        raise MalformedMessage("SCRAM: the server's first message is not r=, s=, i=")
    nonce, salt, count = values[:3]
    if not (nonce.startswith(cnonce) and len(nonce) > len(cnonce) and NONCE.fullmatch(nonce)):
        raise MalformedMessage("SCRAM: the server's nonce does not continue the client's")
    return ServerFirst(nonce, decode_base64(salt), bounded_count(count))


def bounded_count(text: str) -> int:
    """Return the iteration count that *text* says."""
    if not COUNT.fullmatch(text):
        raise MalformedMessage("SCRAM: an iteration count that is no number")
    iterations = int(text)
    if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
        bounds = f"{LEAST_ITERATIONS} to {MOST_ITERATIONS}"
        raise MalformedMessage(f"SCRAM: an iteration count that is not from {bounds}")
    return iterations


def check_server_final(message: bytes, signature: bytes) -> None:
    """Return if *message* is the server's *signature*; extensions are ignored."""
    letter, value = server_attributes(message)[0]
    if letter != "v":
        raise MalformedMessage("SCRAM: the server's last message is not v=")
    # As text, so that no other spelling of the same bytes passes.
    if not hmac.compare_digest(value.encode(), encode_base64(signature).encode()):
        raise ServerNotGenuine("SCRAM: the server's signature is wrong")


def server_attributes(message: bytes) -> list[tuple[str, str]]:
    """Return the attributes of *message*, one at least, unless it is an error."""
    attributes = parse_attributes(message)
    letter, value = attributes[0]
    if letter == "e":
        raise ServerRefused(value if value in ERRORS else "other-error")
    return attributes


SCRAM_SHA_1 = Mechanism("SCRAM-SHA-1", partial(script, SHA_1))
SCRAM_SHA_256 = Mechanism("SCRAM-SHA-256", partial(script, SHA_256))
SCRAM_SHA_512 = Mechanism("SCRAM-SHA-512", partial(script, SHA_512))
