"""A submission server's clients: who is served, from the first byte on until it has to leave.

It is no open relay by construction: without a login MAIL is refused, and there is no
setting for it.
"""

import asyncio
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Sequence

from pysaslauthd.engine.audit import escaped
from pysaslauthd.server.complaints import Complaints
from pysaslauthd.server.message import read_message
from pysaslauthd.server.smtp import HandshakeFailed, SaslSMTP
from pysaslauthd.server.submission import INTERNAL, Rules, Submission

log = logging.getLogger(__name__)

IDENT = "ESMTP pysaslsmtpd"
TIMEOUT = "421 4.4.2 {host} Error: timeout exceeded"
LEAVING = "421 4.3.2 {host} Error: this server is leaving"
CALLS = {"*": 100, "MAIL": 10_000, "RCPT": 100_000, "DATA": 10_000, "RSET": 10_000}
HANDSHAKE_SECONDS = 15
POLL = 0.05  # seconds


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
            client = escaped(self.client_address)
            log.error("fault while serving a connection: [remote=%s]", client, exc_info=error)
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
            self.submission.note_too_large(self, session, envelope, reply)
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
        self._complaints = Complaints(log)

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
        self._complaints.warning(
            "too many connections: one from %s is not served; find out who has them, or raise"
            " --connections",
            escaped(address),
        )
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


def _leave(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.leave()
