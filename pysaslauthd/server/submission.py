"""What one client submits: checked, and handed to the server behind.

It keeps no mail: what the server behind has not taken, is not taken.
"""

import logging
import re
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any, NamedTuple

from pysaslauthd.engine.audit import escaped
from pysaslauthd.server.auth import Auth, Login
from pysaslauthd.server.relay import Relay, Submitter, Upstream
from pysaslauthd.server.smtp import SaslSMTP

log = logging.getLogger(__name__)

NO_RELAY = "451 4.3.5 Error: there is no mail server to hand messages to"
BAD_ADDRESS = "553 5.1.3 Error: malformed address"
TOO_MANY_RECIPIENTS = "452 4.5.3 Error: too many recipients"
UNKNOWN = "nobody waits for it"
INTERNAL = "451 4.3.0 Error: internal error"
UNFIT_FOR_TRACE = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
PATH = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"<> ])*')  # brackets and spaces in quotes only
MARGIN = 30.0  # seconds: the server behind is given up before its client is


class Limits(NamedTuple):
    """What a client may take of us: bytes, recipients, seconds of silence, connections."""

    message_bytes: int = 10_240_000  # as Postfix
    recipients: int = 100
    idle_after: float = 300.0
    connections: int = 200
    connections_each: int = 50  # from one address


class Rules(NamedTuple):
    """How a submission server called *host* serves.

    *upstream* gets the messages. *realm* completes logins that have none, where it is
    not "". *own_senders*: MAIL's address must be the login.
    """

    auth: Auth
    host: str
    upstream: Upstream | None
    realm: str = ""
    own_senders: bool = False
    limits: Limits = Limits()

    def user(self, login: Login) -> str:
        """Return who has logged in, as the server behind is told."""
        name = login.authzid
        return name if "@" in name or not self.realm else f"{name}@{self.realm}"


class Submission:
    """What one client submits: aiosmtpd's handler for it, and for nobody else."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._relay: Relay | None = None

    def __dir__(self) -> Iterable[str]:
        """Return the hooks: aiosmtpd looks at all there is, for each connection anew."""
        return HOOKS

    @property
    def is_under_way(self) -> bool:
        """Say whether a message has been begun."""
        return self._relay is not None

    def drop(self) -> None:
        """Forget the message that was begun, if one was."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, server: SaslSMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Begin a message with the server behind; say what that says."""
        rules = self._rules
        user = rules.user(session.auth_data)
        refusal = self._refusal(user, address)
        if rules.upstream is None or refusal:
            reply = refusal or NO_RELAY
            self._note_refusal(server, user, address, reply)
            return reply
        self.drop()
        submitter = Submitter(server.client_address, session.host_name, user)
        relay = await Relay.open(rules.upstream, rules.host, submitter)
        if isinstance(relay, str):
            self._note_refusal(server, user, address, relay)
            return relay
        reply = await relay.mail(address, options)
        # The client may have gone: Python 3.11's wait_for, in aiosmtplib, can lose the cancelling.
        if not reply.startswith("2") or server.transport is None:
            relay.close()
            self._note_refusal(server, user, address, reply)
            return reply
        self._relay = relay
        envelope.mail_from = address
        return reply

    def _refusal(self, user: str, address: str) -> str:
        """Return why nothing is taken from *address*, which *user* names; "" where it is."""
        if not _is_plain(address):
            return BAD_ADDRESS
        if self._rules.own_senders and address.casefold() not in {"<>", user.casefold()}:
            owner = user.encode("ascii", "backslashreplace").decode()
            return f"553 5.7.1 <{address}>: Sender address rejected: not owned by user {owner}"
        return ""

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: SaslSMTP, session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Ask the server behind about a recipient; say what that says."""
        reply = await self._recipient(envelope, address)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        else:
            user = self._rules.user(session.auth_data)
            self._note_refusal(server, user, envelope.mail_from, reply, recipient=address)
        return reply

    async def _recipient(self, envelope: Any, address: str) -> str:
        if len(envelope.rcpt_tos) >= self._rules.limits.recipients:
            return TOO_MANY_RECIPIENTS
        if not _is_plain(address):
            return BAD_ADDRESS
        return INTERNAL if self._relay is None else await self._relay.rcpt(address)

    def note_too_large(self, server: SaslSMTP, session: Any, envelope: Any, reply: str) -> None:
        """Log that a message was refused before the server behind saw any of it."""
        self._note_refusal(server, self._rules.user(session.auth_data), envelope.mail_from, reply)

    def _note_refusal(
        self, server: SaslSMTP, user: str, sender: str, reply: str, *, recipient: str = ""
    ) -> None:
        log.info(
            "message refused: [user=%s] [remote=%s] [from=%s] [to=%s] [reply=%s]",
            escaped(user),
            escaped(server.client_address),
            escaped(sender),
            escaped(recipient),
            escaped(reply),
        )

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, server: SaslSMTP, session: Any, envelope: Any
    ) -> str:
        """Hand the message to the server behind; say what that says."""
        rules = self._rules
        if self._relay is None or rules.upstream is None:
            return INTERNAL
        server.be_patient(rules.upstream.seconds + MARGIN)
        content = envelope.original_content
        if not self._relay.has_told_client:
            content = trace(rules.host, server, session) + content
        reply, end = UNKNOWN, "given up"
        try:
            reply = await self._relay.data(content)
            end = "handed over" if reply.startswith("2") else "refused"
        finally:  # also where the client has gone: the server behind may have it all the same
            self._note(end, server, session, envelope, reply)
        return reply

    def _note(self, end: str, server: SaslSMTP, session: Any, envelope: Any, reply: str) -> None:
        log.info(
            "message %s: [user=%s] [remote=%s] [from=%s] [recipients=%d] [bytes=%d] [relay=%s]",
            end,
            escaped(self._rules.user(session.auth_data)),
            escaped(server.client_address),
            escaped(envelope.mail_from),
            len(envelope.rcpt_tos),
            len(envelope.original_content),
            escaped(reply),
        )


HOOKS = [name for name in vars(Submission) if name.startswith("handle_")]


def trace(host: str, server: SaslSMTP, session: Any) -> bytes:
    """Return the line that says whence a message came (RFC 5321 section 4.4, RFC 3848)."""
    helo = UNFIT_FOR_TRACE.sub("?", session.host_name)[:255]
    address = server.client_address
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    protocol = "ESMTPSA" if server.is_secured else "ESMTPA"
    return (
        f"Received: from {helo} ({literal})\r\n"
        f"\tby {host} (pysaslsmtpd) with {protocol};\r\n\t{formatdate(localtime=True)}\r\n"
    ).encode()


def _is_plain(address: str) -> bool:
    """Say whether *address* can be handed on, in angle brackets of which it has none itself.

    No control characters, and of ASCII; aiosmtpd's parser decodes what RFC 2047 encodes.
    """
    is_path = address == "<>" or PATH.fullmatch(address) is not None
    return is_path and address.isascii() and address.isprintable()
