"""AUTH for servers built with aiosmtpd: every mechanism, backend and policy of this package.

aiosmtpd speaks SMTP; this class takes over AUTH and what EHLO says of it:

    class Mail(Controller):
        def factory(self) -> SMTP:
            return SaslSMTP(self.handler, auth=AUTH, auth_required=True)

where AUTH is made once, such as by `Auth.of(exchanges(Static({...}), "example.org"), "mail")`.
"""

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, AnyStr

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from pysaslauthd.engine.audit import escaped
from pysaslauthd.model import Origin
from pysaslauthd.sasl.server.mechanism import Finished, Mechanism
from pysaslauthd.server.auth import Auth, Login, State
from pysaslauthd.smtp.banner import in_order
from pysaslauthd.smtp.dialogue import (
    LONGEST_LINE,
    REFUSED,
    Connection,
    Dialogue,
    Reply,
    Respond,
    Start,
)

log = logging.getLogger(__name__)

TLS_ACTIVE = "554 5.5.1 Error: TLS already active"
HandshakeFailed = TLSSetupException
LONGEST_COMMAND = LONGEST_LINE + 64  # bytes: AUTH, the longest mechanism's name, its response

# Seconds: who does not read what is to be sent before a connection ends, would keep it for ever.
LINGER = 5.0

# The address of MAIL, whose local part may be in quotes; what follows it are parameters.
MAIL = re.compile(r'\s*FROM:\s*<(?:"(?:[^"\\]|\\.)*"|[^">])*>', re.IGNORECASE)
AUTH_PARAMETER = re.compile(r"\sAUTH=\S+(?=\s|$)", re.IGNORECASE)


