"""One authentication, seen from the client: runs a mechanism's script, and judges the end."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.client.credentials import Credentials
from pysaslauthd.sasl.nonces import Nonces, random_nonce

Script = Generator[bytes | None, bytes, bytes]
"""A mechanism's messages in order, each for what the server says to the one before.

It yields the initial response first, None where the server is to begin. What it
returns is its last message: after that only success may come. Where the server has
something to prove, the script does not end before it has.
"""


class Mechanism(NamedTuple):
    """A way to authenticate. *reveals_password*: to the server, and to whoever reads along."""

    name: str
    script: Callable[[Credentials, Nonces], Script]
    reveals_password: bool = False


class ServerNotGenuine(MalformedMessage):
    """The server claims a success that is none: without its proof, with a wrong one, too soon."""


class ServerRefused(MalformedMessage):
    """The server says why it refuses, within the exchange: *error* is a word of RFC 5802 section 7.

    *blames_credentials*: it is about name or password, as a protocol's own refusal would be.
    """

    def __init__(self, error: str) -> None:
        super().__init__(f"the server refuses: {error}")
        self.error = error
        self.blames_credentials = error in {"invalid-proof", "unknown-user"}


class ClientExchange:
    """One authentication with *mechanism*, to be used once and from the first message on.

    - Send `initial`: None is no initial response, b"" is an empty one.
    - When the server sends a challenge, send what `respond` returns.
    - When the server reports success, call `finish`. Only once it has returned
      is the server what it should be: SCRAM and DIGEST-MD5 let it prove so.
    - When the server reports a failure, that is it.

    UnusableCredentials comes from the constructor only. MalformedMessage, from
    either method, ends the exchange: every later call raises it again.
    """

    def __init__(
        self, mechanism: Mechanism, credentials: Credentials, nonces: Nonces = random_nonce
    ) -> None:
        self.mechanism = mechanism
        self._script = mechanism.script(credentials, nonces)
        self._has_ended = False
        self._failure: MalformedMessage | None = None
        try:
            self.initial = next(self._script)
        except StopIteration as end:
            self.initial = self._last(end)

    def respond(self, challenge: bytes, /) -> bytes:
        """Return the response to *challenge*; b"" is one without content.

        The response to SCRAM's first may take a second of CPU, outside of the GIL.
        """
        with self._once_failed_for_good():
            return self._response(challenge)

    def finish(self, data: bytes | None, /) -> None:
        """Return if the success that the server reports is to be believed.

        *data* are what came along, None or b"" if nothing did. The last word of
        SCRAM and DIGEST-MD5 may come so, or as a challenge before.
        """
        with self._once_failed_for_good():
            if data and self._response(data):
                raise ServerNotGenuine("success before the client's last message")
            if not self._has_ended:
                raise ServerNotGenuine(
                    "success before the exchange's end: the server has not proved itself"
                )

    def _response(self, challenge: bytes) -> bytes:
        if self._has_ended:
            raise MalformedMessage("a challenge, or data, after the exchange's end")
        try:
            # None may stand for the initial response, which is out.
            return cast("bytes", self._script.send(challenge))
        except StopIteration as end:
            return self._last(end)

    def _last(self, end: StopIteration) -> bytes:
        self._has_ended = True
        message: bytes = end.value
        return message

    @contextmanager
    def _once_failed_for_good(self) -> Iterator[None]:
        if self._failure:
            raise self._failure
        try:
            yield
        except MalformedMessage as failure:
            self._failure = failure
            raise
