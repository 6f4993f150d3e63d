"""One log line for each verdict, in the C daemon's words (protocols/saslauthd-cli.md section 4)."""

import logging

from pysaslauthd.engine.names import Names
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Rejected, Unavailable

log = logging.getLogger(__name__)

LONGEST_VALUE = 256  # characters; the C daemon's limit on a field, so that a line stays a line


class Audit:
    """Writes the lines; a success with priority debug, as the C daemon."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def writes(self, result: AuthResult) -> bool:
        """Say whether *result* makes a line: a success does with -V only."""
        return not isinstance(result, Accepted) or log.isEnabledFor(logging.DEBUG)

    def record_cached(self, request: AuthRequest) -> None:
        """Log a success that no backend was asked for."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("auth success (cached): %s", self._who(request))

    def record(self, request: AuthRequest, result: AuthResult) -> None:
        """Log what *result* means for *request*."""
        match result:
            case Accepted():
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("auth success: %s [mech=%s]", self._who(request), result.backend)
            case Rejected():
                log.info(
                    "auth failure: %s [mech=%s] [reason=%s]",
                    self._who(request),
                    result.backend,
                    escaped(result.text or result.detail) or "Unknown",
                )
            case Unavailable():
                log.error(
                    "auth unavailable: %s [mech=%s] [reason=%s]",
                    self._who(request),
                    result.backend,
                    escaped(result.detail),
                )

    def _who(self, request: AuthRequest) -> str:
        service, remote, mechanism, local = request.origin
        who = (
            f"[user={escaped(self._names.logged_user(request))}]"
            f" [service={escaped(service)}] [realm={escaped(request.realm)}]"
        )
        # Where we know more than the C daemon: before what it has last.
        who += f" [remote={escaped(remote)}]" if remote else ""
        who += f" [local={escaped(local)}]" if local else ""
        return f"{who} [sasl={mechanism}]" if mechanism else who


def escaped(value: str) -> str:
    r"""Return *value* so that it can neither end its bracket nor its line: `]` becomes `\x5d`."""
    if len(value) > LONGEST_VALUE:
        value = value[:LONGEST_VALUE] + "..."
    if value.isprintable() and not any(mark in value for mark in "[]\\"):
        return value
    return "".join(map(_escaped_character, value))


def _escaped_character(character: str) -> str:
    if character in "[]\\":
        return f"\\x{ord(character):02x}"
    if character.isprintable():
        return character
    # Not the codec unicode_escape: that is a file, which the front may not be able to read.
    return ascii(character)[1:-1]
