"""The httpform backend and servers that do what no web server should."""

import asyncio
import gzip
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.backends import httpform
from pysaslauthd.backends.httpform import LARGEST_BODY, Httpform
from pysaslauthd.model import Accepted, AuthResult, Reason, Rejected, Unavailable
from pysaslauthd.remote.connect import Connector, P
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.remote.tls import TlsRules
from tests.contract.verifier import request_for
from tests.helpers.processes import DEADLINE
from tests.helpers.web import (
    DATA,
    LOOPBACK,
    NO,
    URI,
    YES,
    Handle,
    Peer,
    answering,
    backend,
    scripted,
)
from tests.helpers.workers import count_descriptors, eventually

ACCEPTED = Accepted("joe", "httpform", "remote authentication successful")
NO_TIME, PATIENCE = 0.05, 1.0  # seconds
LENGTH_0 = b"\r\nContent-Length: 0\r\n\r\n"
PIECE = b"x" * 4096
# Sockets of both sides hold some megabytes that nobody has read.
MUCH = 64 * 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither aiohttp nor the event loop complains of anything that was not looked after."""
    yield
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def ask(subject: Httpform, password: bytes = b"pw") -> AuthResult:
    async with asyncio.timeout(DEADLINE):
        return await subject.verify(request_for("joe", password))


async def verdict(handle: Handle, password: bytes = b"pw") -> AuthResult:
    """Return what is made of a server that does as *handle* says."""
    async with scripted(handle) as web, backend(web.port) as subject:
        return await ask(subject, password)


async def fault(handle: Handle) -> str:
    """Return why there was no verdict, without the server's name."""
    async with scripted(handle) as web, backend(web.port) as subject:
        result = await ask(subject)
        assert isinstance(result, Unavailable)
        assert result.detail.startswith(f"{LOOPBACK}:{web.port}: ")
        return result.detail.partition(": ")[2]


class TestStatusLines:
    @pytest.mark.parametrize(
        "line",
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 204 No Content",
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 200 No, really not",
            b"HTTP/1.1 200 ",
            b"HTTP/1.1 200",
        ],
        ids=repr,
    )
    async def test_200_and_204_are_yes(self, line: bytes) -> None:
        assert await verdict(answering(line + LENGTH_0)) == ACCEPTED

    @pytest.mark.parametrize(
        ("line", "text"),
        [
            (b"HTTP/1.1 403 User unknown", "User unknown"),
            (b"HTTP/1.0 403 Yes, of course", "Yes, of course"),
            (b"HTTP/1.1 403 ", ""),
            (b"HTTP/1.1 403", ""),
            (b"HTTP/1.1 403 a\x01b", "a?b"),
            (b"HTTP/1.1 403 J\xc3\xbcrgen", "Jürgen"),
            (b"HTTP/1.1 401 Unauthorized", "Unauthorized"),
        ],
        ids=repr,
    )
    async def test_403_and_401_are_no_for_the_reason_they_tell(
        self, line: bytes, text: str
    ) -> None:
        expected = Rejected(Reason.WRONG_PASSWORD, "httpform", text)

        assert await verdict(answering(line + LENGTH_0)) == expected

    @pytest.mark.parametrize("status", [201, 202, 205, 206, 207, 299, 304, 400, 402, 404, 405])
    async def test_no_other_status_is_either(self, status: int) -> None:
        line = b"HTTP/1.1 %d Some words" % status

        assert await fault(answering(line + LENGTH_0)) == f"neither yes nor no: {status} Some words"

    @pytest.mark.parametrize("status", [407, 408, 413, 418, 429, 451, 500, 502, 503, 504, 599, 999])
    async def test_an_error_of_the_server_is_an_outage(self, status: int) -> None:
        line = b"HTTP/1.1 %d" % status

        assert await fault(answering(line + LENGTH_0)) == f"neither yes nor no: {status}"

    async def test_another_protocol_is_an_outage(self) -> None:
        line = b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + YES

        assert await fault(answering(line)) == "neither yes nor no: 101 Switching"

    @pytest.mark.parametrize(
        "line",
        [
            b"HTTP/2 200 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 +200 OK",
            b"HTTP/1.1\t200\tOK",
            b"HTTP/1.1 two hundred",
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"200 OK",
            b"OK",
            b"\0HTTP/1.1 200 OK",
            b"junk\r\nHTTP/1.1 200 OK",
            b"<html>HTTP/1.1 200 OK",
            b"HTTP/1.1 200 " + b"x" * 20_000,
        ],
        ids=lambda line: repr(line[:30]),
    )
    async def test_what_is_no_status_line_is_an_outage(self, line: bytes) -> None:
        assert await fault(answering(line + LENGTH_0)) == "what it answers is not HTTP"

    async def test_what_is_not_the_answer_yet_is_passed_over(self) -> None:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"

        assert isinstance(await verdict(answering(early + NO)), Rejected)

    async def test_an_answer_may_come_byte_by_byte(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            for byte in NO:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0)
            await peer.leaving()

        assert isinstance(await verdict(handle), Rejected)


