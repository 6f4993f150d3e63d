"""The kerberos5 backend: the contract, in real worker processes that ask a real KDC."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pysaslauthd.backends.in_workers import InWorkers
from pysaslauthd.backends.kerberos5.verifier import Kerberos5, Rules
from pysaslauthd.workers.child import checking
from tests.contract.verifier import VerifierContract
from tests.helpers.kdc import SERVER, Kdc, kdc, needs_kdc
from tests.helpers.workers import backend, serving

# Python 3.12 warns of any fork of a process with threads, which pytest-xdist has.
pytestmark = [needs_kdc, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    with kdc(tmp_path_factory.mktemp("kdc") / "k") as made:
        yield made


@pytest.fixture(scope="module")
def keytab(running: Kdc) -> Path:
    return running.keytab("keytab")


@pytest.fixture(autouse=True)
def _client(running: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(running.config))


class TestContract(VerifierContract):
    @pytest.fixture
    async def verifier(self, keytab: Path) -> AsyncIterator[InWorkers]:
        subject = Kerberos5(Rules(str(keytab), servername=SERVER))
        async with backend(serving(lambda: checking(subject.check, subject.name))) as made:
            yield made

    @pytest.fixture
    async def broken(self, keytab: Path, running: Kdc) -> AsyncIterator[InWorkers]:
        """One whose KDC does not run."""
        subject = Kerberos5(Rules(str(keytab), servername=SERVER))
        source = serving(lambda: checking(subject.check, subject.name))
        with running.stopped():
            async with backend(source) as made:
                yield made
