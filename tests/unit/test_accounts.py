import errno
import pwd
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from pysaslauthd.stores import accounts
from pysaslauthd.stores.accounts import Aging
from tests.helpers.accounts import (
    account,
    keep_out_of_shadow,
    needs_account_tools,
    no_descriptors,
    require_root,
)
from tests.helpers.stores import as_nobody

HASH = "$6$ab.cd/ef$secret"
NOBODY_HERE = "nobody-of-this-name"


@pytest.fixture
def as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def joe(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    require_root(lacking)
    with account(stored=HASH, lastday=20000, maxdays=90, inactive=7, expiredate=20500) as name:
        yield name


def test_the_passwd_map_is_read() -> None:
    found = accounts.find_hash("root")

    assert found is not None
    assert found.matches(pwd.getpwnam("root").pw_passwd.encode())


@needs_account_tools
def test_the_shadow_map_is_read(joe: str) -> None:
    found = accounts.find_shadow(joe)

    assert found is not None
    assert found.stored.matches(HASH.encode())
    assert found.aging == Aging(last_change=20000, max_days=90, inactive=7, expire=20500)


@needs_account_tools
@pytest.mark.usefixtures("as_root")
def test_a_date_that_is_not_set_is_none() -> None:
    with account(lastday=-1, maxdays=-1, inactive=-1, expiredate=-1) as name:
        found = accounts.find_shadow(name)

    assert found is not None
    assert found.aging == Aging()


@needs_account_tools
def test_a_hash_does_not_print(joe: str) -> None:
    assert "secret" not in repr(accounts.find_shadow(joe))
    assert "x" not in repr(accounts.find_hash(joe)).removeprefix("Secret")


@pytest.mark.parametrize(
    "user",
    ["", NOBODY_HERE, "+", "root\n", "root:x", "*", "zoë", "r" * 8192, "root\0", "root\0x"],
    ids=lambda user: ascii(user[:20]),
)
@pytest.mark.usefixtures("as_root")
def test_whoever_is_not_there_is_none(user: str) -> None:
    assert accounts.find_hash(user) is None
    assert accounts.find_shadow(user) is None


@needs_account_tools
@pytest.mark.usefixtures("as_root")
def test_an_account_need_not_be_in_the_shadow_map() -> None:
    with account() as name:
        keep_out_of_shadow(name, stored=HASH)

        found = accounts.find_hash(name)

        assert found is not None
        assert found.matches(HASH.encode())
        assert accounts.find_shadow(name) is None


@pytest.mark.usefixtures("as_root")
def test_an_entry_too_long_for_the_first_buffer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "BUFFER_SIZES", (1, 8, 4096))

    assert accounts.find_hash("root") is not None
    assert accounts.find_shadow("root") is not None


@pytest.mark.usefixtures("as_root")
def test_an_entry_too_long_for_every_buffer_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "BUFFER_SIZES", (1, 8))

    for look_up in (accounts.find_hash, accounts.find_shadow):
        with pytest.raises(OSError, match="Numerical result out of range") as raised:
            look_up("root")
        assert raised.value.errno == errno.ERANGE


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["root", NOBODY_HERE])
def test_a_shadow_map_that_may_not_be_read_is_a_fault(user: str) -> None:
    with as_nobody(), pytest.raises(PermissionError):
        accounts.find_shadow(user)


@pytest.mark.parametrize("user", ["root", NOBODY_HERE])
def test_want_of_descriptors_is_a_fault(user: str) -> None:
    accounts.find_hash(user)

    for look_up in (accounts.find_hash, accounts.find_shadow):
        with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
            look_up(user)


def test_a_file_that_is_not_there_is_a_fault() -> None:
    with pytest.raises(FileNotFoundError):
        accounts.check_readable("/nonexistent/shadow")
