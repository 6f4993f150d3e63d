"""A submission server: whoever has logged in may hand in mail, which goes to the server behind.

It is no open relay by construction: without a login MAIL is refused, and there is no
setting for it. It keeps no mail: what the server behind has not taken, is not taken.
"""

import asyncio
import logging
import re
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple

from pysaslauthd.engine.audit import escaped
from pysaslauthd.server.auth import Auth, Login
from pysaslauthd.server.message import read_message
from pysaslauthd.server.relay import Relay, Submitter, Upstream
from pysaslauthd.server.smtp import HandshakeFailed, SaslSMTP

log = logging.getLogger(__name__)

IDENT = "ESMTP pysaslsmtpd"
NO_RELAY = "451 4.3.5 Error: there is no mail server to hand messages to"
BAD_ADDRESS = "553 5.1.3 Error: malformed address"
TOO_MANY_RECIPIENTS = "452 4.5.3 Error: too many recipients"
UNKNOWN = "nobody waits for it"
INTERNAL = "451 4.3.0 Error: internal error"
TIMEOUT = "421 4.4.2 {host} Error: timeout exceeded"
LEAVING = "421 4.3.2 {host} Error: this server is leaving"
CALLS = {"*": 100, "MAIL": 10_000, "RCPT": 100_000, "DATA": 10_000, "RSET": 10_000}
UNFIT_FOR_TRACE = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
PATH = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"<> ])*')  # brackets and spaces in quotes only
HANDSHAKE_SECONDS = 15
MARGIN = 30.0  # seconds: the server behind is given up before its client is
POLL = 0.05  # seconds


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


class Connection(SaslSMTP):
    """One client of a *door*."""

    def __init__(
        self, door: "SubmissionDoor", rules: Rules, context: ssl.SSLContext | None
    ) -> None:
        self._door = door
        self._is_refused = False
        self.submission = Submission(rules)
        super().__init__(
            self.submission,
            auth=rules.auth,
            auth_required=True,
            hostname=rules.host,
            ident=IDENT,
            data_size_limit=rules.limits.message_bytes,
            timeout=rules.limits.idle_after,
            command_call_limit=CALLS,
            tls_context=context,
            loop=asyncio.get_running_loop(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve, unless there are too many already; after STARTTLS, go on."""
        if self.transport is None and not self._door.admit(self, transport):
            self._is_refused = True
            return
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget what was begun."""
        self._door.forget(self)
        self.submission.drop()
        if not self._is_refused:
            super().connection_lost(error)

    def eof_received(self) -> bool | None:
        """Leave with the client."""
        return None if self._is_refused else super().eof_received()

    async def handle_exception(self, error: Exception) -> str:
        """Log a fault of ours, of which the client hears no more than that."""
        if isinstance(error, HandshakeFailed):
            why = getattr(error.__cause__, "reason", "") or str(error.__cause__)
            log.info("no TLS: [remote=%s] [reason=%s]", escaped(self.client_address), escaped(why))
        else:
            log.error("fault while serving a connection", exc_info=error)
        return INTERNAL

    def leave(self) -> None:
        """Tell the client that the server leaves, and hang up."""
        self._hang_up(LEAVING)

    def _hang_up(self, reply: str) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.write(reply.format(host=self.hostname).encode() + b"\r\n")
            self.transport.close()

    def _timeout_cb(self) -> None:
        self._hang_up(TIMEOUT)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802 (aiosmtpd's name)
        """Take a message, in one piece.

        aiosmtpd keeps a list of its lines: of one of empty lines thirty times the size.
        """
        session, envelope = self._here()
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        if arg or not envelope.rcpt_tos:
            await self.push("501 Syntax: DATA" if arg else "503 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        message = await read_message(self._reader, self._door.rules.limits.message_bytes)
        if isinstance(message, str):
            reply = message
        else:
            envelope.content = envelope.original_content = message
            reply = await self.submission.handle_DATA(self, session, envelope)
        self._set_post_data_state()
        await self.push(reply)

    def _set_post_data_state(self) -> None:
        super()._set_post_data_state()  # type: ignore[no-untyped-call]
        self.submission.drop()


class Handshake(SSLProtocol):
    """TLS of *connection* from the first byte on; it counts from before the handshake.

    Where asyncio begins with that, a connection is nobody's until it is done, and who
    only connects may have any number of them, of a quarter of a megabyte each.
    """

    def __init__(
        self, door: "SubmissionDoor", connection: Connection, context: ssl.SSLContext | None
    ) -> None:
        self._door = door
        self._connection = connection
        super().__init__(
            asyncio.get_running_loop(),
            connection,
            context,  # type: ignore[arg-type]  # there is one where TLS is listened for
            None,  # type: ignore[arg-type]  # nobody waits
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many already."""
        if self._door.admit(self._connection, transport):
            super().connection_made(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        """Forget a connection that never began."""
        if self._connection.transport is None:
            self._door.forget(self._connection)
        super().connection_lost(error)


class SubmissionDoor:
    """Serves submission on any number of listening sockets."""

    def __init__(self, rules: Rules, context: ssl.SSLContext | None) -> None:
        self.rules = rules
        self._context = context
        self._connections: dict[Connection, str] = {}
        self._servers: list[asyncio.Server] = []

    async def listen(self, listener: socket.socket, *, within_tls: bool) -> None:
        """Serve the clients of *listener*; those of one *within_tls* begin with a handshake."""
        loop = asyncio.get_running_loop()
        if within_tls:
            server = await loop.create_server(
                lambda: Handshake(self, self._connection(None), self._context), sock=listener
            )
        else:
            server = await loop.create_server(
                lambda: self._connection(self._context), sock=listener
            )
        self._servers.append(server)

    def _connection(self, context: ssl.SSLContext | None) -> Connection:
        try:
            return Connection(self, self.rules, context)
        except Exception:
            log.exception("fault before serving a connection")  # which the loop would not tell
            raise

    def admit(self, connection: Connection, transport: asyncio.BaseTransport) -> bool:
        """Say whether one more connection is served; tell it, where it is not.

        One that has been admitted before its handshake is after it, too.
        """
        if connection in self._connections:
            return True
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        limits = self.rules.limits
        same = Counter(self._connections.values())[address]
        if len(self._connections) < limits.connections and same < limits.connections_each:
            self._connections[connection] = address
            return True
        log.warning("too many connections: one from %s is not served", escaped(address))
        if isinstance(transport, asyncio.WriteTransport):
            host = self.rules.host
            transport.write(f"421 4.7.0 {host} Error: too many connections\r\n".encode())
            transport.close()
        return False

    def forget(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._connections.pop(connection, None)

    async def stop(self, grace: float) -> None:
        """Take no more clients; who has begun a message may finish within *grace* seconds."""
        for server in self._servers:
            server.close()
        until = asyncio.get_running_loop().time() + grace
        while begun := [c for c in self._connections if c.transport is not None]:
            late = asyncio.get_running_loop().time() >= until
            _leave([c for c in begun if late or not c.submission.is_under_way])
            if late:
                return
            await asyncio.sleep(POLL)


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


def _leave(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.leave()


def _is_plain(address: str) -> bool:
    """Say whether *address* can be handed on, in angle brackets of which it has none itself.

    No control characters, and of ASCII; aiosmtpd's parser decodes what RFC 2047 encodes.
    """
    is_path = address == "<>" or PATH.fullmatch(address) is not None
    return is_path and address.isascii() and address.isprintable()
