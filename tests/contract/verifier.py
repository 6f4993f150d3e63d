"""What every password backend promises; a backend's own test subclasses this."""

import inspect
import time
from collections.abc import Awaitable

import pytest

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)


def request_for(user: str, password: bytes, realm: str = "r") -> AuthRequest:
    """Make a request that has just been received."""
    return AuthRequest(user, Secret(password), realm, Origin("imap"), time.monotonic())


async def settled(answer: AuthResult | Awaitable[AuthResult]) -> AuthResult:
    """Return the verdict, whether it is here already or not."""
    return await answer if inspect.isawaitable(answer) else answer


class VerdictContract:
    """Subclasses provide `verifier`, which knows joe of realm r with password pw.

    *yes* is the text of a yes; *unknown*, what an unknown user is called by those who cannot tell.
    """

    yes = ""
    unknown = Reason.NO_SUCH_USER

    async def test_it_accepts_the_right_password(self, verifier: PasswordVerifier) -> None:
        result = await settled(verifier.verify(request_for("joe", b"pw")))

        assert result == Accepted("joe", verifier.name, self.yes)

    @pytest.mark.parametrize("password", [b"p", b"pw ", b"PW", b"pwpw", b"\xff"], ids=repr)
    async def test_it_rejects_a_wrong_password(
        self, verifier: PasswordVerifier, password: bytes
    ) -> None:
        result = await settled(verifier.verify(request_for("joe", password)))

        assert isinstance(result, Rejected)
        assert result.reason is Reason.WRONG_PASSWORD

    async def test_it_rejects_an_unknown_user(self, verifier: PasswordVerifier) -> None:
        result = await settled(verifier.verify(request_for("nobody-here", b"pw")))

        assert isinstance(result, Rejected)
        assert result.reason is self.unknown

    @pytest.mark.parametrize(
        "user", ["JOE", "joe ", "*", "../joe", "joe)(uid=*", "jo\u0065\u0301", "j" * 1024]
    )
    async def test_it_rejects_a_hostile_name(self, verifier: PasswordVerifier, user: str) -> None:
        assert isinstance(await settled(verifier.verify(request_for(user, b"pw"))), Rejected)


class VerifierContract(VerdictContract):
    """For backends that may find out nothing: subclasses provide `broken`, too, which does not."""

    async def test_it_calls_an_outage_an_outage(self, broken: PasswordVerifier) -> None:
        result = await settled(broken.verify(request_for("joe", b"pw")))

        assert isinstance(result, Unavailable)
        assert result.detail

    async def test_an_outage_names_no_password(self, broken: PasswordVerifier) -> None:
        result = await settled(broken.verify(request_for("joe", b"hunter2")))

        assert "hunter2" not in repr(result)
