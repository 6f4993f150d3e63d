"""Our own SASL server: the server halves, and users whose passwords are known."""

import os
from collections.abc import Mapping
from typing import cast

from msgspec.structs import replace

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, AuthResult, Reason, Rejected, Secret, Unavailable
from pysaslauthd.sasl.server.decoys import decoy_password
from pysaslauthd.sasl.server.mechanism import (
    Answer,
    Challenge,
    CheckPassword,
    Compute,
    FetchPassword,
    Finished,
    Mechanism,
    Script,
    Step,
    Stored,
    Surroundings,
)
from pysaslauthd.sasl.server.registry import find
from tests.helpers.sasl_servers import HOST, REFUSAL, SERVICE, Reply

BACKEND = "known"
KEY = Secret(b"the key of one process, 32 bytes")
HERE = Surroundings(HOST, KEY, SERVICE)
NO_SUCH_USER = Rejected(Reason.NO_SUCH_USER, BACKEND)
WRONG_PASSWORD = Rejected(Reason.WRONG_PASSWORD, BACKEND)
OUTAGE = Unavailable("the backend is down", BACKEND)

Asked = CheckPassword | FetchPassword
Users = Mapping[str, str]
"""Names and passwords; surrogate escapes stand for bytes that are no UTF-8."""


def proceed(script: Script, answer: Answer | None) -> Step | Finished:
    """Return the next step of *script*, or its end; None starts it."""
    try:
        return script.send(cast("Answer", answer))
    except StopIteration as end:
        return cast("Finished", end.value)


class OwnServer:
    """Fulfils SaslServer. *asked*: what the last exchange wanted to know; *finished*: its end.

    *malformed* is why the exchange ended where the client said what is no message.
    """

    def __init__(
        self, users: Users, surroundings: Surroundings = HERE, *, is_down: bool = False
    ) -> None:
        self._users = users
        self.surroundings = surroundings
        self._is_down = is_down

    @property
    def named(self) -> tuple[str, str]:
        """Authcid and authzid of the last exchange, which has ended."""
        assert self.finished is not None
        return self.finished.authcid, self.finished.authzid

    def start(self, mechanism: str | Mechanism, initial: bytes | None, /) -> Reply:
        """Begin an exchange."""
        found = find(mechanism) if isinstance(mechanism, str) else mechanism
        assert found is not None
        self.asked: list[Asked] = []
        self.finished: Finished | None = None
        self.malformed: str | None = None
        self._script = found.start(self.surroundings, initial)
        return self._proceed(None)

    def answer(self, response: bytes, /) -> Reply:
        """Go on with it; after a success that had data there is nothing left to say."""
        if self.finished is not None:
            return self._end(replace(self.finished, data=None))
        return self._proceed(response)

    def _proceed(self, answer: Answer | None) -> Reply:
        try:
            step = proceed(self._script, answer)
        except MalformedMessage as error:
            self.malformed = str(error)
            return REFUSAL
        if isinstance(step, Challenge):
            return Reply(is_challenge=True, data=step.data)
        if isinstance(step, Finished):
            self.finished = step
            return self._end(step)
        if isinstance(step, Compute):
            return self._proceed(step.work())
        self.asked.append(step)
        return self._proceed(self._look_up(step))

    def _end(self, finished: Finished) -> Reply:
        if not isinstance(finished.result, Accepted):
            return REFUSAL
        return Reply(is_success=True, data=finished.data, user=finished.result.user)

    def _look_up(self, step: Asked) -> AuthResult | Stored:
        if self._is_down:
            return OUTAGE
        known = self._users.get(step.authcid)
        password = None if known is None else Secret(os.fsencode(known))
        if isinstance(step, FetchPassword):
            return self._stored(step.authcid, password)
        if password is None:
            return NO_SUCH_USER
        is_right = password.matches(step.password.reveal())
        return Accepted(step.authcid, BACKEND) if is_right else WRONG_PASSWORD

    def _stored(self, authcid: str, password: Secret | None) -> Stored:
        if password is None:
            decoy = decoy_password(self.surroundings.key, authcid)
            return Stored(authcid, decoy, BACKEND, NO_SUCH_USER)
        return Stored(authcid, password, BACKEND)
