"""Answers from a sasldb file that is kept in memory and looked at for every batch of requests."""

import asyncio
import concurrent.futures.thread  # noqa: F401 (asyncio would, when the front cannot read it any more)
import logging
import time
from collections.abc import Awaitable

from pysaslauthd.backends.base import Found, Naming
from pysaslauthd.errors import StoreCorrupt, StoreError
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Lookup,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.stores import sasldb

log = logging.getLogger(__name__)

NAME = "sasldb"
NO_SUCH_USER = Rejected(Reason.NO_SUCH_USER, NAME)
WRONG_PASSWORD = Rejected(Reason.WRONG_PASSWORD, NAME)
PROPERTY = sasldb.PASSWORD.decode()
DECOY = b"compared with where there is no such user"
HALF_WRITTEN = 2.0  # seconds: for so long a broken file is taken for one being written


class Sasldb:
    """The backend `-a sasldb`: stored passwords are plain, and compared as bytes.

    A change of the file shows with the first request after it. A file that is
    gone or broken is an outage; one that breaks while it is being written is
    answered from the last good copy for a moment.
    """

    name = NAME
    naming = Naming.PAIR
    waits = False
    uses_address = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._records: dict[bytes, bytes] = {}
        self._stamp: sasldb.Stamp | None = None
        self._problem: str | None = None
        self._looked = float("-inf")
        self._broken_since: float | None = None
        self._loading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the file before the first request; log, and go on, where that fails."""
        await self._load()
        if self._problem:
            log.error("%s", self._problem)

    def retire(self) -> None:
        """Keep the records: requests that are under way may need them."""

    async def close(self) -> None:
        """Drop the records."""
        self._records = {}

    def verify(self, request: AuthRequest, /) -> AuthResult | Awaitable[AuthResult]:
        """Return the verdict at once, unless the file has changed and must be read first."""
        if request.received > self._looked and not self._is_current():
            return self._answer_from_new(request)
        return self._answer(request)

    def fetch(self, lookup: Lookup, /) -> Found | Awaitable[Found]:
        """Return a user's password at once, unless the file has changed and must be read first."""
        if lookup.received > self._looked and not self._is_current():
            return self._find_in_new(lookup)
        return self._find(lookup)

    def _is_current(self) -> bool:
        """Look at the file; say whether what is in memory is what it holds."""
        looked = time.monotonic()
        try:
            found = sasldb.stamp(self._path)
        except StoreError as error:
            self._stamp = None
            self._problem = str(error)
        else:
            if found != self._stamp:
                return False
        self._looked = looked
        return True

    def _answer(self, request: AuthRequest) -> AuthResult:
        if self._problem is not None:
            return Unavailable(self._problem, NAME)
        stored = self._records.get(_key(request.user, request.realm))
        if stored is None:
            request.password.matches(DECOY)
            return NO_SUCH_USER
        if request.password.matches(stored):
            return Accepted(request.user, NAME)
        return WRONG_PASSWORD

    def _find(self, lookup: Lookup) -> Found:
        if self._problem is not None:
            return Unavailable(self._problem, NAME)
        stored = self._records.get(_key(lookup.user, lookup.realm))
        return NO_SUCH_USER if stored is None else Secret(stored)

    async def _answer_from_new(self, request: AuthRequest) -> AuthResult:
        await self._load_since(request.received)
        return self._answer(request)

    async def _find_in_new(self, lookup: Lookup) -> Found:
        await self._load_since(lookup.received)
        return self._find(lookup)

    async def _load_since(self, received: float) -> None:
        # A load that was under way when the request came may have missed the change.
        while received > self._looked:
            await self._load()

    async def _load(self) -> None:
        """Read the file in a thread; whoever needs it meanwhile waits for the same reading."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._read())
        await asyncio.shield(self._loading)

    async def _read(self) -> None:
        try:
            await self._read_whole()
        finally:
            # Here and not when the task is done: who asks in between would wait for
            # what has ended, which is no wait at all, and ask again for ever.
            self._loading = None

    async def _read_whole(self) -> None:
        looked, started_ns = time.monotonic(), time.time_ns()
        before = self._settled_stamp(started_ns)
        try:
            records, stamp = await asyncio.to_thread(sasldb.load_stamped, self._path)
        except StoreError as error:
            self._fail(error, before)
        else:
            if self._problem is not None:
                log.warning("%s: readable again", self._path)
            self._records = records
            self._problem = self._broken_since = None
            # A file that was changed a moment before may change again and keep its stamp.
            self._stamp = stamp if stamp.settled(started_ns) else None
        self._looked = looked

    def _settled_stamp(self, now_ns: int) -> sasldb.Stamp | None:
        try:
            found = sasldb.stamp(self._path)
        except StoreError:
            return None
        return found if found.settled(now_ns) else None

    def _fail(self, error: StoreError, before: sasldb.Stamp | None) -> None:
        """Remember the problem; a corrupt file by its identity *before* the reading that found it.

        Any other problem may be gone with the next request.
        """
        self._stamp = before if isinstance(error, StoreCorrupt) else None
        served = self._problem is None and bool(self._records)
        if served and isinstance(error, StoreCorrupt) and self._is_being_written():
            self._stamp = None  # answer from the last good copy, and look again next time
        else:
            self._problem = str(error)

    def _is_being_written(self) -> bool:
        now = time.monotonic()
        if self._broken_since is None:
            self._broken_since = now
        return now - self._broken_since < HALF_WRITTEN


def _key(user: str, realm: str) -> bytes:
    """Return what `sasldb.key` does, at once from text: it is asked for with each request."""
    return f"{user}\0{realm}\0{PROPERTY}".encode()
