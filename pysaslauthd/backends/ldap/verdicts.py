"""What a directory's answer to a bind says about an account: yes, no and why, or nothing.

Sources: RFC 4511 section 4.2.2; draft-behera-ldap-password-policy-10 section 6.2;
Active Directory's sub-codes (the Windows error behind `data`, in hexadecimal).
"""

import re

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import ServerFailed
from pysaslauthd.backends.ldap.results import explain
from pysaslauthd.model import Reason, Rejected, Secret
from pysaslauthd.wire.ldap import Result

NAME = "ldap"

# PasswordPolicyResponseValue.error; others are about changing a password.
POLICY_ERRORS = {
    0: Reason.PASSWORD_EXPIRED,
    1: Reason.ACCOUNT_LOCKED,
    2: Reason.PASSWORD_MUST_CHANGE,
}
SUB_CODE = re.compile(r"\bdata ([0-9a-f]{1,8}),", re.IGNORECASE)
SUB_CODES = {
    0x525: Reason.NO_SUCH_USER,
    0x52E: Reason.WRONG_PASSWORD,
    0x52F: Reason.DENIED,  # an account with restrictions
    0x530: Reason.DENIED,  # not at this hour
    0x531: Reason.DENIED,  # not from this machine
    0x532: Reason.PASSWORD_EXPIRED,
    0x533: Reason.DENIED,  # disabled
    0x534: Reason.DENIED,  # not in this way
    0x569: Reason.DENIED,  # the same
    0x701: Reason.ACCOUNT_EXPIRED,
    0x773: Reason.PASSWORD_MUST_CHANGE,
    0x775: Reason.ACCOUNT_LOCKED,
}
# What servers say with a result that may mean many things, in the words of 389 Directory Server
# and, the last, of slapd, to which libsasl does not tell more of a user whom it does not find.
SAYINGS = {
    "account inactivated": Reason.DENIED,
    "exceed password retry limit": Reason.ACCOUNT_LOCKED,
    "password expired": Reason.PASSWORD_EXPIRED,
    "unable to canonify user": Reason.NO_SUCH_USER,
}
REFUSALS = {
    results.NO_SUCH_OBJECT: Reason.NO_SUCH_USER,
    results.INAPPROPRIATE_AUTHENTICATION: Reason.WRONG_PASSWORD,  # the entry has no password
    results.INVALID_CREDENTIALS: Reason.WRONG_PASSWORD,
    results.INVALID_DN_SYNTAX: Reason.NO_SUCH_USER,  # of a name that a template made
}


class CannotTell(Exception):
    """The server has answered, but nothing that is a yes or a no; the text says what."""


def refusal(result: Result, password: Secret, server: str) -> Rejected | None:
    """Return the refusal that *server*'s answer to a bind is, None where it is a yes.

    ServerFailed where another server may know better, CannotTell where none will.
    """
    reason = reason_for(result)
    if reason is not None:
        return Rejected(reason, NAME, detail=f"{reason.value}: {explain(result, password)}")
    if result.code == results.SUCCESS:
        return None
    said = f"{server}: it does not judge the password: {explain(result, password)}"
    if result.code in results.ELSEWHERE:
        raise ServerFailed(said)
    raise CannotTell(said)


def reason_for(result: Result) -> Reason | None:
    """Return why it is a no; None where it may be none, as with a sub-code that is not known."""
    policy = None if result.policy_error is None else POLICY_ERRORS.get(result.policy_error)
    if policy is not None or result.code == results.SUCCESS:
        return policy
    # Of a server that is busy it is no judgement, whatever is said with it.
    return None if result.code in results.ELSEWHERE else _judged(result)


def _judged(result: Result) -> Reason | None:
    found = SUB_CODE.search(result.diagnostic)
    if found is not None and result.code == results.INVALID_CREDENTIALS:
        return SUB_CODES.get(int(found[1], 16))
    said = result.diagnostic.lower()
    by_words = (reason for words, reason in SAYINGS.items() if words in said)
    return next(by_words, REFUSALS.get(result.code))
