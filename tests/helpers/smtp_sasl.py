"""An SMTP server as one side of a SASL exchange, for clients that know no SMTP (RFC 4954)."""

import base64
from types import TracebackType
from typing import Self

from tests.helpers.sasl_servers import REFUSAL, Reply
from tests.helpers.smtp_server import Client

SUCCESS, CHALLENGE = "235", "334"


class SmtpServer:
    """The server at *port*, on one connection, within TLS if so wished."""

    def __init__(self, port: int, *, within_tls: bool = False) -> None:
        self.client = Client(port)
        self.lines = self.client.say("EHLO client.test.example")
        if within_tls:
            self.client.start_tls()
            self.lines = self.client.say("EHLO client.test.example")
        self.said = ""  # its last line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.__exit__(kind, error, trace)

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        """Send AUTH."""
        response = "" if initial is None else f" {_encode(initial) or '='}"
        return self._say(f"AUTH {mechanism}{response}")

    def answer(self, response: bytes, /) -> Reply:
        """Go on with it."""
        return self._say(_encode(response))

    def _say(self, line: str) -> Reply:
        *_, self.said = self.client.say(line)
        code, text = self.said[:3], self.said[4:]
        if code == CHALLENGE:
            return Reply(is_challenge=True, data=base64.b64decode(text))
        return Reply(is_success=True) if code == SUCCESS else REFUSAL


def _encode(message: bytes) -> str:
    return base64.b64encode(message).decode()
