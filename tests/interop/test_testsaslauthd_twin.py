"""pytestsaslauthd beside Cyrus' testsaslauthd: the same replies, the same words."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.daemon import command, environment
from tests.helpers.processes import DEADLINE
from tests.helpers.scripted_server import scripted_server

pytestmark = pytest.mark.interop("testsaslauthd")

THEIRS = ["testsaslauthd"]
OURS = command("testsaslauthd")


def outcome(program: list[str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run *program* to its end."""
    return subprocess.run(
        [*program, *arguments],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )


@pytest.fixture
def mux(tmp_path: Path) -> Path:
    return tmp_path / "mux"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"\0\2OK", id="ok"),
        pytest.param(b"\0\5OKxyz", id="ok-with-a-tail"),
        pytest.param(b"\0\2NO", id="no"),
        pytest.param(b"\0\x09NO reason", id="no-with-a-reason"),
        pytest.param(b"\0\2ok", id="ok-in-small-letters"),
        pytest.param(b"\0\2xx", id="neither"),
        pytest.param(b"\0\0", id="zero-count"),
        pytest.param(b"\0\1O", id="count-of-one"),
        pytest.param(b"\0", id="half-a-count"),
        pytest.param(b"\0\5OK", id="cut-short"),
        pytest.param(b"\x13\x8aOK" + b"x" * 5000, id="longer-than-the-buffer"),
        pytest.param(b"\xff\xff" + b"OK" * 600, id="cut-short-beyond-the-buffer"),
        pytest.param(b"", id="no-reply"),
    ],
)
def test_a_reply_gets_the_same_output_and_code(mux: Path, reply: bytes) -> None:
    arguments = ["-u", "joe", "-p", "pw", "-f", str(mux)]

    with scripted_server(mux, reply, reply):
        theirs = outcome(THEIRS, *arguments)
        ours = outcome(OURS, *arguments)

    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.startswith(theirs.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-u", "joe", "-p", "pw"], id="defaults"),
        pytest.param(["-u", "joe@x", "-p", "p w", "-r", "R", "-s", "smtp", "more"], id="all"),
        pytest.param(["-u", "", "-p", ""], id="empty"),
        pytest.param(["-ujoe", "-p-", "-p", "last"], id="attached-and-repeated"),
        pytest.param(["-u", "joe", "-p", "caf\udce9"], id="latin-1"),
        pytest.param(["-u", "joe", "-p", "x" * 8100], id="long"),
    ],
)
def test_a_command_line_sends_the_same_request(mux: Path, arguments: list[str]) -> None:
    with scripted_server(mux, b"\0\2OK", b"\0\2OK") as server:
        outcome(THEIRS, *arguments, "-f", str(mux))
        outcome(OURS, *arguments, "-f", str(mux))

    theirs, ours = server.requests
    assert ours == theirs


@pytest.mark.parametrize("number", ["3", "0", "x", "2x", " +2", "-1"])
def test_a_number_of_repeats_gets_the_same_output(mux: Path, number: str) -> None:
    arguments = ["-u", "joe", "-p", "pw", "-R", number, "-f", str(mux)]

    with scripted_server(mux, *[b"\0\2OK"] * 6):
        theirs = outcome(THEIRS, *arguments)
        ours = outcome(OURS, *arguments)

    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


def test_a_missing_socket_gets_the_same_output_and_code(mux: Path) -> None:
    arguments = ["-u", "joe", "-p", "pw", "-R", "2", "-f", str(mux)]

    theirs = outcome(THEIRS, *arguments)
    ours = outcome(OURS, *arguments)

    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert theirs.stderr.splitlines() == ours.stderr.splitlines()[::2]
