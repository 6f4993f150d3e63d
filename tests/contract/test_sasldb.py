"""The sasldb backend: the contract, and what is its own: it answers at once and sees changes."""

import asyncio
import inspect
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd.backends import sasldb as backend
from pysaslauthd.backends.sasldb import Sasldb
from pysaslauthd.errors import StoreError
from pysaslauthd.model import Accepted, AuthResult, Rejected, Secret, Unavailable
from pysaslauthd.stores import sasldb
from tests.contract.store import StoreContract, found, lookup_of
from tests.contract.verifier import VerifierContract, request_for, settled
from tests.helpers.processes import wait_for

LONG_AGO_NS = 1_000_000_000_123_456_789  # not a whole second: that would look like an old FAT
PASSWORD = "pw"


def put(path: Path, user: str, password: str) -> None:
    record = {sasldb.key(user.encode(), b"r"): password.encode()}
    sasldb.edit(str(path), lambda found: found.update(record), new_format="berkeley")


def age(path: Path) -> None:
    """Make *path* look as if it had been written long ago, and not changed for a tick."""
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    wait_for(lambda: sasldb.stamp(str(path)).settled(time.time_ns()), "a settled file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    put(tmp_path / "db", "joe", "pw")
    age(tmp_path / "db")
    return tmp_path / "db"


@pytest.fixture
async def verifier(path: Path) -> AsyncIterator[Sasldb]:
    found = Sasldb(str(path))
    await found.open()
    yield found
    await found.close()


async def asked(verifier: Sasldb, password: str = PASSWORD, user: str = "joe") -> AuthResult:
    return await settled(verifier.verify(request_for(user, password.encode())))


class TestContract(VerifierContract):
    @pytest.fixture
    def broken(self, tmp_path: Path) -> Sasldb:
        return Sasldb(str(tmp_path / "missing"))


class TestStore(StoreContract):
    @pytest.fixture
    def store(self, verifier: Sasldb) -> Sasldb:
        return verifier

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Sasldb:
        return Sasldb(str(tmp_path / "missing"))

    def test_it_answers_at_once(self, store: Sasldb) -> None:
        assert store.fetch(lookup_of("joe")) == Secret(b"pw")

    async def test_a_change_shows_with_the_next_question(self, store: Sasldb, path: Path) -> None:
        put(path, "joe", "new")

        assert await found(store.fetch(lookup_of("joe"))) == Secret(b"new")


async def test_it_answers_at_once(verifier: Sasldb) -> None:
    assert verifier.verify(request_for("joe", b"pw")) == Accepted("joe", "sasldb")


async def test_it_is_asked_by_name_and_realm(verifier: Sasldb) -> None:
    other = await settled(verifier.verify(request_for("joe", b"pw", realm="other")))

    assert isinstance(other, Rejected)


async def test_a_change_shows_with_the_next_request(verifier: Sasldb, path: Path) -> None:
    put(path, "joe", "new")

    assert isinstance(await asked(verifier, "new"), Accepted)
    assert isinstance(await asked(verifier, "pw"), Rejected)


async def test_two_changes_within_one_tick_both_show(verifier: Sasldb, path: Path) -> None:
    for number in range(30):
        put(path, "joe", f"new{number}")

        assert isinstance(await asked(verifier, f"new{number}"), Accepted)


async def test_a_change_in_place_with_the_same_size_shows(verifier: Sasldb, path: Path) -> None:
    with path.open("r+b") as file:
        data = file.read()
        file.seek(data.rindex(b"\1pw") + 1)
        file.write(b"PW")

    assert isinstance(await asked(verifier, "PW"), Accepted)


async def test_a_replaced_file_shows(verifier: Sasldb, path: Path, tmp_path: Path) -> None:
    put(tmp_path / "other", "joe", "new")
    shutil.copystat(path, tmp_path / "other")
    (tmp_path / "other").rename(path)

    assert isinstance(await asked(verifier, "new"), Accepted)


async def test_a_vanished_file_is_an_outage_at_once(verifier: Sasldb, path: Path) -> None:
    path.unlink()

    assert isinstance(verifier.verify(request_for("joe", b"pw")), Unavailable)


async def test_a_file_that_comes_back_is_used(verifier: Sasldb, path: Path) -> None:
    path.rename(path.with_name("away"))
    await asked(verifier)
    path.with_name("away").rename(path)

    assert isinstance(await asked(verifier), Accepted)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no broken file for one that is being written."""
    monkeypatch.setattr(backend, "HALF_WRITTEN", 0.0)


@pytest.mark.usefixtures("no_patience")
async def test_a_corrupt_file_is_an_outage_that_names_it(verifier: Sasldb, path: Path) -> None:
    path.write_bytes(b"garbage" * 100)
    age(path)

    result = await asked(verifier)

    assert isinstance(result, Unavailable)
    assert str(path) in result.detail


@pytest.mark.usefixtures("no_patience")
async def test_a_corrupt_file_is_read_once(verifier: Sasldb, path: Path) -> None:
    path.write_bytes(b"garbage" * 100)
    age(path)
    await asked(verifier)

    again = verifier.verify(request_for("joe", b"pw"))

    assert isinstance(again, Unavailable)


async def test_a_file_that_breaks_while_it_is_written_is_answered_from_the_last_copy(
    verifier: Sasldb, path: Path
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    meanwhile = await asked(verifier)
    path.write_bytes(whole)

    assert isinstance(meanwhile, Accepted)
    assert isinstance(await asked(verifier), Accepted)


async def test_a_file_that_stays_broken_becomes_an_outage(
    verifier: Sasldb, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(path.read_bytes()[:5000])
    assert isinstance(await asked(verifier), Accepted)

    monkeypatch.setattr(backend, "HALF_WRITTEN", 0.0)

    assert isinstance(await asked(verifier), Unavailable)


async def test_an_outage_that_becomes_another_is_told_as_that(verifier: Sasldb, path: Path) -> None:
    path.unlink()
    await asked(verifier)
    path.write_bytes(b"garbage" * 100)

    result = await asked(verifier)

    assert isinstance(result, Unavailable)
    assert "no such file" not in result.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_an_unreadable_file_is_an_outage(verifier: Sasldb, path: Path) -> None:
    path.chmod(0)

    assert isinstance(await asked(verifier), Unavailable)


async def test_requests_during_a_load_wait_for_one_reading(
    verifier: Sasldb, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = []
    go_on = threading.Event()
    load = sasldb.load_stamped

    def slow_load(path: str) -> tuple[dict[bytes, bytes], sasldb.Stamp]:
        readings.append(path)
        assert go_on.wait(10)
        return load(path)

    monkeypatch.setattr(sasldb, "load_stamped", slow_load)
    put(path, "joe", "new")
    age(path)
    requests = [request_for("joe", b"new") for _ in range(50)]

    answers = [verifier.verify(request) for request in requests]
    waiting = [asyncio.ensure_future(settled(answer)) for answer in answers]
    await asyncio.sleep(0)
    go_on.set()

    assert await asyncio.gather(*waiting) == [Accepted("joe", "sasldb")] * 50
    assert len(readings) <= 2


async def test_a_load_delays_nobody_but_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    load = sasldb.load_stamped

    def slow_load(path: str) -> tuple[dict[bytes, bytes], sasldb.Stamp]:
        assert go_on.wait(10)
        return load(path)

    monkeypatch.setattr(sasldb, "load_stamped", slow_load)
    put(tmp_path / "db", "joe", "pw")
    answer = Sasldb(str(tmp_path / "db")).verify(request_for("joe", b"pw"))
    assert inspect.isawaitable(answer)
    waiting = asyncio.ensure_future(settled(answer))

    for _ in range(5):
        await asyncio.sleep(0)
    went_on_meanwhile = not waiting.done()
    go_on.set()

    assert went_on_meanwhile
    assert isinstance(await waiting, Accepted)


class Late(Sasldb):
    """Has a request come in the very last step of its first reading."""

    late: asyncio.Task[AuthResult] | None = None

    async def _read(self) -> None:
        await super()._read()
        if self.late is None:
            request = request_for("joe", PASSWORD.encode())
            self.late = asyncio.create_task(self._answer_from_new(request))


async def test_a_request_that_comes_as_a_reading_ends_is_answered(path: Path) -> None:
    verifier = Late(str(path))

    await verifier.open()

    assert verifier.late is not None
    async with asyncio.timeout(10):
        assert isinstance(await verifier.late, Accepted)


async def test_a_passing_problem_is_no_lasting_outage(
    verifier: Sasldb, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> NoReturn:
        raise StoreError(path, "too many open files")

    put(path, "joe", "new")
    age(path)
    with monkeypatch.context() as patched:
        patched.setattr(sasldb, "load_stamped", fail)
        assert isinstance(await asked(verifier, "new"), Unavailable)

    assert isinstance(await asked(verifier, "new"), Accepted)
