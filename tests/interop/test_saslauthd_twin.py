"""The C daemon's command line and ours, side by side."""

import re
from collections.abc import Iterator

import pytest

from tests.helpers.cyrus import cyrus
from tests.helpers.instance import COMMAND, Instance, instance, run

pytestmark = pytest.mark.interop("saslauthd")

WRONG_LINES = [
    ["-n", "-1"],
    ["-n", "-1", "-v"],
    ["-s", "0"],
    ["-s", "x"],
    ["-t", "0"],
    ["-t", "x"],
    ["-m", "run"],
    ["-a", "foo"],
    ["-a", "sasldb", "-m", "/nonexistent/run"],
    ["-x"],
    ["-T"],
    ["-H", "host"],
    ["-a"],
    ["-m"],
    [],
    ["-a", "sasldb", "-a", "sasldb"],
    ["-v"],
    ["-h"],
    ["-v", "-x"],
    ["operand", "-v"],
    ["-dVh"],
]


@pytest.fixture
def place() -> Iterator[Instance]:
    with instance() as made:
        yield made


def words(stderr: str) -> list[str]:
    """Return the lines that say what is wrong, without process ids and names of programs."""
    complaints = stderr.split("usage: ")[0]
    return [re.sub(r"^.*?(\] ?:|: )", "", line) for line in complaints.splitlines()]


@pytest.mark.parametrize("flags", WRONG_LINES, ids=str)
def test_a_line_that_starts_nothing_ends_alike(place: Instance, flags: list[str]) -> None:
    own = [] if "-a" in flags or "-m" in flags else ["-m", str(place.run)]

    theirs = run(["saslauthd", *own, *flags])
    ours = run([*COMMAND, *own, *flags])

    assert ours.returncode == theirs.returncode
    assert ours.stdout == theirs.stdout
    assert ("usage: " in ours.stderr) == ("usage: " in theirs.stderr)
    if "mechanisms:" not in theirs.stderr.split("usage: ")[0]:
        assert words(ours.stderr)[: len(words(theirs.stderr))] == words(theirs.stderr)


def test_the_version_has_the_c_daemons_form() -> None:
    theirs = run(["saslauthd", "-v"]).stderr.split("\n")
    ours = run([*COMMAND, "-v"]).stderr.split("\n")

    assert re.fullmatch(r"pysaslauthd \d\S+", ours[0])
    assert re.fullmatch(r"saslauthd \d\S+", theirs[0])
    assert ours[1].startswith("authentication mechanisms: ")
    assert ours[2:] == theirs[2:] == ["", ""]


def test_every_flag_of_the_c_daemons_help_is_in_ours() -> None:
    flag = re.compile(r"^  (-\w)( <[a-z]+>)? ", re.MULTILINE)

    theirs = flag.findall(run(["saslauthd", "-h"]).stderr)
    ours = flag.findall(run([*COMMAND, "-h"]).stderr)

    assert [each for each in ours if each[0] != "-f"] == theirs


def test_a_c_daemon_keeps_ours_from_its_run_directory() -> None:
    with cyrus("sasldb") as theirs:
        ours = run([*COMMAND, "-a", "sasldb", "-m", str(theirs.mux.parent), "-f"])

    assert ours.returncode == 1
    assert "Another instance of saslauthd is currently running" in ours.stderr


def test_ours_keeps_a_c_daemon_from_its_run_directory(place: Instance) -> None:
    with place.running():
        theirs = run(["saslauthd", "-a", "sasldb", "-m", str(place.run)])

        assert theirs.returncode == 1
        assert "could not lock pid lock file" in theirs.stderr
        assert place.ask() == b"OK"
