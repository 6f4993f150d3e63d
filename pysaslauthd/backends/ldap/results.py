"""Result codes of LDAP, by name (RFC 4511 appendix A), and what a server says with them."""

from pysaslauthd.model import Secret
from pysaslauthd.wire.ldap import Result

SUCCESS = 0
TIME_LIMIT_EXCEEDED = 3
SIZE_LIMIT_EXCEEDED = 4
COMPARE_FALSE = 5
COMPARE_TRUE = 6
REFERRAL = 10
CONFIDENTIALITY_REQUIRED = 13
SASL_BIND_IN_PROGRESS = 14
NO_SUCH_ATTRIBUTE = 16
CONSTRAINT_VIOLATION = 19
NO_SUCH_OBJECT = 32
INVALID_DN_SYNTAX = 34
INAPPROPRIATE_AUTHENTICATION = 48
INVALID_CREDENTIALS = 49
BUSY = 51
UNAVAILABLE = 52
UNWILLING_TO_PERFORM = 53

# Of this server at this moment: another one, or this one later, may do better.
ELSEWHERE = frozenset({BUSY, UNAVAILABLE})

NAMES = {
    SUCCESS: "success",
    1: "operations error",
    2: "protocol error",
    TIME_LIMIT_EXCEEDED: "time limit exceeded",
    SIZE_LIMIT_EXCEEDED: "size limit exceeded",
    7: "authentication method not supported",
    8: "stronger authentication required",
    REFERRAL: "referral",
    11: "administrative limit exceeded",
    CONFIDENTIALITY_REQUIRED: "confidentiality required",
    SASL_BIND_IN_PROGRESS: "SASL bind in progress",
    NO_SUCH_ATTRIBUTE: "no such attribute",
    17: "undefined attribute type",
    18: "inappropriate matching",
    CONSTRAINT_VIOLATION: "constraint violation",
    NO_SUCH_OBJECT: "no such object",
    INVALID_DN_SYNTAX: "invalid DN syntax",
    INAPPROPRIATE_AUTHENTICATION: "inappropriate authentication",
    INVALID_CREDENTIALS: "invalid credentials",
    50: "insufficient access rights",
    BUSY: "busy",
    UNAVAILABLE: "unavailable",
    UNWILLING_TO_PERFORM: "unwilling to perform",
    80: "other",
}
LONGEST_DIAGNOSTIC = 200  # characters


def explain(result: Result, secret: Secret | None = None) -> str:
    """Return what *result* says, fit for the log; not what would repeat *secret*."""
    name = f"{NAMES.get(result.code, 'result')} ({result.code})"
    said = result.diagnostic.rstrip("\0\r\n ")
    if not said or (secret is not None and _repeats(result, secret)):
        return name
    return f"{name}: {''.join(map(_printable, said[:LONGEST_DIAGNOSTIC]))}"


def _repeats(result: Result, secret: Secret) -> bool:
    return secret.shows_in(result.diagnostic.encode(errors="surrogateescape"))


def _printable(character: str) -> str:
    return character if character.isprintable() else "?"
