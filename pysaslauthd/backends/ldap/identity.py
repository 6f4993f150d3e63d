"""Who the service is to a directory server: nobody, or somebody with a password of its own."""

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import Connection, ServerFailed
from pysaslauthd.backends.ldap.results import explain
from pysaslauthd.backends.ldap.sasl import SaslRules, sasl_bind
from pysaslauthd.backends.ldap.server import Refused, TakeOn
from pysaslauthd.backends.ldap.verdicts import reason_for
from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Secret
from pysaslauthd.sasl.client import Credentials, NoMechanism, UnusableCredentials
from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import Result


async def anonymous(_connection: Connection) -> None:
    """Be nobody, which every new connection is."""


def named(dn: str, password: Secret) -> TakeOn:
    """Return what makes a connection that of *dn*; ValueError where one of the two is empty."""
    operation = ldap.simple_bind(dn.encode(), password.reveal())

    async def take_on(connection: Connection) -> None:
        answer = await connection.ask(ldap.BIND_RESPONSE, operation, ldap.PASSWORD_POLICY_REQUEST)
        require(answer.result, f"ldap_bind_dn {dn}", password)

    return take_on


def proven(rules: SaslRules, credentials: Credentials) -> TakeOn:
    """Return what makes a connection *credentials*', by a SASL bind."""

    async def take_on(connection: Connection) -> None:
        try:
            result = await sasl_bind(connection, rules, credentials)
        except (NoMechanism, UnusableCredentials, MalformedMessage) as error:
            raise Refused(f"no SASL bind (ldap_mech, ldap_id): {error}") from None
        require(result, f"ldap_id {credentials.authcid}".rstrip(), credentials.password)

    return take_on


def require(result: Result, who: str, password: Secret | None) -> None:
    """Raise Refused, or ServerFailed where that is no judgement, unless *result* is a yes."""
    if result.code != results.SUCCESS:
        kind = ServerFailed if result.code in results.ELSEWHERE else Refused
        reason = reason_for(result)
        why = f"{reason.value}: " if reason else ""
        raise kind(f"it refuses {who}: {why}{explain(result, password)}")
