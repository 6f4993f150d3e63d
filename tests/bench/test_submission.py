"""The logins that are counted are those that a submission server has let in."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.bench import database, load, submission
from tests.bench.load import IN_DATABASE, Load
from tests.bench.measure import Bench
from tests.helpers.processes import short_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PATIENCE = 10.0
GREETING, HELLO, YES, FAREWELL = (
    b"220 hi\r\n",
    b"250-m\r\n250 AUTH\r\n",
    b"235 in\r\n",
    b"221 b\r\n",
)


@pytest.fixture
def door() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def smtpload(
    tools: Path, door: socket.socket, *options: str, password: str = "pw", realm: str = ""
) -> dict[str, float]:
    port = str(door.getsockname()[1])
    command = [str(tools / "smtpload"), *options, port, "ann", password, realm]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


class Scripted(threading.Thread):
    """A server for one client: what it replies is given; *heard* is what it was told each time."""

    def __init__(self, door: socket.socket, replies: Sequence[bytes]) -> None:
        super().__init__()
        self._door = door
        self._replies = replies
        self.heard: list[bytes] = []

    def __enter__(self) -> Scripted:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.join(PATIENCE)

    def run(self) -> None:
        with self._door.accept()[0] as client:
            client.settimeout(PATIENCE)
            for reply in self._replies[:-1]:
                client.sendall(reply)
                self.heard.append(client.recv(1024))
            client.sendall(self._replies[-1])
            client.shutdown(socket.SHUT_WR)
            self.heard.append(client.recv(1024))


@pytest.mark.parametrize(
    ("replies", "counted"),
    [
        pytest.param([GREETING, HELLO, YES, FAREWELL], "right", id="let-in"),
        pytest.param([GREETING, HELLO, b"535 no\r\n", FAREWELL], "wrong", id="refused"),
        pytest.param([GREETING, HELLO, b"454 later\r\n"], "wrong", id="outage"),
        pytest.param([GREETING, HELLO, b"334 \r\n"], "wrong", id="challenge"),
        pytest.param([GREETING, b"502 what\r\n"], "wrong", id="no-EHLO"),
        pytest.param([b"421 busy\r\n"], "wrong", id="busy"),
        pytest.param([GREETING, HELLO, YES, b"500 what\r\n"], "wrong", id="no-QUIT"),
        pytest.param([b""], "errors", id="hangs-up-at-once"),
        pytest.param([GREETING, b"250-m\r\n"], "errors", id="half-a-reply"),
        pytest.param([GREETING, HELLO, b"235 in"], "errors", id="half-a-line"),
        pytest.param([GREETING, HELLO, YES], "errors", id="no-farewell"),
    ],
)
def test_the_load_sees_through_a_server(
    tools: Path, door: socket.socket, replies: list[bytes], counted: str
) -> None:
    with Scripted(door, replies):
        said = smtpload(tools, door, "-n", "1")

    assert {what for what in ("right", "wrong", "errors") if said[what]} == {counted}


@pytest.mark.parametrize("password", ["p", "pw", "p w"], ids=["no-padding", "two", "one"])
@pytest.mark.parametrize(
    ("realm", "name"),
    [pytest.param("", b"ann0", id="no-realm"), pytest.param("r.example", b"ann0@r.example")],
)
def test_the_load_says_what_a_mail_client_says(
    tools: Path, door: socket.socket, password: str, realm: str, name: bytes
) -> None:
    with Scripted(door, [GREETING, HELLO, YES, FAREWELL]) as server:
        smtpload(tools, door, "-n", "1", "-u", "1", password=password, realm=realm)

    message = base64.b64encode(b"\0%b\0%b" % (name, password.encode()))
    assert server.heard == [
        b"EHLO client.test.example\r\n",
        b"AUTH PLAIN %b\r\n" % message,
        b"QUIT\r\n",
        b"",
    ]


def test_the_load_gives_up_on_a_server_that_never_answers(tools: Path, door: socket.socket) -> None:
    said = smtpload(tools, door, "-w", "0.01", "-t", "2")

    assert (said["right"], said["errors"]) == (0, 20)


@pytest.fixture
def bench(tools: Path) -> Iterator[Bench]:
    with short_directory("mux-") as work:
        yield Bench(tools, work, work / "sasldb2", rounds=1, seconds=0.2, users=10)


@pytest.mark.interop("saslpasswd2")
@pytest.mark.usefixtures("root")
def test_ours_lets_all_of_the_benchmarks_clients_in(bench: Bench) -> None:
    database.make(bench.database, 2)

    with submission.ours(bench) as server:
        sample = load.apply(Load(submission.THREADS, 20, 2, 128), server, bench.tools)

    assert (sample.right, sample.not_right) == (128, 0)


# The system's database, which is what the C daemon reads, has none of them.
STRANGERS = replace(IN_DATABASE, login="stranger", answer="NO")


@pytest.mark.interop("postfix", "saslauthd")
@pytest.mark.usefixtures("root")
def test_postfix_answers_everybody_however_many_come(bench: Bench) -> None:
    with submission.postfix(bench) as server:
        sample = load.apply(Load(40, 20, 10, 160, STRANGERS), server, bench.tools)

    assert (sample.right, sample.not_right) == (160, 0)
