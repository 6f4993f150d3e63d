"""One authentication, seen from the server: runs a mechanism's script."""

from typing import cast

from pysaslauthd.sasl.server.mechanism import Answer, Finished, Mechanism, Step, Surroundings


class ServerExchange:
    """One authentication with *mechanism*, from the initial response on; to be used once.

    Call `proceed` until it returns Finished: first with None, then with the answer to
    the step that it returned, which is a response, bytes, to a Challenge; the verdict
    to a CheckPassword; a Stored, or Unavailable, to a FetchPassword. MalformedMessage
    is an end, too: what the client says is no message of this mechanism.

    *initial*: None where there is no initial response, b"" where there is an empty one.
    """

    __slots__ = ("_script", "mechanism")

    def __init__(
        self, mechanism: Mechanism, surroundings: Surroundings, initial: bytes | None
    ) -> None:
        self.mechanism = mechanism
        self._script = mechanism.start(surroundings, initial)

    def proceed(self, answer: Answer | None) -> Step | Finished:
        """Return the next step, or the end."""
        try:
            # A generator is started by sending None.
            return self._script.send(cast("Answer", answer))
        except StopIteration as end:
            return cast("Finished", end.value)
