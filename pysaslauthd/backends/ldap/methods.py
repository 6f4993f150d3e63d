"""The ways to check a password against a directory: bind, fastbind, custom.

Each returns the name of the user's entry, or a refusal. They raise ServerFailed
where another server may know, CannotTell where none will; custom, which compares
by itself, CannotCheck and WorkerLost too.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from pysaslauthd.backends.ldap.connection import Connection
from pysaslauthd.backends.ldap.lookup import Search, find_entry
from pysaslauthd.backends.ldap.server import Server
from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.backends.ldap.verdicts import NAME, CannotTell, refusal
from pysaslauthd.model import Reason, Rejected, Secret
from pysaslauthd.wire import ldap

Fits = Callable[[Secret, Sequence[bytes], str], Awaitable[bool]]
"""Says whether a password fits one of some stored values; the text is the service."""


class Method(Protocol):
    """One of the ways."""

    async def check(self, server: Server, subject: Subject, password: Secret) -> bytes | Rejected:
        """Return the name of the entry whose password it is."""
        ...


class Bind(NamedTuple):
    """The entry is searched for, and the password is right if it lets us become that entry."""

    search: Search

    async def check(self, server: Server, subject: Subject, password: Secret) -> bytes | Rejected:
        """Return the name of the entry whose password it is."""
        entry = await find_entry(self.search, server, subject)
        if isinstance(entry, Rejected):
            return entry
        return await become(server, entry.dn, password)


class Fastbind(NamedTuple):
    """The entry's name follows from the user's."""

    name: Template

    async def check(self, server: Server, subject: Subject, password: Secret) -> bytes | Rejected:
        """Return the name of the entry whose password it is."""
        dn = self.name.as_dn(subject)
        if not dn.strip():  # nobody's name, which any password fits
            return Rejected(Reason.NO_SUCH_USER, NAME, detail="ldap_filter makes no name of it")
        return await become(server, dn, password)


class Custom(NamedTuple):
    """The service may read passwords, or hashes of them, and compares by itself."""

    search: Search
    attribute: bytes
    fits: Fits

    async def check(self, server: Server, subject: Subject, password: Secret) -> bytes | Rejected:
        """Return the name of the entry whose password it is."""
        entry = await find_entry(self.search, server, subject)
        if isinstance(entry, Rejected):
            return entry
        stored = entry.attributes.get(self.attribute.lower())
        if not stored:
            raise CannotTell(
                f"{server.name}: the entry shows no {self.attribute.decode()}: it has none, or the"
                " service may not read it (ldap_bind_dn)"
            )
        if not await self.fits(password, stored, subject.service):
            return Rejected(Reason.WRONG_PASSWORD, NAME, detail="wrong password")
        return entry.dn


async def become(server: Server, dn: bytes, password: Secret) -> bytes | Rejected:
    """Return *dn* if *password* is that entry's."""
    operation = ldap.simple_bind(dn, password.reveal())

    async def bind(connection: Connection) -> ldap.Result:
        answer = connection.ask(ldap.BIND_RESPONSE, operation, ldap.PASSWORD_POLICY_REQUEST)
        return (await answer).result

    return refusal(await server.use(bind), password, server.name) or dn
