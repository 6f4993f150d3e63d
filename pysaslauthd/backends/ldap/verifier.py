"""The backend `-a ldap`: the servers in turn, one method, and the group that users must be in."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from pysaslauthd.backends.base import Naming
from pysaslauthd.backends.ldap.connection import ServerFailed
from pysaslauthd.backends.ldap.lookup import GroupAttribute, GroupFilter
from pysaslauthd.backends.ldap.methods import Method
from pysaslauthd.backends.ldap.server import Server
from pysaslauthd.backends.ldap.templates import Subject
from pysaslauthd.backends.ldap.verdicts import NAME, CannotTell
from pysaslauthd.errors import CannotCheck
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable
from pysaslauthd.workers.hashes import HashWorkers
from pysaslauthd.workers.questions import WorkerLost

GREETING = 0.5  # seconds for servers to be there before the first request is waited for
NO_MEMBER = Rejected(Reason.DENIED, NAME, detail="not a member of the group")


class Rules(NamedTuple):
    """How users are told: *default_realm* is that of requests without one."""

    method: Method
    group: GroupAttribute | GroupFilter | None
    default_realm: str


class Ldap:
    """Asks the first of *servers* that answers. *hashes*: where the method compares by itself."""

    name = NAME
    naming = Naming.BOTH
    waits = True
    uses_address = False

    def __init__(
        self, servers: Sequence[Server], rules: Rules, hashes: HashWorkers | None = None
    ) -> None:
        self._servers = servers
        self._rules = rules
        self._hashes = hashes
        self._greetings: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect to the servers, in good time for the first request; log what fails."""
        if self._hashes is not None:
            self._hashes.open()
        self._greetings = [asyncio.create_task(server.greet()) for server in self._servers]
        await asyncio.wait(self._greetings, timeout=GREETING)

    def retire(self) -> None:
        """Keep the connections, which requests that are under way need; no idle workers."""
        if self._hashes is not None:
            self._hashes.retire()

    async def close(self) -> None:
        """Close all connections."""
        for server in self._servers:
            await server.close()
        if self._hashes is not None:
            self._hashes.close()

    async def verify(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict of a server; Unavailable where none has one."""
        if not request.password.reveal():  # which servers take for a request to be nobody
            return Rejected(Reason.WRONG_PASSWORD, NAME, detail="an empty password")
        problems = []
        for server in self._servers:
            if server.problem:
                problems.append(server.problem)
                continue
            try:
                return await self._ask(server, request)
            except ServerFailed as error:
                problems.append(str(error))
            except (CannotTell, CannotCheck, WorkerLost) as error:
                return Unavailable(str(error), NAME)
            except asyncio.CancelledError as error:
                error.add_note(f"while waiting for {server.name}")
                raise
        return Unavailable("; ".join(problems), NAME)

    async def _ask(self, server: Server, request: AuthRequest) -> AuthResult:
        realm = request.realm or self._rules.default_realm
        subject = Subject(request.user, request.origin.service, realm)
        found = await self._rules.method.check(server, subject, request.password)
        if isinstance(found, Rejected):
            return found
        group = self._rules.group
        if group is not None and not await group.has(server, subject._replace(dn=found)):
            return NO_MEMBER
        return Accepted(request.user, NAME)