class SaslSMTP(SMTP):
    """An aiosmtpd server whose AUTH is *auth*'s; *options* are aiosmtpd's.

    Of these, those about AUTH have no effect, but for auth_required. Who has logged in
    is in `session.auth_data`, a Login, and `session.authenticated` is true, except for
    ANONYMOUS, for which auth_required is not met.
    """

    # Also the longest line of a message, which RFC 5321 lets a server have longer than 1000.
    line_length_limit = LONGEST_COMMAND

    def __init__(self, handler: object, *, auth: Auth, **options: Any) -> None:
        # Ours: that of the class is all servers' in common, and grows with every EHLO.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        super().__init__(handler, **{**options, "auth_require_tls": True})
        if self._ehlo_hook_ver == "old":
            raise TypeError("handle_EHLO has five arguments, the last of them the lines so far")
        self._ehlo_hook_ver = "new"
        self._auth = auth
        self._until = 0.0  # when a silent client is given up, by the loop's time
        self._unasked = 0  # bytes that have come since the last command
        only_with_tls = auth.offer.policy.only_with_tls
        self._dialogue = Dialogue(self.hostname, auth.tries, only_with_tls=only_with_tls)

    def __dir__(self) -> Iterable[str]:
        """Return the commands: aiosmtpd looks at all there is, for each connection anew."""
        return self._commands()

    @classmethod
    @cache
    def _commands(cls) -> list[str]:
        return [name for name in dir(cls) if name.startswith("smtp_")]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or begin again within TLS, where nobody has logged in yet."""
        super().connection_made(transport)
        self._dialogue.restart()
        # A connection that was reset ends it with an exception, for nobody to see.
        if self._handler_coroutine is not None:
            self._handler_coroutine.add_done_callback(_look_away)

    def data_received(self, data: bytes) -> None:
        """Take what comes; of what has no end no more than two messages' worth.

        aiosmtpd keeps a line of a message to its end, however long it is.
        """
        self._unasked += len(data)
        limit = self.data_size_limit
        if limit and self._unasked > 2 * limit + LONGEST_COMMAND:
            if isinstance(self.transport, asyncio.WriteTransport):
                self.transport.abort()
            return
        super().data_received(data)

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Begin to wait anew; a timer for each command would cost more than most commands."""
        self._unasked = 0
        self._until = self.loop.time() + (duration or self._timeout_duration)
        timer = self._timeout_handle
        if timer is None or timer.when() > self._until:
            if timer is not None:
                timer.cancel()
            self._timeout_handle = self.loop.call_at(self._until, self._look_at_time)

    def _look_at_time(self) -> None:
        now, transport = self.loop.time(), self.transport
        if now < self._until:
            self._timeout_handle = self.loop.call_at(self._until, self._look_at_time)
        elif isinstance(transport, asyncio.WriteTransport) and transport.is_closing():
            transport.abort()
        else:
            self._timeout_cb()  # type: ignore[no-untyped-call]
            self._until = now + LINGER
            self._timeout_handle = self.loop.call_at(self._until, self._look_at_time)

    @property
    def is_secured(self) -> bool:
        """Say whether this connection is within TLS, from its beginning or by STARTTLS."""
        return self.transport is not None and bool(self.transport.get_extra_info("sslcontext"))

    @property
    def client_address(self) -> str:
        """The client's IP address, such as a PROXY line names; "" where there is none."""
        session = self.session
        if session is None:  # aiosmtpd looks at every attribute before there is a client
            return ""
        peer: object = session.peer
        if session.proxy_data is not None:
            return str(session.proxy_data.src_addr or "")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def be_patient(self, seconds: float) -> None:
        """Give the client so many seconds until its next command."""
        self._reset_timeout(seconds)

    async def push(self, status: AnyStr) -> None:
        """Send a reply, and let others have their turn: what has come is read without waiting."""
        await super().push(status)
        await asyncio.sleep(0)

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 (aiosmtpd's name)
        """Tell what there is; aiosmtpd asks the hook below for the lines."""
        self.command_size_limits.clear()
        self.command_size_limits["AUTH"] = LONGEST_COMMAND
        await super().smtp_EHLO(hostname)

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802 (aiosmtpd's name)
        """Begin with TLS, unless that has been done; the code is Postfix's."""
        if self.is_secured:
            await self.push(TLS_ACTIVE)
        else:
            await super().smtp_STARTTLS(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 (aiosmtpd's name)
        """Begin a message; whom AUTH= names is not believed (RFC 4954 section 5)."""
        if arg and (address := MAIL.match(arg)):
            arg = address[0] + AUTH_PARAMETER.sub("", arg[address.end() :])
        await super().smtp_MAIL(arg)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Return address and rest of *arg*; None where there is none.

        The parser of Python's email package falls over some of those.
        """
        try:
            address, rest = super()._getaddr(arg)
        except (AttributeError, IndexError, UnboundLocalError):
            return None, None
        return address, rest

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802 (aiosmtpd's name)
        """Let the client log in, or not."""
        state = self._auth.state(secured=self.is_secured)
        step = self._begin(arg or "", state)
        if isinstance(step, Reply):
            self._note_refusal(step)
            await self._say(step)
            return
        mechanism, initial = step
        exchange = self._auth.exchanges.start(
            mechanism, state.surroundings, initial, self._origin()
        )
        said = self._dialogue.tell(await exchange.proceed(None))
        while await self._say(said):
            heard = self._dialogue.hear(await self._read_response())
            if isinstance(heard, Respond):
                said = self._dialogue.tell(await exchange.proceed(heard.response))
            else:
                self._note_refusal(heard)
                said = heard
        if self._dialogue.accepted is not None:
            self._note_login(self._dialogue.accepted, mechanism)

    def _note_refusal(self, reply: Reply) -> None:
        """Log a refusal that no exchange has logged, for it had not begun, or not ended."""
        if reply.lines[0].startswith(REFUSED):
            log.info(
                "auth failure: [user=] [service=%s] [realm=] [remote=%s] [mech=smtp] [reason=%s]",
                self._auth.surroundings.service,
                escaped(self.client_address),
                reply.lines[0].removeprefix(REFUSED),
            )

    def _begin(self, argument: str, state: State) -> Start | Reply:
        session, envelope = self._here()
        connection = Connection(
            greeted=bool(session.host_name),
            secured=self.is_secured,
            in_transaction=envelope.mail_from is not None,
        )
        return self._dialogue.begin(
            argument.encode(errors="surrogateescape"), connection, state.offered
        )

    async def _say(self, reply: Reply) -> bool:
        """Send *reply* when it is due; say whether the client's response follows."""
        if reply.delay:
            await asyncio.sleep(reply.delay)
        for line in reply.lines:
            await self.push(line)
        if reply.closes and self.transport is not None:
            self.transport.close()
            # Here, lest what the client has sent already be followed still.
            raise asyncio.CancelledError
        return reply.awaits_response

    async def _read_response(self) -> bytes:
        """Return the client's next line without its end; of one that is too long the beginning."""
        self._reset_timeout()  # which closes the connection when it is due
        try:
            line = await self._reader.readuntil()
        except asyncio.LimitOverrunError as error:
            line = await self._reader.readexactly(error.consumed)
            await self._skip_line()
        return line.removesuffix(b"\n").removesuffix(b"\r")

    async def _skip_line(self) -> None:
        while True:
            try:
                await self._reader.readuntil()
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
            else:
                return

    def _note_login(self, end: Finished, mechanism: Mechanism) -> None:
        session, _ = self._here()
        # As for Postfix's permit_sasl_authenticated: who has no name has not shown that it may.
        session.authenticated = not mechanism.traits.anonymous
        session.auth_data = Login(  # type: ignore[assignment]  # it may be anything, says its text
            end.authcid, end.authzid or end.authcid, mechanism.name
        )

    def _here(self) -> tuple[Session, Envelope]:
        # Both are there from the first moment of a connection.
        assert self.session is not None  # noqa: S101 (for the type checker)
        assert self.envelope is not None  # noqa: S101 (the same)
        return self.session, self.envelope

    def _origin(self) -> Origin:
        return Origin(self._auth.surroundings.service, self.client_address)

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        """Ask the handler; what EHLO says of AUTH is ours, and the order of its lines Postfix's."""
        if command != "EHLO":
            return await super()._call_handler_hook(command, *args)
        hostname, lines = args
        if "EHLO" in self._handle_hooks:
            lines = await super()._call_handler_hook(command, hostname, lines)
        else:
            self._here()[0].host_name = hostname
        return self._with_auth(lines)

    def _with_auth(self, lines: Sequence[str]) -> list[str]:
        if not lines or not all(line.startswith("250") for line in lines):
            return list(lines)  # the handler refuses
        host, *others = (line[4:] for line in lines)
        others = [one for one in others if not one.upper().startswith(("AUTH ", "AUTH="))]
        ours = self._auth.state(secured=self.is_secured).lines
        *first, last = [host, *in_order([*others, *ours])]
        # In one piece, for each is a packet.
        return ["\r\n".join([*(f"250-{one}" for one in first), f"250 {last}"])]


def _look_away(task: asyncio.Task[None]) -> None:
    """Take the ConnectionError of a *task* that has ended, lest the loop log one nobody saw."""
    if (
        not task.cancelled()
        and not isinstance(error := task.exception(), ConnectionError)
        and error
    ):
        log.error("fault while serving a connection", exc_info=error)
