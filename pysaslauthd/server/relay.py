"""Hands a message on to the server behind this one, command by command, as its client gives it.

Whoever submits hears that server's own answers, of every recipient too; what it has
not taken, nobody has. XCLIENT (Postfix's XCLIENT_README) tells it who logged in, where
it offers to listen. Where it cannot be reached, or is silent, the answer is 451.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Iterable, Mapping
from typing import NamedTuple, Self

from aiosmtplib import SMTP, SMTPException, SMTPResponse, SMTPResponseException

from pysaslauthd.engine.audit import escaped

log = logging.getLogger(__name__)

NOT_TAKEN = "451 4.3.5 Error: the mail server behind this one takes nothing from it"
UNREACHABLE = "451 4.4.1 Error: the mail server behind this one cannot be reached"
LOST = "451 4.4.2 Error: the mail server behind this one does not answer"
GREETING_SECONDS = 30.0  # to connect, and until it knows who we are
COMMAND_SECONDS = 60.0
LONGEST_HELO = 255  # bytes as they are written: Postfix refuses XCLIENT where they are more
MOST_LINES, LONGEST_TEXT = 10, 400  # of an answer that is passed on
TAKEN, REFUSED_LATER = 200, 400  # the first codes of either kind
XTEXT = re.compile(rb"[^!-~]|[+=]")  # what RFC 3461 section 4 wants written in hexadecimal
CUT_OFF = re.compile(rb"\+.?\Z")  # what is left of a hexadecimal one
ACCEPTED_GREETING = 220
WANTS_LOGIN = 530


class Upstream(NamedTuple):
    """The server behind this one; *seconds*: how long it may take over a message that it has."""

    host: str
    port: int
    seconds: float = 120.0


class Submitter(NamedTuple):
    """Who submits: the client's *address*, what it calls itself, and as whom it has logged in."""

    address: str
    helo: str
    login: str


class Relay:
    """A connection to the server behind this one, for one message; answers are SMTP replies."""

    def __init__(self, upstream: Upstream, client: SMTP) -> None:
        self._upstream = upstream
        self._client = client
        self._is_asking = False
        self.has_told_client = False  # by XCLIENT, so that its own trace names the client

    @classmethod
    async def open(cls, upstream: Upstream, host: str, submitter: Submitter) -> Self | str:
        """Return a connection on which MAIL may follow, else the reply that says why there is none.

        *host* is who we say we are.
        """
        client = SMTP(
            hostname=upstream.host,
            port=upstream.port,
            local_hostname=host,
            use_tls=False,
            start_tls=False,
            timeout=None,  # each step has its own
        )
        relay = cls(upstream, client)
        reply = await relay._ask(relay._introduce(submitter), GREETING_SECONDS, UNREACHABLE)
        if _is_taken(reply):
            return relay
        relay.close()
        # Whatever it has against us is not the client's fault.
        return UNREACHABLE

    async def mail(self, sender: str, options: Iterable[str]) -> str:
        """Return the reply to MAIL; *options* that are not offered there are left out."""
        offered = [
            option.encode()
            for option in options
            if self._client.supports_extension(_extension(option))
        ]
        command = self._client.execute_command(b"MAIL", b"FROM:" + _path(sender), *offered)
        return await self._ask(command, COMMAND_SECONDS)

    async def rcpt(self, recipient: str) -> str:
        """Return the reply to RCPT."""
        command = self._client.execute_command(b"RCPT", b"TO:" + _path(recipient))
        return await self._ask(command, COMMAND_SECONDS)

    async def data(self, content: bytes) -> str:
        """Return the reply to the message: 250 says that the server behind this one has it."""
        return await self._ask(self._client.data(content, timeout=None), self._upstream.seconds)

    def close(self) -> None:
        """Leave, without waiting for the answer to that; what is not complete there is undone."""
        transport = self._client.transport
        if isinstance(transport, asyncio.WriteTransport):
            # Who has refused a message need not read the rest of it.
            if self._is_asking or transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.write(b"QUIT\r\n")
        self._client.close()

    async def _introduce(self, submitter: Submitter) -> SMTPResponse:
        await self._client.connect()
        response = await self._client.ehlo()
        attributes = self._client.esmtp_extensions.get("xclient", "").upper().split()
        told = _xclient(submitter, attributes)
        if not told:
            return response
        answer = await self._client.execute_command(b"XCLIENT", *told)
        if answer.code != ACCEPTED_GREETING:
            raise SMTPResponseException(answer.code, answer.message)
        self.has_told_client = "ADDR" in attributes
        return await self._client.ehlo()

    async def _ask(
        self, work: Awaitable[SMTPResponse], seconds: float, on_silence: str = LOST
    ) -> str:
        self._is_asking = True
        try:
            async with asyncio.timeout(seconds):
                response = await work
            self._is_asking = False
        except asyncio.CancelledError:  # the client has gone
            self.close()
            raise
        except (SMTPException, OSError, TimeoutError) as error:
            if not (isinstance(error, SMTPResponseException) and _is_refusal(error.code)):
                self.close()
                log.error("relay %s:%d: %s", *self._upstream[:2], _told(error))
                return on_silence
            self._is_asking = False
            response = SMTPResponse(error.code, error.message)
        if response.code == WANTS_LOGIN:
            # Ours is not for it; and the client, which has logged in, must not be asked again.
            log.error("relay %s:%d wants a login itself: %s", *self._upstream[:2], _reply(response))
            return NOT_TAKEN
        return _reply(response)


