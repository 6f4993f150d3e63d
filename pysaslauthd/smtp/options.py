"""Postfix's words for what a mechanism must not, or must, be able to do.

They mean what they mean where Postfix asks Dovecot: "no..." drops a mechanism that has
the weakness, so that noactive keeps PLAIN, which another word is for (mechanisms.md
section 2). Cyrus SASL's meaning of noactive and nodictionary leaves next to nothing.
"""

from functools import cache
from typing import NamedTuple, Self

from pysaslauthd.sasl.server.mechanism import Traits

WEAKNESSES = {
    "noanonymous": "anonymous",
    "noplaintext": "plaintext",
    "noactive": "active",
    "nodictionary": "dictionary",
}
STRENGTHS = ("mutual_auth", "forward_secrecy")
KNOWN = (*WEAKNESSES, *STRENGTHS)
ALIASES = {"noplain": "noplaintext"}


class UnknownOption(ValueError):
    """A word is no security option; the text names it and lists those that are."""


class SecurityOptions(NamedTuple):
    """The traits that a mechanism must not have, and those that it must have.

    *warnings* says which words were taken for others.
    """

    refused: frozenset[str] = frozenset()
    demanded: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the options that *text* has: words in any case, with commas or spaces between.

        UnknownOption where one is not known.
        """
        words = text.replace(",", " ").lower().split()
        meant = [ALIASES.get(word, word) for word in words]
        for word in meant:
            if word not in KNOWN:
                raise UnknownOption(
                    f"unknown security option {word!r}: known are {', '.join(KNOWN)}"
                )
        return cls(
            frozenset(WEAKNESSES[word] for word in meant if word in WEAKNESSES),
            frozenset(word for word in meant if word in STRENGTHS),
            tuple(
                f"security option {word}: taken for {ALIASES[word]}, which is its name"
                for word in dict.fromkeys(words)
                if word in ALIASES
            ),
        )

    def allows(self, traits: Traits) -> bool:
        """Say whether a mechanism of these *traits* may be used."""
        has = _names(traits)
        return not has & self.refused and self.demanded <= has


@cache  # every EHLO and AUTH asks, and there are few
def _names(traits: Traits) -> frozenset[str]:
    return frozenset(name for name, is_so in traits._asdict().items() if is_so)


NOANONYMOUS = SecurityOptions(refused=frozenset({"anonymous"}))


class Policy(NamedTuple):
    """What is allowed *before_tls* and *after_tls*; *only_with_tls*: before it nothing is."""

    before_tls: SecurityOptions = NOANONYMOUS
    after_tls: SecurityOptions = NOANONYMOUS
    only_with_tls: bool = False

    def allows(self, traits: Traits, *, secured: bool) -> bool:
        """Say whether a mechanism of these *traits* may be used now; *secured*: within TLS."""
        if secured:
            return self.after_tls.allows(traits)
        return not self.only_with_tls and self.before_tls.allows(traits)


DEFAULT_POLICY = Policy()
