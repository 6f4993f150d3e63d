from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from pysaslauthd.backends.getpwent import INCORRECT_PASSWORD, INVALID_USERNAME, Getpwent
from pysaslauthd.model import Accepted, AuthResult, Unavailable
from pysaslauthd.passwords import libcrypt
from tests.contract.verifier import request_for
from tests.helpers.accounts import (
    account,
    count_hashes,
    keep_out_of_shadow,
    needs_account_tools,
    no_descriptors,
    require_root,
)

NOBODY_HERE = "nobody-of-this-name"
ARGON2 = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAECAwQFBgcICQoLDA0ODw"


@pytest.fixture(scope="module")
def joe(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    """Make joe, whose password pw is in the passwd map."""
    require_root(lacking)
    stored = libcrypt.crypt(b"pw", b"$6$ab.cd/ef")
    assert stored is not None
    with account() as name:
        keep_out_of_shadow(name, stored.decode())
        yield name


@pytest.fixture
def ann(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    """Make ann, whose password is pw and shadowed."""
    require_root(lacking)
    with account("pw") as name:
        yield name


def asked(user: str, password: bytes = b"pw") -> AuthResult:
    return Getpwent().check(request_for(user, password))


@needs_account_tools
def test_it_accepts_the_right_password(joe: str) -> None:
    assert asked(joe) == Accepted(joe, "getpwent")


@needs_account_tools
@pytest.mark.parametrize("password", [b"", b"p", b"pw ", b"PW", b"\xff", b"p" * 8192, b"pw\0"])
def test_it_refuses_a_wrong_password(joe: str, password: bytes) -> None:
    assert asked(joe, password) == INCORRECT_PASSWORD


@pytest.mark.parametrize("user", [NOBODY_HERE, "ROOT", "*", "../root", "root\0", "j" * 1024])
def test_it_refuses_whoever_is_not_there(user: str) -> None:
    assert asked(user) == INVALID_USERNAME


@needs_account_tools
@pytest.mark.parametrize("password", [b"pw", b"x"])
def test_it_refuses_whoever_is_shadowed(ann: str, password: bytes) -> None:
    assert asked(ann, password) == INCORRECT_PASSWORD


@needs_account_tools
def test_it_refuses_whoever_has_no_password(ann: str) -> None:
    keep_out_of_shadow(ann, "")

    assert asked(ann, b"") == INCORRECT_PASSWORD


@needs_account_tools
def test_a_hash_of_an_unknown_scheme_is_an_outage(ann: str) -> None:
    keep_out_of_shadow(ann, ARGON2)

    assert asked(ann) == Unavailable("libcrypt cannot check $argon2id$ hashes", "getpwent")


def test_a_passwd_map_that_cannot_be_read_is_an_outage() -> None:
    with no_descriptors():
        result = asked("root")

    assert result == Unavailable("Username lookup failure: Too many open files", "getpwent")


def test_an_unknown_user_costs_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = count_hashes(monkeypatch)

    asked(NOBODY_HERE)

    assert len(computed) == 1


@needs_account_tools
def test_a_wrong_password_costs_one_hash(joe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = count_hashes(monkeypatch)

    asked(joe, b"wrong")

    assert len(computed) == 1


@needs_account_tools
def test_a_shadowed_user_costs_one_hash(ann: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = count_hashes(monkeypatch)

    asked(ann)

    assert len(computed) == 1
