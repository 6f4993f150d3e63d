"""The httpform backend: the contract, with a real web server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.backends.httpform import Httpform
from pysaslauthd.model import Accepted, Reason, Rejected
from tests.contract.verifier import VerifierContract, request_for, settled
from tests.helpers.processes import free_port
from tests.helpers.web import FormServer, backend, form_server


@pytest.fixture(scope="module")
def server() -> Iterator[FormServer]:
    with form_server() as made:
        yield made


class TestContract(VerifierContract):
    @pytest.fixture
    async def verifier(self, server: FormServer) -> AsyncIterator[Httpform]:
        async with backend(server.port) as made:
            yield made

    @pytest.fixture
    async def broken(self) -> AsyncIterator[Httpform]:
        async with backend(free_port()) as made:
            yield made

    async def test_it_accepts_the_right_password(self, verifier: PasswordVerifier) -> None:
        result = await settled(verifier.verify(request_for("joe", b"pw")))

        assert result == Accepted("joe", "httpform", "remote authentication successful")

    async def test_it_rejects_an_unknown_user(self, verifier: PasswordVerifier) -> None:
        """A status does not tell which of the two is wrong."""
        result = await settled(verifier.verify(request_for("nobody-here", b"pw")))

        assert isinstance(result, Rejected)
        assert result.reason is Reason.WRONG_PASSWORD
