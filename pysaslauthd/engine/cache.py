"""Good answers of a backend, remembered for a while: the C daemon's credential cache (`-c`).

A table of fixed size, in memory only. It holds neither names nor passwords, but digests
under a key that is made with it. Facts: protocols/saslauthd-cli.md section 5.
"""

import hmac
import math
import secrets
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import sha256
from itertools import count
from typing import NamedTuple

from pysaslauthd.model import AuthRequest, Reason

DEFAULT_SLOTS = 1711
BUCKETS_PER_SLOT = 6
C_SLOT_BYTES = 576  # of the C daemon's table, whose size is what `-s` sets

INNER = bytes(byte ^ 0x36 for byte in range(256))
OUTER = bytes(byte ^ 0x5C for byte in range(256))
NO_SERVICE = bytes(8)  # instead of a service's tag: the user has been refused
LENGTHS = struct.Struct("=QQ")
TAGS = struct.Struct("=q8s")
ANSWER = struct.Struct("=d32s")
BUCKET = struct.Struct("=q8sd32s")
SLOT_BYTES = BUCKETS_PER_SLOT * BUCKET.size


class Bucket(NamedTuple):
    """One good answer: for whom, for which service, to a question of which moment, with what."""

    account: int
    service: bytes
    asked: float
    digest: bytes


class Cache:
    """Remembers who was let in with what; for *seconds* from the question, hits or no hits.

    *kilobytes* is what `-s` says: there is room for as many users as in a C
    daemon's table of that size, in fewer bytes. None: for 10,266, its default.
    Where a slot is full, its oldest answer is forgotten.
    """

    __slots__ = ("_mac", "_seconds", "_service_tag", "_slots", "_table")

    def __init__(self, kilobytes: int | None, seconds: float) -> None:
        self._mac = keyed_hmac(secrets.token_bytes(32))
        self._seconds = seconds
        # Services are few, and making the tag anew would cost half as much again as a hit.
        self._service_tag = lru_cache(maxsize=256)(partial(service_tag, secrets.token_bytes(32)))
        self._slots = DEFAULT_SLOTS if kilobytes is None else slots_of(kilobytes)
        self._table = bytearray(SLOT_BYTES * self._slots)

    def holds(self, request: AuthRequest) -> bool:
        """Say whether a backend has lately said yes to the same user, realm, service and password.

        Lately is by `request.received`. No says nothing about the password.
        """
        account = encoded_account(request)
        account_tag = hash(account)
        start = account_tag % self._slots * SLOT_BYTES
        tags = TAGS.pack(account_tag, self._service_tag(request.origin.service))
        place = self._table.find(tags, start, start + SLOT_BYTES)
        if place < 0 or (place - start) % BUCKET.size:
            return False
        asked, digest = ANSWER.unpack_from(self._table, place + TAGS.size)
        return asked > request.received - self._seconds and hmac.compare_digest(
            digest, self._digest(account, request)
        )

    def accepted(self, request: AuthRequest) -> None:
        """Remember that the backend said yes; forget the user's other passwords, for all services.

        The age counts from `request.received`: what the backend looked up is no
        older. A yes that comes after news of a later question is old, and forgotten.
        """
        account = encoded_account(request)
        service = self._service_tag(request.origin.service)
        new = Bucket(hash(account), service, request.received, self._digest(account, request))
        if any(is_later_news(bucket, new) for bucket in self._slot(new.account)):
            return
        others = [
            bucket
            for bucket in self._slot(new.account)
            if bucket.account != new.account
            or (bucket.service != service and hmac.compare_digest(bucket.digest, new.digest))
        ]
        self._fill(new.account, [new, *others])

    def refused(self, request: AuthRequest, reason: Reason) -> None:
        """Forget all of the user's answers, for all services, if this refusal makes them doubtful.

        A wrong password does if it is one that was good: otherwise anybody
        could empty the cache. Any other reason does, also where it concerns one
        service only: forgetting costs the backend a question, and no more.
        """
        account = encoded_account(request)
        account_tag = hash(account)
        digest = self._digest(account, request)
        slot = self._slot(account_tag)
        was_good = any(hmac.compare_digest(bucket.digest, digest) for bucket in slot)
        others = [bucket for bucket in slot if bucket.account != account_tag]
        if len(others) < len(slot) and (was_good or reason is not Reason.WRONG_PASSWORD):
            mark = Bucket(account_tag, NO_SERVICE, request.received, bytes(sha256().digest_size))
            self._fill(account_tag, [mark, *others])

    def _digest(self, account: bytes, request: AuthRequest) -> bytes:
        return self._mac(account + request.password.reveal())

    def _slot(self, account_tag: int) -> list[Bucket]:
        """Return the slot of an account: the latest answer first, empty buckets last."""
        start = account_tag % self._slots * SLOT_BYTES
        slot = self._table[start : start + SLOT_BYTES]
        return [Bucket._make(fields) for fields in BUCKET.iter_unpack(slot)]

    def _fill(self, account_tag: int, buckets: list[Bucket]) -> None:
        """Have the slot of an account hold the first six of *buckets*, and nothing else."""
        start = account_tag % self._slots * SLOT_BYTES
        packed = b"".join(BUCKET.pack(*bucket) for bucket in buckets[:BUCKETS_PER_SLOT])
        self._table[start : start + SLOT_BYTES] = packed.ljust(SLOT_BYTES, b"\0")


def is_later_news(bucket: Bucket, new: Bucket) -> bool:
    """Say whether *bucket* tells of another password, or of a refusal, later than *new*."""
    return (
        bucket.account == new.account
        and bucket.asked > new.asked
        and not hmac.compare_digest(bucket.digest, new.digest)
    )


def keyed_hmac(key: bytes) -> Callable[[bytes], bytes]:
    """Return what computes HMAC-SHA-256 (RFC 2104) under *key*, of 64 bytes at most.

    With the key's two blocks made once it takes half as long as `hmac.digest`,
    which is most of a hit.
    """
    block = key.ljust(sha256().block_size, b"\0")
    inner, outer = block.translate(INNER), block.translate(OUTER)
    return lambda message: sha256(outer + sha256(inner + message).digest()).digest()


def encoded_account(request: AuthRequest) -> bytes:
    """Return user and realm as bytes that are no other pair's, whatever follows them.

    Their hash finds the slot and the bucket. Where two pairs share it, each may
    push the other out, but the digest lets neither in as the other.
    """
    user, realm = request.user.encode(), request.realm.encode()
    return LENGTHS.pack(len(user), len(realm)) + user + realm


def service_tag(key: bytes, service: str) -> bytes:
    """Return eight bytes that tell *service* from any other.

    Nothing else in a bucket does, so they are a MAC: `hash` would be no
    stronger than PYTHONHASHSEED, and is the same for `smtp` and U+6D73 U+7074.
    """
    return hmac.digest(key, service.encode(), "sha256")[:8]


def slots_of(kilobytes: int) -> int:
    """Return how many slots a C daemon's table has with `-s` *kilobytes* (1 or more).

    The smallest odd prime that makes the table larger than that.
    """
    least = kilobytes * 1024 // C_SLOT_BYTES + 1
    return next(n for n in count(least | 1, 2) if is_odd_prime(n))


def is_odd_prime(odd: int) -> bool:
    """Say whether *odd*, 3 or more, is a prime."""
    return all(odd % divisor for divisor in range(3, math.isqrt(odd) + 1, 2))