SECRET = b"h&nter 2+2"


class TestEchoes:
    """A server may say what it was sent: the form, or the password alone."""

    @pytest.mark.parametrize(
        "echo",
        [
            SECRET,
            b"user=joe&password=h%26nter%202%2B2&realm=r",
            b"h%26nter+2%2b2",
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("status", [403, 401, 400, 500])
    async def test_a_phrase_that_repeats_the_password_is_dropped(
        self, echo: bytes, status: int
    ) -> None:
        line = b"HTTP/1.1 %d You sent %s" % (status, echo)

        result = await verdict(answering(line + LENGTH_0), SECRET)

        assert not isinstance(result, Accepted)
        assert "nter" not in repr(result)
        assert "sent" not in repr(result)

    async def test_an_answer_that_is_no_http_is_not_repeated(self) -> None:
        result = await verdict(answering(b"You sent " + SECRET + b"\r\n\r\n"), SECRET)

        assert isinstance(result, Unavailable)
        assert "nter" not in repr(result)


class TestBrokenConnections:
    async def test_a_server_that_hangs_up_is_an_outage(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()

        assert await fault(handle) == "it hung up without an answer"

    @pytest.mark.parametrize(
        "part", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n"], ids=repr
    )
    async def test_half_an_answer_is_none(self, part: bytes) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(part)

        assert await fault(handle) == "it hung up without an answer"

    async def test_a_server_that_crashes_is_an_outage(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            peer.reset()

        assert await fault(handle) == "Connection reset by peer"

    async def test_one_request_is_one_on_a_new_connection(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()

        async with scripted(handle) as web, backend(web.port) as subject:
            await ask(subject)

            assert (web.connections, len(web.requests)) == (1, 1)


class TestKeptConnections:
    async def test_one_that_ends_when_it_is_used_costs_no_answer(self) -> None:
        first = True

        async def handle(peer: Peer) -> None:
            nonlocal first
            await peer.request()
            await peer.send(NO if first else YES)
            first = False
            await peer.request()  # and then the end

        async with scripted(handle) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(2)]

            assert results == [
                Rejected(Reason.WRONG_PASSWORD, "httpform", "Wrong password"),
                ACCEPTED,
            ]
            assert (web.connections, len(web.requests)) == (2, 3)

    async def test_a_crash_then_costs_none_either(self) -> None:
        first = True

        async def handle(peer: Peer) -> None:
            nonlocal first
            await peer.request()
            await peer.send(NO if first else YES)
            first = False
            await peer.request()
            peer.reset()

        async with scripted(handle) as web, backend(web.port) as subject:
            await ask(subject)

            assert await ask(subject) == ACCEPTED

    async def test_so_do_others_that_end_with_it(self) -> None:
        both = asyncio.Barrier(2)
        restarted = False

        async def handle(peer: Peer) -> None:
            await peer.request()
            if not restarted:
                await both.wait()
            await peer.send(YES)
            await peer.request()
            peer.reset()

        async with scripted(handle) as web, backend(web.port, connections=2) as subject:
            await asyncio.gather(ask(subject), ask(subject))
            restarted = True

            assert await ask(subject) == ACCEPTED
            assert (web.connections, len(web.requests)) == (3, 4)

    async def test_a_request_is_repeated_once_only(self) -> None:
        gone_after = asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.request()
            if gone_after.is_set():
                return
            await peer.send(YES)
            gone_after.set()
            await peer.request()

        async with scripted(handle) as web, backend(web.port) as subject:
            await ask(subject)
            result = await ask(subject)

            assert isinstance(result, Unavailable)
            assert len(web.requests) == 3

    @pytest.mark.parametrize("stray", [YES, YES[:20], b"x", b"\r\n"], ids=repr)
    async def test_what_comes_unasked_is_no_answer_to_the_next_request(self, stray: bytes) -> None:
        go_on, came = asyncio.Event(), asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(NO)
            await go_on.wait()
            if not came.is_set():
                await peer.send(stray)
                came.set()
            await peer.leaving()

        async with scripted(handle) as web, backend(web.port) as subject:
            await ask(subject)
            go_on.set()
            await came.wait()
            result = await ask(subject)

            assert isinstance(result, Rejected)
            assert web.connections == 2

    async def test_nor_is_what_has_been_read_already(self) -> None:
        """aiohttp would take it: aio-libs/aiohttp#13656."""

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(NO)
            await peer.send(YES)
            await peer.leaving()

        async with scripted(handle) as web, backend(web.port) as subject:
            results = []
            for _ in range(3):
                results.append(await ask(subject))
                for _ in range(10):
                    await asyncio.sleep(0)

            assert [type(result) for result in results] == [Rejected] * 3
            assert web.connections == 3

    async def test_nor_is_the_rest_of_what_has_been_read_already(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(NO + b"HTTP/1.1 403 No\r\nX-Stray: ")
            await peer.request()
            await peer.send(YES)
            await peer.leaving()

        async with scripted(handle) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(2)]

            assert [type(result) for result in results] == [Rejected] * 2
            assert web.connections == 2

    async def test_two_answers_in_one_piece_are_one(self) -> None:
        async with scripted(answering(NO + YES)) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(3)]

            assert [type(result) for result in results] == [Rejected] * 3
            assert web.connections == 3

    async def test_after_an_outage_there_is_a_new_one(self) -> None:
        error = b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n"

        async with scripted(answering(error, YES)) as web, backend(web.port) as subject:
            await ask(subject)
            web.requests.clear()
            await ask(subject)

            assert web.connections == 2


class Patient(Connector):
    """Is connected only when the server has said something."""

    async def connect(self, make: Callable[[], P]) -> P:
        connected = await super().connect(make)
        assert isinstance(connected, ResponseHandler)
        await eventually(lambda: connected.should_close, "a word of the server")
        return connected


class Narrow(Connector):
    """Makes connections that hold little of what the server does not take."""

    async def connect(self, make: Callable[[], P]) -> P:
        connected = await super().connect(make)
        assert isinstance(connected, ResponseHandler)
        assert connected.transport is not None
        connection = connected.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connected


class Held(Connector):
    """Is connected only when *go_on* is set."""

    go_on: asyncio.Event

    async def connect(self, make: Callable[[], P]) -> P:
        connected = await super().connect(make)
        await self.go_on.wait()
        return connected


async def test_a_backend_that_is_closed_meanwhile_has_no_verdict() -> None:
    async with scripted(answering(YES)) as web:
        connector = Held(Endpoint(LOOPBACK, web.port, Security.NONE), None, 5.0)
        connector.go_on = asyncio.Event()
        subject = Httpform(connector, URI, DATA, 1)
        asking = asyncio.create_task(ask(subject))
        await eventually(lambda: web.connections == 1, "a connection")

        await subject.close()
        connector.go_on.set()

        assert await asking == Unavailable(
            f"{LOOPBACK}:{web.port}: no answer (ClientConnectionError)", "httpform"
        )


class TestServersThatSpeakFirst:
    async def test_they_are_an_outage(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.send(YES)
            await peer.leaving()

        async with scripted(handle) as web:
            connector = Patient(Endpoint(LOOPBACK, web.port, Security.NONE), None, 5.0)
            subject = Httpform(connector, URI, DATA, 2)

            result = await ask(subject)
            await subject.close()

            assert result == Unavailable(
                f"{LOOPBACK}:{web.port}: it answers before it is asked", "httpform"
            )
            assert web.requests == []


class TestTooMuch:
    async def test_headers_without_end_are_an_outage(self) -> None:
        sent = 0

        async def handle(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            while sent < MUCH:
                await peer.send(b"A: " + PIECE + b"\r\n")
                sent += len(PIECE)

        assert await fault(handle) == "what it answers is not HTTP"
        assert sent < MUCH

    async def test_so_is_a_header_without_end(self) -> None:
        sent = 0

        async def handle(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nA: ")
            while sent < MUCH:
                await peer.send(PIECE)
                sent += len(PIECE)

        assert await fault(handle) == "what it answers is not HTTP"
        assert sent < MUCH

    @pytest.mark.parametrize(
        ("status", "kind"), [(200, Accepted), (403, Rejected), (500, Unavailable)]
    )
    async def test_a_body_without_end_is_left(self, status: int, kind: type) -> None:
        sent = 0

        async def handle(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 %d Words\r\n\r\n" % status)
            while sent < MUCH:
                await peer.send(PIECE)
                sent += len(PIECE)

        assert isinstance(await verdict(handle), kind)
        assert sent < MUCH


class TestBodies:
    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a machine with other things to do be in time."""
        monkeypatch.setattr(httpform, "BODY_WITHIN", PATIENCE)

    @pytest.mark.parametrize("size", [1, 5000, LARGEST_BODY])
    async def test_after_a_short_one_the_connection_is_kept(self, size: int) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)

        async with scripted(answering(answer, NO)) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(2)]

            assert [type(result) for result in results] == [Accepted, Rejected]
            assert web.connections == 1

    async def test_one_in_chunks_is_one_too(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

        async with scripted(answering(answer, NO)) as web, backend(web.port) as subject:
            await ask(subject)
            await ask(subject)

            assert web.connections == 1

    async def test_so_it_is_where_the_body_comes_a_moment_later(self) -> None:
        async def handle(peer: Peer) -> None:
            while await peer.request():
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                for _ in range(10):
                    await asyncio.sleep(0)
                await peer.send(b"ok")

        async with scripted(handle) as web, backend(web.port) as subject:
            await ask(subject)
            await ask(subject)

            assert web.connections == 1

    async def test_one_that_is_packed_is_not_unpacked(self) -> None:
        body = gzip.compress(bytes(100 * LARGEST_BODY))
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"

        async with (
            scripted(answering(answer % (len(body), body), NO)) as web,
            backend(web.port) as subject,
        ):
            await ask(subject)
            await ask(subject)

            assert web.connections == 1

    async def test_after_a_long_one_it_is_not(self) -> None:
        size = 4 * LARGEST_BODY
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)

        async with scripted(answering(answer, NO)) as web, backend(web.port) as subject:
            results = [await ask(subject) for _ in range(2)]

            assert results == [ACCEPTED, ACCEPTED]
            assert web.connections == 2

    async def test_one_that_does_not_come_holds_no_verdict(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"

        async with scripted(answering(answer)) as web, backend(web.port) as subject:
            async with asyncio.timeout(DEADLINE):
                result = await subject.verify(request_for("joe", b"pw"))

            assert result == ACCEPTED

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"Content-Length: 9\r\n\r\nx", id="cut"),
            pytest.param(b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", id="no-gzip"),
            pytest.param(b"Content-Type: \xff\r\nContent-Length: 0\r\n\r\n", id="odd-header"),
            pytest.param(b"\r\nwhatever, to the end", id="no-length"),
        ],
    )
    async def test_what_is_wrong_with_it_does_not_matter(self, body: bytes) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 403 No\r\n" + body)

        assert isinstance(await verdict(handle), Rejected)

    @pytest.mark.parametrize(
        "header",
        [
            b"Content-Length: 1\r\nTransfer-Encoding: chunked",
            b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: one",
        ],
        ids=repr,
    )
    async def test_a_length_that_cannot_be_is_an_outage(self, header: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n0\r\n\r\n"

        assert await fault(answering(answer)) == "what it answers is not HTTP"


async def notes_at_the_deadline(
    subject: Httpform, due: Awaitable[object], password: bytes = b"pw"
) -> list[str]:
    """Return what the backend says that it was at when its time was over, which is after *due*."""
    deadline = asyncio.timeout(None)

    async def end() -> None:
        await due
        deadline.reschedule(0)

    ending = asyncio.create_task(end())
    with pytest.raises(TimeoutError) as over:
        async with deadline:
            await subject.verify(request_for("joe", password))
    await ending
    return list(getattr(over.value.__cause__, "__notes__", []))


@pytest.fixture
def hung() -> Iterator[int]:
    """The port of a server that takes connections and does not look at them."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


class TestTheDeadline:
    async def test_a_server_that_says_nothing_is_named(self) -> None:
        asked = asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await peer.leaving()

        async with scripted(handle) as web, backend(web.port) as subject:
            notes = await notes_at_the_deadline(subject, asked.wait())

            assert notes == [f"while waiting for the answer of {LOOPBACK}:{web.port}"]

    async def test_so_is_one_with_whom_there_is_no_connection(self, hung: int) -> None:
        async with backend(hung, tls=TlsRules()) as subject:
            notes = await notes_at_the_deadline(subject, asyncio.sleep(NO_TIME))

        assert notes == [f"while waiting for a connection to {LOOPBACK}:{hung}"]

    async def test_so_is_one_whose_connections_are_all_taken(self, hung: int) -> None:
        async with backend(hung, connections=1) as subject:
            first = asyncio.create_task(subject.verify(request_for("joe", b"pw")))
            await asyncio.sleep(0)
            notes = await notes_at_the_deadline(subject, asyncio.sleep(NO_TIME))
            first.cancel()
            await asyncio.wait([first])

        assert notes == [f"while waiting for a free connection to {LOOPBACK}:{hung}"]

    async def test_a_connection_whose_answer_was_not_awaited_is_not_used_again(self) -> None:
        asked, late = asyncio.Event(), asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await late.wait()
            await peer.send(YES)
            await peer.leaving()

        async with scripted(handle) as web, backend(web.port) as subject:
            await notes_at_the_deadline(subject, asked.wait())
            late.set()
            await ask(subject)

            assert web.connections == 2

    async def test_one_that_does_not_take_the_request_keeps_no_connection(self, hung: int) -> None:
        connector = Narrow(Endpoint(LOOPBACK, hung, Security.NONE), None, DEADLINE)
        subject = Httpform(connector, URI, "&".join(["p=%p"] * 4), 1)
        before = count_descriptors()

        await notes_at_the_deadline(subject, asyncio.sleep(NO_TIME), b"&" * 65_535)

        await eventually(lambda: count_descriptors() == before, "the end of the connection")
        await subject.close()

    async def test_tls_that_does_not_come_is_an_outage_before_it(self, hung: int) -> None:
        async with backend(hung, tls=TlsRules(), timeout=NO_TIME) as subject:
            result = await ask(subject)

        assert isinstance(result, Unavailable)
        assert "no connection within" in result.detail

    async def test_some_that_hang_leave_others_the_rest(self) -> None:
        async def handle(peer: Peer) -> None:
            while request := await peer.request():
                if b"hang" in request:
                    await peer.leaving()
                await peer.send(YES)

        async with scripted(handle) as web, backend(web.port, connections=4) as subject:
            hung = [
                asyncio.create_task(subject.verify(request_for("hang", b"pw"))) for _ in range(3)
            ]
            results = [await ask(subject) for _ in range(20)]
            for one in hung:
                one.cancel()
            await asyncio.wait(hung)

            assert results == [ACCEPTED] * 20


SAYS_YES = re.compile(rb"[\r\n]*HTTP/[0-9]\.[0-9] 20[04]\b")
FRAGMENTS = [b"HTTP/1.1 200 OK", b"HTTP/1.1 403 No", b"\r\n", b"Content-Length: 2", b"xx", YES, NO]
answers = st.binary() | st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)).map(b"".join)


@given(answers)
async def test_whatever_a_server_sends_there_is_a_verdict_and_no_yes_that_it_does_not_say(
    answer: bytes,
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    result = await verdict(handle)

    assert isinstance(result, Rejected | Unavailable) or SAYS_YES.match(answer)
