"""The backend that asks an IMAP server: the contract, with a real Dovecot; root only."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import NoReturn

import pytest

from pysaslauthd.backends.rimap import Rimap
from pysaslauthd.model import Reason
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from tests.contract.verifier import VerifierContract
from tests.helpers.accounts import require_root
from tests.helpers.dovecot import dovecot
from tests.helpers.processes import DEADLINE, free_port

pytestmark = pytest.mark.interop("dovecot")


@pytest.fixture(scope="module")
def port(lacking: Callable[[str], NoReturn]) -> Iterator[int]:
    """Return the port of a Dovecot with user joe, password pw."""
    require_root(lacking)
    with dovecot({"joe": b"pw"}) as server:
        yield server.port


def backend(port: int) -> Rimap:
    connector = Connector(Endpoint("127.0.0.1", port, Security.NONE), None, DEADLINE)
    return Rimap(connector, DEADLINE, connections=4)


class TestContract(VerifierContract):
    yes = "remote authentication successful"
    unknown = Reason.WRONG_PASSWORD  # IMAP servers do not tell

    @pytest.fixture
    async def verifier(self, port: int) -> AsyncIterator[Rimap]:
        made = backend(port)
        await made.open()
        yield made
        await made.close()

    @pytest.fixture
    def broken(self) -> Rimap:
        return backend(free_port())
