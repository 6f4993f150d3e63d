"""Asks an HTTP server whether a password is right, by posting a form to it.

Facts: protocols/backends.md section 6. Any answer but yes and no, and none, is an outage.
"""

import asyncio
import contextlib
import select
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from pysaslauthd.backends.base import Naming
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable
from pysaslauthd.remote.connect import Connector, Unreachable, describe
from pysaslauthd.remote.endpoint import Security
from pysaslauthd.wire.form import Form, presentable

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

NAME = "httpform"
YES = frozenset({200, 204})
NO = frozenset({401, 403})
VERDICTS = YES | NO

# Servers keep a connection for 2 s (gunicorn) to 75 s (nginx): ours must be over before theirs.
KEPT = 1.5  # seconds
LARGEST_BODY = 65_536  # bytes; after more, a new connection is cheaper than the rest
BODY_WITHIN = 0.1  # seconds for which a verdict waits for the rest of its answer


class Httpform:
    """The backend `-a httpform`: *template* is posted to *uri* on the server of *connector*.

    There are at most *connections*, kept for the next question for a moment;
    who finds all of them busy waits. Belongs to the running event loop.
    """

    name = NAME
    naming = Naming.BOTH
    waits = True
    uses_address = False

    def __init__(self, connector: Connector, uri: str, template: str, connections: int) -> None:
        self._connector = connector
        self._server = connector.endpoint
        scheme = "https" if self._server.security is Security.TLS else "http"
        # As it is, though it may not be what a URL's path should look like.
        self._url = URL(f"{scheme}://{self._server}", encoded=True).with_path(uri, encoded=True)
        self._form = Form(template)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Leave the first connection to the first request."""

    def retire(self) -> None:
        """Do nothing: a connection that is not used any more ends by itself after a moment."""

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def verify(self, request: AuthRequest, /) -> AuthResult:
        """Return the server's verdict; `Unavailable` where it gives none."""
        form = self._form.fill(request.user, request.password.reveal(), request.realm)
        course = _Course()
        COURSE.set(course)
        try:
            status, phrase = await self._ask(form, course)
        except asyncio.CancelledError as error:
            error.add_note(f"while waiting for {course.waits_for} {self._server}")
            raise
        except (Unreachable, aiohttp.ClientError) as error:
            return Unavailable(self._explain(error), NAME)
        return self._judge(status, phrase, request)

    async def _ask(self, form: bytes, course: "_Course") -> tuple[int, bytes]:
        """Return status and phrase of the answer.

        A server may close a kept connection just when it is used again: then, and then
        only, it is asked once more. Most likely it has not read the request; and if it
        has, the same password has the same verdict. At worst a wrong one counts twice.
        Others that were kept at that time are as likely to be gone, and are not used.
        """
        try:
            return await self._post(form)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not course.is_on_kept:
                raise
        course.not_before = asyncio.get_running_loop().time()
        return await self._post(form)

    async def _post(self, form: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = self._make_session()
        async with self._session.post(self._url, data=form, allow_redirects=False) as response:
            if response.status in VERDICTS and not response.content.is_eof():
                await _finish(response)
            return response.status, (response.reason or "").encode(errors="surrogateescape")

    def _make_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connections(self._connector, self._connections),
            headers={
                "Host": str(self._server),
                "User-Agent": "saslauthd",
                "Accept": "*/*",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            skip_auto_headers=["Accept-Encoding"],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the engine's deadline bounds the whole
        )

    def _judge(self, status: int, phrase: bytes, request: AuthRequest) -> AuthResult:
        if status in YES:
            return Accepted(request.user, NAME, "remote authentication successful")
        text = presentable(phrase, request.password)
        if status in NO:
            return Rejected(Reason.WRONG_PASSWORD, NAME, text)
        return Unavailable(f"{self._server}: neither yes nor no: {status} {text}".rstrip(), NAME)

    def _explain(self, error: Exception) -> str:
        match error:
            case Unreachable():
                return str(error)
            case (
                aiohttp.ServerDisconnectedError()
                | aiohttp.ClientOSError(__cause__=aiohttp.ClientConnectionResetError())
            ):
                return f"{self._server}: it hung up without an answer"
            case aiohttp.ClientOSError():
                cause = error.__cause__
                return f"{self._server}: {describe(cause if isinstance(cause, OSError) else error)}"
            case aiohttp.ClientResponseError():  # its text has some of the answer
                return f"{self._server}: what it answers is not HTTP"
        return f"{self._server}: no answer ({type(error).__name__})"


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Take the rest of an answer, if it is short and comes soon: only then is a connection kept."""
    taken = 0
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(BODY_WITHIN):
            async for piece in response.content.iter_any():
                taken += len(piece)
                if taken > LARGEST_BODY:
                    return


class _Course:
    """How far a request has come."""

    waits_for = "a free connection to"
    is_on_kept = True
    not_before = 0.0  # in the event loop's time: connections made before are not used


COURSE: ContextVar[_Course] = ContextVar("COURSE")


class _Connection(ResponseHandler):
    """One connection, *made* at that time of the event loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.made = loop.time()

    def has_begun(self) -> bool:
        """Say whether an answer has begun to come; aiohttp forgets that at the next request."""
        return self._parser is not None and self._parser.feed_eof() is not None

    def close(self) -> None:
        """End it; at once where the server has not taken all of a request, for it may never."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()


class _Connections(aiohttp.BaseConnector):
    """Keeps connections that *connector* makes, and notes the course of the request at hand."""

    def __init__(self, connector: Connector, most: int) -> None:
        super().__init__(limit=most, keepalive_timeout=KEPT)
        self._connector = connector

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list["Trace"],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's own signature)
    ) -> "Connection":
        """Return a connection on which nothing has come that nobody has asked for.

        It would be taken for the answer to this request (RFC 9112 section 9.2;
        aio-libs/aiohttp#13656), and might say yes to anything.
        """
        course = COURSE.get()
        for _ in range(self.limit + 1):
            course.waits_for, course.is_on_kept = "a free connection to", True
            connection = await super().connect(req, traces, timeout)
            if _is_clean(connection, course):
                course.waits_for = "the answer of"
                return connection
            connection.close()
        raise Unreachable(f"{self._connector.endpoint}: it answers before it is asked")

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list["Trace"],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (the same)
    ) -> ResponseHandler:
        course = COURSE.get()
        course.waits_for, course.is_on_kept = "a connection to", False
        return await self._connector.connect(partial(_Connection, self._loop))


def _is_clean(connection: "Connection", course: _Course) -> bool:
    protocol, transport = connection.protocol, connection.transport
    if not isinstance(protocol, _Connection) or transport is None or protocol.should_close:
        return False
    if not course.is_on_kept:  # on a new one TLS may have to say more
        return True
    is_old = protocol.made <= course.not_before
    return not (is_old or protocol.has_begun() or _can_be_read(transport))


def _can_be_read(transport: asyncio.Transport) -> bool:
    """Say whether something has come that the event loop has not seen yet, if only the end."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))
