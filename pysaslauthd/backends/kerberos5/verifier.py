"""Answers by the KDC: whoever gets a ticket from the real one knows the password.

A false KDC would give a ticket for any password it likes, so that each ticket is
tried on a key which only this machine and the real KDC have: the keytab's. Rules and
texts: protocols/backends.md section 7; what differs: docs/differences.md.
"""

import logging
import math
import time
from typing import NamedTuple

from pysaslauthd.backends.kerberos5 import libkrb5
from pysaslauthd.backends.kerberos5.libkrb5 import Code, Handle, KerberosError, Session, Ticket
from pysaslauthd.backends.kerberos5.principals import NameRules, NoPrincipal, principal_name
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable

log = logging.getLogger(__name__)

NAME = "kerberos5"
PARSE_NAME, GET_TICKET = "krb5_parse_name", "krb5_get_init_creds_password"
NO_TICKET = f"{GET_TICKET} failed"
NO_PRINCIPAL = Rejected(Reason.NO_SUCH_USER, NAME, "saslauthd principal name error")
MALFORMED = Rejected(Reason.NO_SUCH_USER, NAME, "saslauthd internal error")
QUIET_CALLS = {"krb5_kt_resolve", "krb5_sname_to_principal"}  # for debugging, in the C daemon

REASONS: dict[int, Reason] = {
    Code.C_PRINCIPAL_UNKNOWN: Reason.NO_SUCH_USER,
    Code.PREAUTH_FAILED: Reason.WRONG_PASSWORD,
    Code.AP_ERR_BAD_INTEGRITY: Reason.WRONG_PASSWORD,
    Code.KEY_EXP: Reason.PASSWORD_EXPIRED,  # also if it must be changed: KDCs say the same
    Code.NAME_EXP: Reason.ACCOUNT_EXPIRED,
    Code.CLIENT_REVOKED: Reason.ACCOUNT_LOCKED,
    Code.CLIENT_NOTYET: Reason.DENIED,
    Code.POLICY: Reason.DENIED,
    Code.GENERIC_PREAUTH_FAILED: Reason.DENIED,  # it takes more than a password, or another thing
}
SET_CLOCKS = "set the clocks of this machine and the KDC"
ADVICE: dict[int, str] = {
    Code.AP_ERR_SKEW: SET_CLOCKS,
    Code.CONFIG_BADFORMAT: "mend krb5.conf",
    Code.CONFIG_NODEFREALM: "set default_realm in krb5.conf",
    Code.ETYPE_NOSUPP: "the principal needs keys of newer types, or krb5.conf must permit the old",
    Code.KDCREP_MODIFIED: "is the realm spelt as the KDC does? See krb5_uppercase_realm",
    Code.KDCREP_SKEW: SET_CLOCKS,
    Code.KDC_UNREACH: "see section realms of krb5.conf, and whether a KDC runs there",
    Code.REALM_CANT_RESOLVE: "its KDC's name in krb5.conf has no address",
    Code.REALM_UNKNOWN: "name its KDC in section realms of krb5.conf; is it in capitals there?",
}
MAKE_KEY = (
    "as root, put it there: kadmin -q 'ktadd host/NAME' (with -k into another file than the"
    " system's, which krb5_keytab in the file of -O, or keytab in [kerberos5], names)"
)
FALSE_KDC = "the key in {} is not the present one, or this KDC is a false one"
KEYTAB_ADVICE: dict[int, str] = {
    Code.AP_ERR_BADKEYVER: FALSE_KDC,
    Code.AP_ERR_BAD_INTEGRITY: FALSE_KDC,
    Code.EACCES: "root must be able to read {}",
    Code.ENOENT: "make {}: kadmin ktadd",
    Code.KT_KVNONOTFOUND: FALSE_KDC,
    Code.KT_NOTFOUND: "add it to {} (kadmin ktadd), or set krb5_servername to whose key is there",
    Code.S_PRINCIPAL_UNKNOWN: "add it to the realm, or this KDC is a false one",
}
OTHER_KEYTAB_ADVICE = "see {}"


class Rules(NamedTuple):
    """By what a KDC is told from a false one, and how principals are named.

    *keytab* empty: the system's; *servername* empty: this machine's name.
    """

    keytab: str = ""
    verify_principal: str = "host"
    servername: str = ""
    names: NameRules = NameRules()


