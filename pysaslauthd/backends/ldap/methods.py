"""The ways to check a password against a directory: bind, fastbind, custom.

Each returns the name of the user's entry, or a refusal. They raise ServerFailed
where another server may know, CannotTell where none will; custom, which compares
by itself, CannotCheck and WorkerLost too.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import Answer, Connection
from pysaslauthd.backends.ldap.lookup import Search, find_entry
from pysaslauthd.backends.ldap.sasl import SaslRules, sasl_bind, who_am_i
from pysaslauthd.backends.ldap.server import Server
from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.backends.ldap.verdicts import NAME, CannotTell, refusal
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Reason, Rejected, Secret
from pysaslauthd.sasl.client import (
    Credentials,
    NoMechanism,
    ServerRefused,
    UnusableCredentials,
)
from pysaslauthd.wire import ldap

Fits = Callable[[Secret, Sequence[bytes], str, str], Awaitable[bool]]
"""Says whether a password fits one of some stored values; the texts are service and owner."""


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


class SaslFastbind(NamedTuple):
    """The user's own name and password are for a SASL bind. *host*: the server's, for DIGEST-MD5.

    Which entry that is the server says, where *wants_name*.
    """

    rules: SaslRules
    realm: str | None
    wants_name: bool

    async def check(self, server: Server, subject: Subject, password: Secret) -> bytes | Rejected:
        """Return the name of the entry whose password it is, b"" where nobody wants it."""
        authcid = subject.user
        if "@" not in authcid and subject.realm:
            authcid = f"{authcid}@{subject.realm}"
        credentials = Credentials(
            authcid, password, realm=self.realm, service="ldap", host=server.host
        )

        try:
            result, name = await server.use(partial(self._bind, credentials))
        except UnusableCredentials as error:
            return Rejected(Reason.WRONG_PASSWORD, NAME, detail=str(error))
        except ServerRefused as error:
            if not error.blames_credentials:
                raise CannotTell(f"{server.name}: {error}") from None
            return Rejected(Reason.WRONG_PASSWORD, NAME, detail=str(error))
        except (NoMechanism, MalformedMessage) as error:
            raise CannotTell(f"{server.name}: no SASL bind (ldap_mech): {error}") from None
        refused = refusal(result, password, server.name)
        if refused is None and self.wants_name and not name:
            raise CannotTell(
                f"{server.name}: it does not say which entry the user is (RFC 4532), and the group"
                " is asked for by that"
            )
        return name if refused is None else refused

    async def _bind(
        self, credentials: Credentials, connection: Connection
    ) -> tuple[ldap.Result, bytes]:
        result = await sasl_bind(connection, self.rules, credentials)
        if result.code != results.SUCCESS:
            connection.close()  # slapd, by libsasl, might tell the next user the same
            return result, b""
        return result, await who_am_i(connection) if self.wants_name else b""


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
        owner = entry.dn.decode(errors="backslashreplace")
        if not await self.fits(password, stored, subject.service, owner):
            return Rejected(Reason.WRONG_PASSWORD, NAME, detail="wrong password")
        return entry.dn


async def become(server: Server, dn: bytes, password: Secret) -> bytes | Rejected:
    """Return *dn* if *password* is that entry's."""
    operation = ldap.simple_bind(dn, password.reveal())

    def bind(connection: Connection) -> Awaitable[Answer]:
        return connection.ask(ldap.BIND_RESPONSE, operation, ldap.PASSWORD_POLICY_REQUEST)

    result, _ = await server.use(bind)
    return refusal(result, password, server.name) or dn
