"""The C daemon's shadow and getpwent beside ours, asked the same about the same accounts."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from pysaslauthd.backends.base import BlockingVerifier
from pysaslauthd.backends.getpwent import Getpwent
from pysaslauthd.backends.shadow import Shadow, utc_day
from pysaslauthd.model import Accepted, AuthResult, Rejected
from tests.contract.verifier import request_for
from tests.helpers.accounts import (
    LOCKED,
    account,
    keep_out_of_shadow,
    needs_account_tools,
    set_stored,
)
from tests.helpers.cyrus import Cyrus, cyrus
from tests.helpers.stores import as_nobody

pytestmark = [needs_account_tools, pytest.mark.interop("saslauthd")]

TODAY = utc_day()
SHA512 = (
    "$6$ab.cd/ef$52kN44P6lqdNZPL.yQuNtSEZSVFpD3cyMQZT15zsuEe9GhwV7vryx42F1YEwVcjG"
    "lZB1vQ.ALx5zEZGxVjQQi."
)
DES = "abhfCpXqd4GrI"
OF_HASHES = "correct horse"
ARGON2 = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAECAwQFBgcICQoLDA0ODw"

OK = "OK"
INVALID = "NO Invalid username"
INCORRECT = "NO Incorrect password"
ACCOUNT_EXPIRED = "NO Account expired"
PASSWORD_EXPIRED = "NO Password expired"


class Pair(NamedTuple):
    """A C daemon, and our backend of the same name."""

    theirs: Cyrus
    ours: BlockingVerifier

    def ask(self, user: str, password: str) -> tuple[str, str]:
        """Return what the C daemon replies and what ours would."""
        theirs = self.theirs.ask(user, password).decode()
        return theirs, as_reply(self.ours.check(request_for(user, password.encode(), realm="")))


def as_reply(result: AuthResult) -> str:
    match result:
        case Accepted():
            return OK
        case Rejected():
            return f"NO {result.text}"
    return f"outage: {result.detail}"


@pytest.fixture(scope="module")
def shadow(as_root: None) -> Iterator[Pair]:
    with cyrus("shadow") as theirs:
        yield Pair(theirs, Shadow())


@pytest.fixture(scope="module")
def getpwent(as_root: None) -> Iterator[Pair]:
    with cyrus("getpwent") as theirs:
        yield Pair(theirs, Getpwent())


@pytest.mark.parametrize(
    ("aging", "reply"),
    [
        pytest.param({}, OK, id="nothing-set"),
        pytest.param({"expiredate": TODAY + 1}, OK, id="account-expires-tomorrow"),
        pytest.param({"expiredate": TODAY - 1}, ACCOUNT_EXPIRED, id="account-expired-yesterday"),
        pytest.param({"expiredate": 0}, ACCOUNT_EXPIRED, id="account-expired-in-1970"),
        pytest.param({"lastday": TODAY - 10, "maxdays": 10}, OK, id="last-day"),
        pytest.param({"lastday": TODAY - 11, "maxdays": 10}, PASSWORD_EXPIRED, id="day-after"),
        pytest.param(
            {"lastday": TODAY - 11, "maxdays": 10, "inactive": 0}, PASSWORD_EXPIRED, id="no-grace"
        ),
        pytest.param(
            {"lastday": TODAY - 42, "maxdays": 10, "inactive": 30},
            PASSWORD_EXPIRED,
            id="grace-over",
        ),
        pytest.param({"lastday": TODAY - 9, "maxdays": 10, "warndays": 7}, OK, id="warned"),
        pytest.param({"lastday": TODAY - 1, "mindays": 7}, OK, id="too-new-to-change"),
        pytest.param({"lastday": TODAY + 5, "maxdays": 10}, OK, id="changed-in-the-future"),
        pytest.param({"lastday": -1, "maxdays": 10}, OK, id="no-last-change"),
        pytest.param({"lastday": TODAY - 999, "maxdays": -1}, OK, id="no-maximum"),
        pytest.param(
            {"lastday": TODAY - 11, "maxdays": 10, "expiredate": TODAY - 1},
            ACCOUNT_EXPIRED,
            id="both-expired",
        ),
    ],
)
def test_shadow_judges_dates_alike(shadow: Pair, aging: dict[str, int], reply: str) -> None:
    with account("pw", stored=LOCKED, **aging) as name:
        assert shadow.ask(name, "pw") == (reply, reply)
        assert shadow.ask(name, "wrong") == (INCORRECT, INCORRECT)


@pytest.mark.parametrize("stored", ["", "*", "!", "!!", "*LK*", "x", "xx", f"!{SHA512}", "$6$"])
def test_shadow_refuses_alike_what_no_password_fits(shadow: Pair, stored: str) -> None:
    with account() as name:
        set_stored(name, stored)

        assert shadow.ask(name, "pw") == (INCORRECT, INCORRECT)


@pytest.mark.parametrize("stored", [SHA512, DES], ids=["sha512", "des"])
def test_shadow_reads_hashes_alike(shadow: Pair, stored: str) -> None:
    with account(stored=stored) as name:
        assert shadow.ask(name, OF_HASHES) == (OK, OK)
        assert shadow.ask(name, OF_HASHES[:7]) == (INCORRECT, INCORRECT)


@pytest.mark.parametrize("user", ["nobody-of-this-name", "ROOT", "root ", "+", "*", "zoë"])
def test_shadow_refuses_unknown_users_alike(shadow: Pair, user: str) -> None:
    assert shadow.ask(user, "pw") == (INVALID, INVALID)


def test_shadow_refuses_alike_who_is_in_the_passwd_map_only(shadow: Pair) -> None:
    with account("pw") as name:
        keep_out_of_shadow(name)

        theirs, ours = shadow.ask(name, "pw")

    assert theirs == ours == "NO Invalid shadow username"


@pytest.mark.parametrize(
    ("aging", "theirs", "ours"),
    [
        pytest.param({"expiredate": TODAY}, OK, ACCOUNT_EXPIRED, id="account-expires-today"),
        pytest.param({"lastday": 0, "maxdays": -1}, OK, PASSWORD_EXPIRED, id="must-be-changed"),
        pytest.param(
            {"lastday": TODAY - 11, "maxdays": 10, "inactive": 1}, PASSWORD_EXPIRED, OK, id="grace"
        ),
    ],
)
def test_shadow_differs_on_purpose_in_dates(
    shadow: Pair, aging: dict[str, int], theirs: str, ours: str
) -> None:
    with account("pw", stored=LOCKED, **aging) as name:
        assert shadow.ask(name, "pw") == (theirs, ours)


@pytest.mark.parametrize(
    ("stored", "theirs", "ours"),
    [
        pytest.param(
            "*NP*",
            "NO Insufficient permission to access NIS authentication database (saslauthd)",
            "outage: Insufficient permission to access NIS authentication database (saslauthd)",
            id="withheld-by-nis",
        ),
        pytest.param(
            ARGON2,
            INCORRECT,
            "outage: libcrypt cannot check $argon2id$ hashes",
            id="unknown-scheme",
        ),
    ],
)
def test_shadow_calls_an_outage_what_the_c_daemon_refuses(
    shadow: Pair, stored: str, theirs: str, ours: str
) -> None:
    with account(stored=stored) as name:
        assert shadow.ask(name, "pw") == (theirs, ours)


@pytest.mark.interop("setpriv")
@pytest.mark.usefixtures("as_root")
def test_shadow_calls_an_outage_a_map_it_may_not_read() -> None:
    as_whom = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with account("pw") as name, cyrus("shadow", within=as_whom) as daemon, as_nobody():
        theirs, ours = Pair(daemon, Shadow()).ask(name, "pw")

    assert theirs in (
        "NO Invalid shadow username",  # so says the next source of nsswitch.conf
        "NO Username shadow lookup failure: Permission denied",
    )
    assert ours == "outage: Username shadow lookup failure: Permission denied"


@pytest.mark.parametrize(
    ("stored", "password", "reply"),
    [
        pytest.param(SHA512, OF_HASHES, OK, id="sha512"),
        pytest.param(DES, OF_HASHES, OK, id="des"),
        pytest.param(SHA512, "wrong", INCORRECT, id="wrong-password"),
        pytest.param("", "pw", INCORRECT, id="no-hash"),
        pytest.param("*", "pw", INCORRECT, id="locked"),
        pytest.param("*NP*", "pw", INCORRECT, id="withheld-by-nis"),
        pytest.param("x", "x", INCORRECT, id="shadowed"),
    ],
)
def test_getpwent_reads_the_passwd_map_alike(
    getpwent: Pair, stored: str, password: str, reply: str
) -> None:
    with account() as name:
        keep_out_of_shadow(name, stored)

        assert getpwent.ask(name, password) == (reply, reply)


def test_getpwent_ignores_the_shadow_map_alike(getpwent: Pair) -> None:
    with account("pw") as name:
        assert getpwent.ask(name, "pw") == (INCORRECT, INCORRECT)


@pytest.mark.parametrize("user", ["nobody-of-this-name", "ROOT", "root ", "+", "*", "zoë"])
def test_getpwent_refuses_unknown_users_alike(getpwent: Pair, user: str) -> None:
    assert getpwent.ask(user, "pw") == (INVALID, INVALID)


def test_getpwent_calls_an_outage_a_scheme_the_c_daemon_refuses(getpwent: Pair) -> None:
    with account() as name:
        keep_out_of_shadow(name, ARGON2)

        theirs, ours = getpwent.ask(name, "pw")

    assert theirs == INCORRECT
    assert ours == "outage: libcrypt cannot check $argon2id$ hashes"
