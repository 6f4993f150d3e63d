"""What stands behind the servers in a benchmark, and what they are held against, is as it says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench import database, load, peers, processes
from tests.bench.dovecot import FASTEST, dovecot
from tests.bench.imap import itself
from tests.bench.ldap import directory, ldap3_alone
from tests.bench.load import Load, Question, Yardstick
from tests.bench.measure import Bench
from tests.bench.peers import Peer
from tests.bench.servers import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY = 0.02  # seconds
TOO_LATE = 0.001
PATIENCE = 10.0
HELD_AT_MOST = 64 << 20  # bytes; the relay's own bound, and the kernel's for four sockets


@dataclass
class Way:
    """A client and, behind a relay, its server."""

    client: socket.socket
    server: socket.socket


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(PATIENCE)
        yield door


def at(door: socket.socket) -> Peer:
    """Return who listens there, which is this process."""
    return Peer(os.getpid(), door.getsockname()[1], Path(os.devnull))


@pytest.fixture
def way(tools: Path) -> Iterator[Way]:
    with (
        listening() as door,
        peers.delayed(at(door), DELAY * 1000, tools) as relay,
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client,
        door.accept()[0] as server,
    ):
        server.settimeout(PATIENCE)
        yield Way(client, server)


def one_trip(sender: socket.socket, receiver: socket.socket) -> float:
    before = time.monotonic()
    sender.sendall(b"x")
    assert receiver.recv(1) == b"x"
    return time.monotonic() - before


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [pytest.param("client", "server", id="there"), pytest.param("server", "client", id="back")],
)
def test_the_relay_is_late_by_what_it_says(way: Way, sender: str, receiver: str) -> None:
    ends = getattr(way, sender), getattr(way, receiver)
    trips = [one_trip(*ends) for _ in range(30)]
    until = time.monotonic() + PATIENCE
    while min(trips) >= DELAY + TOO_LATE and time.monotonic() < until:  # the machine is busy
        trips.append(one_trip(*ends))

    assert DELAY <= min(trips) < DELAY + TOO_LATE


def test_the_relay_keeps_every_byte_in_its_order_both_ways(way: Way) -> None:
    there, back = os.urandom(3_000_000), os.urandom(3_000_000)
    writers = [
        threading.Thread(target=way.client.sendall, args=(there,)),
        threading.Thread(target=way.server.sendall, args=(back,)),
    ]
    for writer in writers:
        writer.start()

    came_there = way.server.makefile("rb").read(len(there))
    came_back = way.client.makefile("rb").read(len(back))

    for writer in writers:
        writer.join(PATIENCE)
    assert came_there == there
    assert came_back == back


def test_the_relay_passes_an_end_on_and_leaves_the_other_direction_open(way: Way) -> None:
    way.client.sendall(b"question")
    way.client.shutdown(socket.SHUT_WR)

    asked = way.server.makefile("rb").read()
    way.server.sendall(b"answer")
    way.server.close()

    assert asked == b"question"
    assert way.client.makefile("rb").read() == b"answer"


def test_the_relay_takes_no_more_than_somebody_reads(way: Way) -> None:
    block = bytes(1 << 20)
    way.client.settimeout(DELAY * 5)
    sent = 0

    with contextlib.suppress(TimeoutError):
        while sent < HELD_AT_MOST:
            sent += way.client.send(block)

    assert sent < HELD_AT_MOST


def test_the_relay_hangs_up_where_nobody_listens(tools: Path) -> None:
    with listening() as door:
        nobody = at(door)
    with (
        peers.delayed(nobody, 1, tools) as relay,
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client,
        contextlib.suppress(ConnectionResetError),
    ):
        assert client.recv(1) == b""


@pytest.fixture(scope="module")
def script(tools: Path) -> Iterator[Peer]:
    with peers.compiled("imap", "pass word", tools=tools) as peer:
        yield peer


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        pytest.param('LOGIN "ann" "pass word"', "a OK [CAPABILITY IMAP4rev1] welcome", id="right"),
        pytest.param('login ann "pass word"', "a OK [CAPABILITY IMAP4rev1] welcome", id="atom"),
        pytest.param(
            r'LOGIN "an\"n" "pass w\ord"', "a OK [CAPABILITY IMAP4rev1] welcome", id="quoted"
        ),
        pytest.param('LOGIN "ann" "wrong"', "a NO [AUTHENTICATIONFAILED] wrong", id="wrong"),
        pytest.param('LOGIN "ann"', "a BAD two arguments", id="no-password"),
        pytest.param('LOGIN "ann" "pass word" x', "a BAD two arguments", id="too-much"),
        pytest.param("SELECT INBOX", "a BAD unknown command", id="another-command"),
    ],
)
def test_the_imap_server_answers_by_its_script(script: Peer, command: str, answer: str) -> None:
    with (
        socket.create_connection(("127.0.0.1", script.port), PATIENCE) as client,
        client.makefile("rwb", buffering=0) as lines,
    ):
        greeting = lines.readline()
        lines.write(f"a {command}\r\n".encode())
        said = lines.readline()
        lines.write(b"b LOGOUT\r\n")

        assert greeting == b"* OK [CAPABILITY IMAP4rev1] ready\r\n"
        assert said.decode() == f"{answer}\r\n"
        assert lines.read() == b"* BYE\r\nb OK farewell\r\n"


def imapload(tools: Path, port: int, password: str, *options: str) -> dict[str, float]:
    command = [str(tools / "imapload"), *options, str(port), "ann", password]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    ("password", "right", "wrong"),
    [
        pytest.param("pass word", 100, 0, id="right"),
        pytest.param("wrong", 0, 100, id="wrong"),
    ],
)
def test_the_imap_load_counts_only_right_answers(
    tools: Path, script: Peer, password: str, right: int, wrong: int
) -> None:
    said = imapload(tools, script.port, password, "-n", "100", "-t", "3")

    assert (said["right"], said["wrong"], said["errors"]) == (right, wrong, 0)


def test_the_imap_load_gives_up_on_a_server_that_never_answers(tools: Path) -> None:
    with listening() as mute:
        port = mute.getsockname()[1]

        said = imapload(tools, port, "pw", "-w", "0.01", "-t", "2")

    assert (said["right"], said["errors"]) == (0, 20)


@pytest.mark.parametrize(
    ("greeting", "answer", "counted"),
    [
        pytest.param(b"* OK hello\r\n", b"* OK by\r\nsaslauthd OK in\r\n", "right", id="untagged"),
        pytest.param(b"* BYE busy\r\n", b"", "wrong", id="no-greeting"),
        pytest.param(b"* OK hello\r\n", b"saslauthd BAD so\r\n", "wrong", id="bad"),
        pytest.param(b"* OK hello\r\n", b"other OK in\r\n", "wrong", id="another-tag"),
        pytest.param(b"* OK hello\r\n", b"", "errors", id="hangs-up"),
        pytest.param(b"* OK hello\r\n", b"saslauthd OK in", "errors", id="half-a-line"),
    ],
)
def test_the_imap_load_sees_through_a_server(
    tools: Path, greeting: bytes, answer: bytes, counted: str
) -> None:
    def serve() -> None:
        with door.accept()[0] as client:
            client.sendall(greeting)
            client.recv(1024)
            client.sendall(answer)

    with listening() as door:
        thread = threading.Thread(target=serve)
        thread.start()
        said = imapload(tools, door.getsockname()[1], "pw", "-n", "1")
        thread.join(PATIENCE)

    assert {what for what in ("right", "wrong", "errors") if said[what]} == {counted}


def test_the_imap_load_says_what_the_c_daemon_says(tools: Path) -> None:
    with listening() as door, contextlib.ExitStack() as stack:
        thread = threading.Thread(
            target=imapload, args=(tools, door.getsockname()[1], "pw", "-n", "1", "-u", "1")
        )
        thread.start()
        client = stack.enter_context(door.accept()[0])
        client.sendall(b"* OK hello\r\n")
        asked = client.recv(1024)
        client.sendall(b"saslauthd OK in\r\n")

        assert asked == b'saslauthd LOGIN "ann0" "pw"\r\n'
        assert client.makefile("rb").read() == b"saslauthd LOGOUT\r\n"
        thread.join(PATIENCE)


def test_who_is_silenced_lets_clients_in_and_answers_them_later(script: Peer) -> None:
    with peers.silenced(script):
        client = socket.create_connection(("127.0.0.1", script.port), PATIENCE)
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)

    with client:
        client.settimeout(PATIENCE)
        assert client.recv(4) == b"* OK"


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(NotMeasuredError, match="no-such-d is missing: apt-get install such"):
        peers.need({"sh": "dash", "no-such-d": "such"})


def test_a_yardsticks_time_is_its_clients(tools: Path) -> None:
    said = {"right": 4, "wrong": 1, "errors": 2, "cpu_seconds": 0.002, "right_per_second": 8.0}
    report = json.dumps({**said, "p99_us": 70.0})
    alone = Yardstick("alone", "alone", lambda _load, _tools: ["echo", report], (), tools)

    sample = load.apply(Load(1, 1, 1), alone, tools)

    assert (sample.cpu, sample.rate, sample.not_right, sample.p99) == (500.0, 8.0, 3, 70.0)


def test_descriptors_are_counted() -> None:
    before = processes.open_files(os.getpid())

    with socket.socket(), socket.socket():
        assert processes.open_files(os.getpid()) == before + 2


@pytest.fixture
def bench(tools: Path, tmp_path: Path) -> Bench:
    return Bench(tools, tmp_path, tmp_path, rounds=1, seconds=0.2, users=10)


EVERYBODY = Question(database.LOGIN, database.PASSWORD)
NOBODY = Question(database.LOGIN, "wrong")


@pytest.mark.interop("slapd", "slapadd", "ldapwhoami")
def test_ldap3_alone_counts_only_right_answers(bench: Bench) -> None:
    with directory(bench) as peer:
        yardstick = ldap3_alone(peer)
        right = load.apply(Load(1, 0.2, 10, question=EVERYBODY), yardstick, bench.tools)
        wrong = load.apply(Load(1, 0.2, 10, question=NOBODY), yardstick, bench.tools)

    assert (right.right > 0, right.not_right) == (True, 0)
    assert (wrong.right, wrong.not_right > 0) == (0, True)


@pytest.mark.interop("dovecot")
@pytest.mark.usefixtures("root")
def test_dovecot_refuses_nobody_however_many_come(bench: Bench) -> None:
    with dovecot(1, FASTEST) as peer:
        sample = load.apply(
            Load(200, 30, 1, requests=400, question=EVERYBODY), itself(peer), bench.tools
        )

    assert (sample.right, sample.not_right) == (400, 0)