class Kerberos5:
    """The backend `-a kerberos5` as it runs in a worker; StartupError where libkrb5 is missing.

    A KDC refuses who is unknown, expired or locked without a look at the
    password, and so sooner. The delay of such a refusal makes it as late as the
    last one of a wrong password; before there was one, as the first yes.
    """

    name = NAME

    def __init__(self, rules: Rules) -> None:
        libkrb5.load()
        self._rules = rules
        self._password_takes = 0.0  # seconds

    def check(self, request: AuthRequest, /) -> AuthResult:
        """Return what the KDC says, if it is the real one."""
        password = request.password.reveal()
        if b"\0" in password:  # which libkrb5 would take for its end
            return Rejected(Reason.WRONG_PASSWORD, NAME, NO_TICKET)
        try:
            name = principal_name(request, self._rules.names)
        except NoPrincipal:
            log.error("auth_krb5: form_principal_name")
            return NO_PRINCIPAL
        began = time.monotonic()
        try:
            with Session() as session:
                ticket = session.ticket(session.principal(name), password)
                self._password_takes = self._password_takes or time.monotonic() - began
                return self._verify(session, ticket) or Accepted(request.user, NAME)
        except KerberosError as error:
            _log(error)
            if error.call == PARSE_NAME and error.code == Code.PARSE_MALFORMED:
                return MALFORMED
            reason = _reason(error, password)
            if reason is None:
                return _outage(error, ADVICE.get(error.code, ""))
            return self._refuse(reason, time.monotonic() - began)

    def _verify(self, session: Session, ticket: Ticket) -> Unavailable | None:
        rules = self._rules
        keytab = session.keytab(rules.keytab.encode() or None)
        server = session.host_principal(
            rules.verify_principal.encode(), rules.servername.encode() or None
        )
        try:
            session.verify(ticket, server, keytab)
        except KerberosError as error:
            _log(error)
            advice = KEYTAB_ADVICE.get(error.code, OTHER_KEYTAB_ADVICE)
            return _outage(error, advice.format(session.name_of_keytab(keytab)))
        return None

    def _refuse(self, reason: Reason, took: float) -> Rejected:
        if reason is Reason.WRONG_PASSWORD:
            self._password_takes = took
        milliseconds = max(0, math.ceil((self._password_takes - took) * 1000))
        return Rejected(reason, NAME, NO_TICKET, milliseconds / 1000)


def check_prerequisites(rules: Rules) -> None:
    """Raise StartupError where this process could not answer: no libkrb5, no keys to read."""
    try:
        with Session() as session:
            _check_keytab(session, session.keytab(rules.keytab.encode() or None))
    except KerberosError as error:
        raise StartupError(
            f"-a {NAME} cannot work with these settings: {error}",
            "see krb5_keytab in the file of -O (keytab in [kerberos5]), and /etc/krb5.conf",
        ) from None


def _check_keytab(session: Session, keytab: Handle) -> None:
    problem, cure = "there is no key in it", MAKE_KEY
    try:
        if session.has_keys(keytab):
            return
    except KerberosError as error:
        problem = error.text
        if error.code == Code.EACCES:
            cure = "start the daemon as root, or as a user who may read it"
    name = session.name_of_keytab(keytab)
    raise StartupError(
        f"-a {NAME} tells the real KDC by a key, and cannot read any from {name}: {problem}",
        cure,
    )


def _reason(error: KerberosError, password: bytes) -> Reason | None:
    """Return why the KDC refuses; None where it does not, and the error is a fault."""
    if error.call != GET_TICKET:
        return None
    is_utf8 = password.decode(errors="ignore").encode() == password
    if error.code == Code.EINVAL and not is_utf8:
        return Reason.WRONG_PASSWORD  # of who has RC4 keys, which are made of UTF-16
    return REASONS.get(error.code)


def _log(error: KerberosError) -> None:
    level = logging.DEBUG if error.call in QUIET_CALLS else logging.ERROR
    log.log(level, "auth_krb5: %s: %s (%d)", error.call, error.text, error.code)


def _outage(error: KerberosError, advice: str) -> Unavailable:
    return Unavailable(f"{error}; {advice}" if advice else str(error), NAME)
