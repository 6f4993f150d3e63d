"""SASL binds: what the mechanisms of `sasl.client` say, carried by LDAP (RFC 4513 section 5.2)."""

import asyncio
from typing import NamedTuple

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import Connection, ServerFailed
from pysaslauthd.sasl.client import ClientExchange, Credentials, Mechanism, strongest
from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import Result
from pysaslauthd.wire.ldap_filter import ANY_ENTRY

OFFERED = b"supportedSASLMechanisms"
SEARCH_OFFERED = ldap.search(b"", ldap.SearchRules("base"), ANY_ENTRY, (OFFERED,))


class SaslRules(NamedTuple):
    """How to bind: *mechanism* by name, None for the strongest that the server offers.

    *private*: nobody reads along, so that a password may be said as it is.
    """

    mechanism: Mechanism | None
    private: bool


async def sasl_bind(connection: Connection, rules: SaslRules, credentials: Credentials) -> Result:
    """Return how a bind by *credentials* ends; a success is one only if the server is genuine.

    ServerFailed where there is none, NoMechanism and UnusableCredentials where it cannot
    be begun, MalformedMessage where the server does not keep to the mechanism.
    """
    mechanism = rules.mechanism or strongest(
        await _offered(connection), credentials, private=rules.private
    )
    exchange = ClientExchange(mechanism, credentials)
    said = exchange.initial
    while True:
        operation = ldap.sasl_bind(mechanism.name, said)
        asked = connection.ask(ldap.BIND_RESPONSE, operation, ldap.PASSWORD_POLICY_REQUEST)
        result = (await asked).result
        if result.code == results.SUCCESS:
            exchange.finish(result.credentials)
        if result.code != results.SASL_BIND_IN_PROGRESS:
            return result
        said = await _respond(exchange, result.credentials or b"")


async def _respond(exchange: ClientExchange, challenge: bytes) -> bytes:
    """Return the response, made in a thread, for SCRAM may hash for half a second."""
    try:
        return await asyncio.to_thread(exchange.respond, challenge)
    except RuntimeError:  # there are as many threads as there may be
        raise ServerFailed("no thread is left to answer its challenge") from None


async def who_am_i(connection: Connection) -> bytes:
    """Return the name of the entry that the connection is, b"" where that is none (RFC 4532)."""
    asked = connection.ask(ldap.EXTENDED_RESPONSE, ldap.extended(ldap.WHO_AM_I_OID))
    identity = (await asked).result.value or b""
    return identity.removeprefix(b"dn:") if identity.startswith(b"dn:") else b""


async def _offered(connection: Connection) -> list[str]:
    answer = await connection.ask(ldap.SEARCH_DONE, SEARCH_OFFERED)
    found = [one.attributes.get(OFFERED.lower(), ()) for one in answer.entries]
    return [name.decode(errors="replace") for names in found for name in names]
