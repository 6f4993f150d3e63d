"""What is counted of the mechanisms is every one, done by the server, and right."""

from __future__ import annotations

import pytest

from pysaslauthd.sasl.scram import Scram
from pysaslauthd.sasl.server import registry
from tests.bench import database
from tests.bench.client_halves import HASHES
from tests.bench.mechanisms import Case, measured, rehearsed, to_measure, users

ONCE = 0.0001  # seconds: as few exchanges as there may be
TO_MEASURE = dict(to_measure())

everything = pytest.mark.parametrize("title", TO_MEASURE)


def case(title: str) -> Case:
    return rehearsed(users({database.LOGIN: database.PASSWORD}), title, TO_MEASURE[title])


def test_every_mechanism_is_measured() -> None:
    measured_ones = {title for title in TO_MEASURE if "first" not in title}

    assert measured_ones == {mechanism.name for mechanism in registry.usable()}


@everything
def test_what_was_rehearsed_is_right_each_time(title: str) -> None:
    seen = measured(users({database.LOGIN: database.PASSWORD}), case(title), ONCE)

    assert (seen.right > 0, seen.not_right) == (True, 0)


@pytest.mark.parametrize(
    "title", [title for title in TO_MEASURE if title not in ("EXTERNAL", "ANONYMOUS")]
)
def test_what_is_refused_does_not_count(title: str) -> None:
    seen = measured(users({database.LOGIN: "another"}), case(title), ONCE)

    assert (seen.right, seen.not_right > 0) == (0, True)


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("form", ["", "-PLUS"], ids=["unbound", "bound"])
def test_every_login_that_is_called_the_first_has_its_keys_derived(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = users({database.LOGIN: database.PASSWORD})
    first, later = case(f"{name}{form}, first login"), case(f"{name}{form}")
    measured(exchanges, later, ONCE)
    derived = []
    derive = Scram.salted_password

    def note(scram: Scram, password: bytes, salt: bytes, iterations: int) -> bytes:
        derived.append(iterations)
        return derive(scram, password, salt, iterations)

    monkeypatch.setattr(Scram, "salted_password", note)

    assert measured(exchanges, later, ONCE).right > len(derived) == 0
    assert measured(exchanges, first, ONCE).right == len(derived)
