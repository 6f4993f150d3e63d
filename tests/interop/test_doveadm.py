"""doveadm, Dovecot's own tool, at our socket."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.dovecot_door import Door, dovecot_door
from tests.helpers.processes import DEADLINE

pytestmark = pytest.mark.interop("doveadm")

NO_PERMISSION, TEMPORARY_FAILURE = 77, 75  # sysexits.h


class Answer(NamedTuple):
    """What doveadm says, and its exit code."""

    code: int
    lines: list[str]


@pytest.fixture(scope="module")
def running_door(directory: Path) -> Iterator[Door]:
    (directory / "dovecot.conf").write_text("")
    with dovecot_door(directory, {"joe": "joepw"}, settings="failure_delay = 0.0\n") as door:
        yield door


def doveadm(door: Door, user: str, password: str, *more: str) -> Answer:
    configuration = door.path.parents[1] / "dovecot.conf"
    done = subprocess.run(
        [
            *(
                "doveadm",
                "-c",
                configuration,
                "auth",
                "test",
                "-a",
                door.path,
                "-x",
                "service=smtp",
            ),
            *(*more, user, password),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return Answer(done.returncode, done.stdout.splitlines())


def test_a_right_password_succeeds(running_door: Door) -> None:
    answer = doveadm(running_door, "joe", "joepw")

    assert answer == (0, ["passdb: joe auth succeeded", "extra fields:", "  user=joe"])


@pytest.mark.parametrize("user", ["joe", "zoe"])
def test_what_is_wrong_fails(running_door: Door, user: str) -> None:
    answer = doveadm(running_door, user, "wrong")

    assert answer == (
        NO_PERMISSION,
        [f"passdb: {user} auth failed", "extra fields:", f"  user={user}"],
    )


def test_a_missing_database_is_no_refusal(running_door: Door) -> None:
    with running_door.daemon.without_database():
        answer = doveadm(running_door, "joe", "joepw")

    assert answer.code == TEMPORARY_FAILURE


def test_the_clients_address_is_in_our_log(running_door: Door) -> None:
    before = len(running_door.daemon.log())

    doveadm(running_door, "joe", "wrong", "-x", "rip=192.0.2.7", "-x", "rport=4711")

    assert "[remote=192.0.2.7;4711] [sasl=PLAIN]" in running_door.daemon.log()[before:]
