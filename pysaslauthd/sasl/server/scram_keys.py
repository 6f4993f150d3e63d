"""What a SCRAM server that has the passwords themselves makes of them, and remembers of that."""

import hmac
from collections import OrderedDict
from collections.abc import Callable, Generator
from functools import partial
from typing import NamedTuple, TypeAlias

from pysaslauthd.model import Secret
from pysaslauthd.sasl.prep import prepare_stored
from pysaslauthd.sasl.scram import Scram, exclusive_or
from pysaslauthd.sasl.server.mechanism import Answer, Step, compute

# What RFC 7677 section 4 wants at least, Cyrus and Dovecot have, and every client takes. They
# make it dear to try passwords on what was overheard, and on stolen keys; but here none are
# kept in a file, and every try at logging in costs us the same.
ITERATIONS = 4096
SALT_BYTES = 16  # as a random one has elsewhere; no two names have the same
REMEMBERED = 4096  # users: about two megabytes

Salts: TypeAlias = Callable[[Secret, str], bytes]
"""Returns the salt for a name: with one key always the same, whether anybody has it or not."""


class Proof(NamedTuple):
    """A client's proof, and the messages that it is about."""

    value: bytes
    auth_message: bytes


class Keys(NamedTuple):
    """StoredKey and ServerKey (RFC 5802 section 3)."""

    stored: bytes
    server: bytes


class KeyRing:
    """Checks proofs with one hash function; remembers the keys of who has proven a password.

    Making keys takes a millisecond or more, and whoever logs in again is spared it. A
    wrong proof is not: it takes as long for a name that has just logged in as for one
    that nobody has, and cannot push anybody's keys out.
    """

    def __init__(self, scram: Scram, salts: Salts | None = None, room: int = REMEMBERED) -> None:
        self.scram = scram
        self.salt = salts or self._derived_salt
        self._room = room
        self._proven: OrderedDict[bytes, Keys] = OrderedDict()

    def signature(
        self, key: Secret, name: str, password: Secret, proof: Proof
    ) -> Generator[Step, Answer, bytes | None]:
        """Return ServerSignature if *proof* is of *name*'s *password*; None if it is not."""
        salt = self.salt(key, name)
        # The salt stands for the name, the hash function and the key; its length is fixed.
        tag = hmac.digest(key.reveal(), b"SCRAM keys\0" + salt + password.reveal(), "sha256")
        known = self._proven.get(tag)
        if known and self._is_by(known, proof):
            self._remember(tag, known)
            return self.scram.signature(known.server, proof.auth_message)
        made = self._keys((yield from compute(partial(self._salted, password, salt))))
        if not self._is_by(made, proof):
            return None
        self._remember(tag, made)
        return self.scram.signature(made.server, proof.auth_message)

    def _derived_salt(self, key: Secret, name: str) -> bytes:
        message = f"SCRAM salt\0{self.scram.digest}\0{name}".encode()
        return hmac.digest(key.reveal(), message, "sha256")[:SALT_BYTES]

    def _salted(self, password: Secret, salt: bytes) -> bytes:
        return self.scram.salted_password(hashed_form(password.reveal()), salt, ITERATIONS)

    def _keys(self, salted: bytes) -> Keys:
        stored = self.scram.stored_key(self.scram.client_key(salted))
        return Keys(stored, self.scram.server_key(salted))

    def _is_by(self, keys: Keys, proof: Proof) -> bool:
        signature = self.scram.signature(keys.stored, proof.auth_message)
        if len(proof.value) != len(signature):
            return False
        client_key = exclusive_or(proof.value, signature)
        return hmac.compare_digest(self.scram.stored_key(client_key), keys.stored)

    def _remember(self, tag: bytes, keys: Keys) -> None:
        self._proven.pop(tag, None)  # the latest is the last
        self._proven[tag] = keys
        while len(self._proven) > self._room:
            self._proven.popitem(last=False)


def hashed_form(password: bytes) -> bytes:
    """Return *password* as it enters the hash: prepared, or as it is where that cannot be.

    So a client that cannot prepare it either, and sends it all the same, gets in.
    Nor is nothing left of it: an empty password would do.
    """
    try:
        return prepare_stored(password.decode()).encode() or password
    except ValueError:  # not UTF-8, or NotPreparable
        return password
