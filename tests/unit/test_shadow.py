from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from pysaslauthd.backends import shadow
from pysaslauthd.backends.shadow import (
    ACCOUNT_EXPIRED,
    INCORRECT_PASSWORD,
    INVALID_SHADOW_USERNAME,
    INVALID_USERNAME,
    PASSWORD_EXPIRED,
    Shadow,
    expiry,
)
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthResult, Rejected, Unavailable
from pysaslauthd.stores.accounts import Aging
from tests.contract.verifier import request_for
from tests.helpers.accounts import (
    account,
    count_hashes,
    keep_out_of_shadow,
    needs_account_tools,
    no_descriptors,
    require_root,
    set_stored,
)
from tests.helpers.stores import as_nobody

TODAY = 20000
NOBODY_HERE = "nobody-of-this-name"
ARGON2 = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAECAwQFBgcICQoLDA0ODw"


@pytest.fixture
def as_root(lacking: Callable[[str], NoReturn]) -> None:
    require_root(lacking)


@pytest.fixture(scope="module")
def joe(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    """Make joe, whose password is pw and lasts."""
    require_root(lacking)
    with account("pw") as name:
        yield name


@pytest.fixture
def ann(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    """Make ann, whose password pw is past its last day on TODAY, for a test to change."""
    require_root(lacking)
    with account("pw", lastday=TODAY - 11, maxdays=10) as name:
        yield name


def asked(user: str, password: bytes = b"pw", today: int = TODAY) -> AuthResult:
    return Shadow(lambda: today).check(request_for(user, password))


@needs_account_tools
def test_it_accepts_the_right_password(joe: str) -> None:
    assert Shadow().check(request_for(joe, b"pw")) == Accepted(joe, "shadow")


@needs_account_tools
@pytest.mark.parametrize("password", [b"", b"p", b"pw ", b"PW", b"\xff", b"p" * 8192, b"pw\0"])
def test_it_refuses_a_wrong_password(joe: str, password: bytes) -> None:
    assert asked(joe, password) == INCORRECT_PASSWORD


@needs_account_tools
def test_it_ignores_the_realm(joe: str) -> None:
    assert isinstance(Shadow().check(request_for(joe, b"pw", realm="elsewhere")), Accepted)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    "user", [NOBODY_HERE, "ROOT", "root ", "*", "../root", "root)(uid=*", "root\0", "j" * 1024]
)
def test_it_refuses_whoever_is_not_there(user: str) -> None:
    assert asked(user) == INVALID_USERNAME


@needs_account_tools
def test_it_refuses_whoever_is_not_in_the_shadow_map(ann: str) -> None:
    keep_out_of_shadow(ann)

    assert asked(ann) == INVALID_SHADOW_USERNAME


@needs_account_tools
@pytest.mark.parametrize("stored", ["", "*", "!", "!!", "*LK*", "x"])
def test_it_refuses_an_account_without_a_usable_password(ann: str, stored: str) -> None:
    set_stored(ann, stored)

    assert asked(ann, stored.encode()) == INCORRECT_PASSWORD


@needs_account_tools
def test_a_hash_that_nis_withholds_is_an_outage(ann: str) -> None:
    set_stored(ann, "*NP*")

    assert asked(ann) == Unavailable(
        "Insufficient permission to access NIS authentication database (saslauthd)", "shadow"
    )


@needs_account_tools
def test_a_hash_of_an_unknown_scheme_is_an_outage(ann: str) -> None:
    set_stored(ann, ARGON2)

    assert asked(ann) == Unavailable("libcrypt cannot check $argon2id$ hashes", "shadow")


@needs_account_tools
def test_a_shadow_map_that_may_not_be_read_is_an_outage(joe: str) -> None:
    with as_nobody():
        result = asked(joe)

    assert result == Unavailable("Username shadow lookup failure: Permission denied", "shadow")


def test_a_passwd_map_that_cannot_be_read_is_an_outage() -> None:
    with no_descriptors():
        result = asked(NOBODY_HERE)

    assert result == Unavailable("Username lookup failure: Too many open files", "shadow")


@needs_account_tools
def test_it_tells_of_expiry_who_knows_the_password(ann: str) -> None:
    assert asked(ann, b"pw") == PASSWORD_EXPIRED
    assert asked(ann, b"wrong") == INCORRECT_PASSWORD


@needs_account_tools
def test_the_day_is_that_of_the_request(ann: str) -> None:
    days = iter([TODAY - 1, TODAY])
    subject = Shadow(lambda: next(days))

    assert subject.check(request_for(ann, b"pw")) == Accepted(ann, "shadow")
    assert subject.check(request_for(ann, b"pw")) == PASSWORD_EXPIRED


@pytest.mark.parametrize(
    ("aging", "verdict"),
    [
        pytest.param(Aging(), None, id="nothing-set"),
        pytest.param(Aging(expire=TODAY + 1), None, id="account-expires-tomorrow"),
        pytest.param(Aging(expire=TODAY), ACCOUNT_EXPIRED, id="account-expires-today"),
        pytest.param(Aging(expire=TODAY - 1), ACCOUNT_EXPIRED, id="account-expired-yesterday"),
        pytest.param(Aging(expire=0), ACCOUNT_EXPIRED, id="account-expired-in-1970"),
        pytest.param(Aging(0, expire=TODAY), ACCOUNT_EXPIRED, id="both-expired"),
        pytest.param(Aging(0), PASSWORD_EXPIRED, id="must-be-changed"),
        pytest.param(Aging(0, 99999), PASSWORD_EXPIRED, id="must-be-changed-though-it-lasts"),
        pytest.param(Aging(TODAY + 5, 10), None, id="changed-in-the-future"),
        pytest.param(Aging(None, 10), None, id="no-last-change"),
        pytest.param(Aging(TODAY - 11, None), None, id="no-maximum"),
        pytest.param(Aging(TODAY - 10, 10), None, id="last-day"),
        pytest.param(Aging(TODAY - 11, 10), PASSWORD_EXPIRED, id="day-after"),
        pytest.param(Aging(TODAY - 11, 10, 1), None, id="last-day-of-grace"),
        pytest.param(Aging(TODAY - 12, 10, 1), PASSWORD_EXPIRED, id="day-after-grace"),
        pytest.param(Aging(TODAY - 11, 10, 0), PASSWORD_EXPIRED, id="no-grace"),
        pytest.param(Aging(TODAY - 10, 10, -5), None, id="grace-below-zero"),
    ],
)
def test_expiry_follows_the_dates(aging: Aging, verdict: Rejected | None) -> None:
    assert expiry(aging, TODAY) == verdict


@needs_account_tools
def test_a_yes_costs_one_hash(joe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = count_hashes(monkeypatch)

    asked(joe)

    assert len(computed) == 1


@needs_account_tools
@pytest.mark.parametrize(
    ("stored", "password"),
    [
        pytest.param(None, b"pw", id="expired"),
        pytest.param(None, b"wrong", id="wrong-password"),
        pytest.param(None, b"p" * 8192, id="long-password"),
        pytest.param("", b"pw", id="no-hash"),
        pytest.param("!", b"pw", id="locked"),
        pytest.param("x", b"pw", id="nonsense"),
    ],
)
def test_a_refusal_costs_one_hash(
    ann: str, monkeypatch: pytest.MonkeyPatch, stored: str | None, password: bytes
) -> None:
    if stored is not None:
        set_stored(ann, stored)
    computed = count_hashes(monkeypatch)

    result = asked(ann, password)

    assert isinstance(result, Rejected)
    assert len(computed) == 1


@pytest.mark.usefixtures("as_root")
def test_an_unknown_user_costs_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = count_hashes(monkeypatch)

    asked(NOBODY_HERE)

    assert len(computed) == 1


@needs_account_tools
def test_a_user_without_shadow_entry_costs_one_hash(
    ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_out_of_shadow(ann)
    computed = count_hashes(monkeypatch)

    asked(ann)

    assert len(computed) == 1


def test_the_day_is_counted_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 86400.0 * TODAY - 0.5)

    assert shadow.utc_day() == TODAY - 1


@pytest.mark.usefixtures("as_root")
def test_a_machine_that_has_all_it_needs_may_start() -> None:
    shadow.check_prerequisites()


def test_a_machine_without_shadow_file_is_told_what_to_do() -> None:
    with pytest.raises(StartupError, match=r"there is none here\nuse -a pam or -a getpwent"):
        shadow.check_prerequisites("/nonexistent/shadow")


@pytest.mark.usefixtures("as_root")
def test_a_process_that_cannot_read_the_file_is_told_what_to_do() -> None:
    with as_nobody(), pytest.raises(StartupError) as raised:
        shadow.check_prerequisites()

    assert raised.value.lines == (
        "-a shadow reads /etc/shadow, and this process cannot: Permission denied",
        "start the daemon as root, or as a user of that file's group (Debian: shadow)",
    )