def _is_taken(reply: str) -> bool:
    return reply.startswith("2")


def _is_refusal(code: int) -> bool:
    """Say whether *code*, which is not the one that was to come, is an answer all the same.

    Another success is none, such as 250 to DATA, of which no message has been sent:
    the two sides are out of step, as they are after what is no reply.
    """
    return REFUSED_LATER <= code < REFUSED_LATER + 200


def _told(error: Exception) -> str:
    """Return what the log says of *error*, which may quote the server."""
    return escaped(str(error)) or "no answer in time"


def _extension(option: str) -> str:
    keyword = option.partition("=")[0].lower()
    return "8bitmime" if keyword == "body" else keyword


def _path(address: str) -> bytes:
    return b"<%b>" % address.removeprefix("<").removesuffix(">").encode()


def _xclient(submitter: Submitter, attributes: Iterable[str]) -> list[bytes]:
    """Return the words of XCLIENT that the server wants to hear; none where LOGIN is not one."""
    address, _, _ = submitter.address.partition("%")  # of an interface nobody else knows
    values: Mapping[str, str] = {
        "NAME": "[UNAVAILABLE]",
        "ADDR": f"IPV6:{address}" if ":" in address else address or "[UNAVAILABLE]",
        "PROTO": "ESMTP",
        "HELO": submitter.helo,
        "LOGIN": submitter.login,
    }
    offered = set(attributes)
    if "LOGIN" not in offered:
        return []
    said = {name: _xtext(value) for name, value in values.items() if name in offered}
    if "HELO" in said:
        said["HELO"] = CUT_OFF.sub(b"", said["HELO"][:LONGEST_HELO])
    return [b"%b=%b" % (name.encode(), value) for name, value in said.items()]


def _xtext(value: str) -> bytes:
    return XTEXT.sub(lambda found: b"+%02X" % found[0][0], value.encode())


def _reply(response: SMTPResponse) -> str:
    """Return *response* for our client: what is no answer to it, such as 421, is 451."""
    code = response.code
    is_answer = TAKEN <= code < TAKEN + 100 or _is_refusal(code)
    code = code if is_answer and code != 421 else 451
    printable = response.message.encode("ascii", "replace").decode().splitlines()[:MOST_LINES]
    lines = ["".join(filter(str.isprintable, line))[:LONGEST_TEXT] for line in printable] or [""]
    return "\r\n".join([*(f"{code}-{line}" for line in lines[:-1]), f"{code} {lines[-1]}"])
