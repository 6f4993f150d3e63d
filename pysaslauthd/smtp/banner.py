"""What EHLO tells of AUTH: the mechanisms that can succeed here and now, and their lines."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pysaslauthd.sasl.server.mechanism import Mechanism, Need, Surroundings
from pysaslauthd.smtp.options import Policy

# Postfix's, mechanisms.md section 1; what Postfix does not know comes last.
ORDER = (
    *("PIPELINING", "SIZE", "VRFY", "ETRN", "STARTTLS", "AUTH", "ENHANCEDSTATUSCODES"),
    *("8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"),
)


class Offer(NamedTuple):
    """What a server has to offer: *mechanisms* that its backends can complete, under a *policy*.

    *broken_clients*: some look for a line that begins with `AUTH=`, and get one.
    """

    mechanisms: tuple[Mechanism, ...]
    policy: Policy = Policy()
    broken_clients: bool = False

    def now(self, surroundings: Surroundings, *, secured: bool) -> tuple[Mechanism, ...]:
        """Return the mechanisms that may be used; *secured*: within TLS."""
        return tuple(
            one
            for one in self.mechanisms
            if self.policy.allows(one.traits, secured=secured) and _can_succeed(one, surroundings)
        )

    def lines(self, mechanisms: Sequence[Mechanism]) -> list[str]:
        """Return the lines of EHLO's reply that name *mechanisms*, without code; none for none."""
        if not mechanisms:
            return []
        names = " ".join(one.name for one in mechanisms)
        return [f"AUTH {names}", *([f"AUTH={names}"] if self.broken_clients else [])]

    def warnings(self, before: Surroundings, after: Surroundings | None) -> list[str]:
        """Return what to tell at start: which words were guessed at, and where nobody can log in.

        *before* and *after* are a connection's surroundings without TLS, and within it if
        the server has it.
        """
        policy = self.policy
        found = list(dict.fromkeys(policy.before_tls.warnings + policy.after_tls.warnings))
        has_tls = after is not None
        if not policy.only_with_tls and not self.now(before, secured=False):
            found.append(_nobody("before TLS" if has_tls else "without TLS"))
        if policy.only_with_tls and not has_tls:
            found.append("nobody can log in: AUTH is allowed within TLS only, and there is no TLS")
        elif after is not None and not self.now(after, secured=True):
            found.append(_nobody("within TLS"))
        return found


def in_order(lines: Iterable[str]) -> list[str]:
    """Return the *lines* of EHLO's reply, without code, in the order in which Postfix has them."""
    return sorted(lines, key=_place)


def _place(line: str) -> int:
    keyword = line.replace("=", " ").split(" ")[0].upper()
    return ORDER.index(keyword) if keyword in ORDER else len(ORDER)


def _can_succeed(mechanism: Mechanism, surroundings: Surroundings) -> bool:
    if mechanism.need is Need.EXTERNAL_IDENTITY:
        return surroundings.external is not None
    if mechanism.need is Need.CHANNEL_BINDING:
        return surroundings.channel_binding is not None
    return True


def _nobody(when: str) -> str:
    return (
        f"nobody can log in {when}: the security options, and the list of mechanisms where there"
        " is one, leave none that the backend can complete"
    )
