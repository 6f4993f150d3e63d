"""Users that are given: the contracts, but for outages, of which there are none."""

import pytest

from pysaslauthd.backends.static import Static
from pysaslauthd.model import Accepted, Secret
from tests.contract.store import FoundContract, lookup_of
from tests.contract.verifier import VerdictContract, request_for

USERS = {"joe@r": Secret(b"pw"), "ann": Secret(b"other")}


class TestVerdicts(VerdictContract):
    @pytest.fixture
    def verifier(self) -> Static:
        return Static(USERS)


class TestStore(FoundContract):
    @pytest.fixture
    def store(self) -> Static:
        return Static(USERS)


def test_a_name_without_a_realm_is_a_name_too() -> None:
    assert Static(USERS).verify(request_for("ann", b"other", "")) == Accepted("ann", "static")
    assert Static(USERS).fetch(lookup_of("ann", "")) == Secret(b"other")


async def test_it_has_nothing_to_open_or_to_close() -> None:
    users = Static(USERS)

    await users.open()
    users.retire()
    await users.close()

    assert users.fetch(lookup_of("joe")) == Secret(b"pw")
