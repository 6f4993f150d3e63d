"""The answers that are counted are those that a Dovecot client would take for a yes to its user."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.bench import database, dovecot_auth, load
from tests.bench.load import IN_DATABASE, Load
from tests.bench.measure import Bench
from tests.helpers.processes import short_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.bench.dovecot_auth import Door

PATIENCE = 10.0
GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0f\nDONE\n"
YES = b"OK\t1\tuser=ann0\n"
ABOUT = b"service=smtp\tnologin\tlip=127.0.0.1\trip=127.0.0.1\tsecured"


@pytest.fixture
def path() -> Iterator[Path]:
    with short_directory("mux-") as directory:
        yield directory / "auth"


@pytest.fixture
def door(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(PATIENCE)
        listening.bind(str(path))
        listening.listen(64)
        yield listening


def authload(
    tools: Path,
    path: Path,
    *options: str,
    mechanism: str = "PLAIN",
    in_flight: int = 1,
    realm: str = "",
) -> dict[str, float]:
    about = [str(path), mechanism, str(in_flight), "ann", "pw", realm]
    command = [str(tools / "authload"), *options, "-u", "1", *about]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


class Scripted(threading.Thread):
    """A server for one connection: it replies what it is given, once so many lines have come.

    *heard* is what came. The last reply is followed by nothing.
    """

    def __init__(
        self, door: socket.socket, *replies: tuple[int, bytes], greeting: bytes = GREETING
    ) -> None:
        super().__init__()
        self._door = door
        self._replies = replies
        self._greeting = greeting
        self.heard: list[bytes] = []

    def __enter__(self) -> Scripted:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.join(PATIENCE)

    def run(self) -> None:
        with self._door.accept()[0] as client, client.makefile("rb") as lines:
            client.settimeout(PATIENCE)
            client.sendall(self._greeting)
            for awaited, reply in self._replies:
                self.heard += [lines.readline() for _ in range(awaited)]
                client.sendall(reply)
            client.shutdown(socket.SHUT_WR)
            self.heard += list(lines)


HELLO_AND_ASK = 3  # lines: VERSION, CPID, AUTH


@pytest.mark.parametrize(
    ("reply", "counted"),
    [
        pytest.param(YES, "right", id="its-user"),
        pytest.param(b"OK\t1\tuser=ann0\tnologin\n", "right", id="its-user-and-more"),
        pytest.param(b"OK\t1\tuser=ann\n", "wrong", id="another-user"),
        pytest.param(b"OK\t1\tuser=ann00\n", "wrong", id="yet-another-user"),
        pytest.param(b"OK\t1\n", "wrong", id="no-user"),
        pytest.param(b"FAIL\t1\tuser=ann0\n", "wrong", id="refused"),
        pytest.param(b"FAIL\t1\tuser=ann0\tcode=temp_fail\n", "wrong", id="outage"),
        pytest.param(b"CONT\t1\t\n", "wrong", id="challenge"),
        pytest.param(b"WHAT\t1\tuser=ann0\n", "wrong", id="no-such-word"),
        pytest.param(b"OK\t2\tuser=ann0\n", "errors", id="another-id"),
        pytest.param(b"OK\tone\tuser=ann0\n", "errors", id="no-id"),
        pytest.param(b"OK\n", "errors", id="no-field"),
        pytest.param(b"OK\t1\tuser=ann0", "errors", id="half-a-line"),
        pytest.param(b"", "errors", id="hangs-up"),
    ],
)
def test_the_load_sees_through_a_server(
    tools: Path, door: socket.socket, path: Path, reply: bytes, counted: str
) -> None:
    with Scripted(door, (HELLO_AND_ASK, reply)):
        said = authload(tools, path, "-n", "1")

    assert {what for what in ("right", "wrong", "errors") if said[what]} == {counted}


@pytest.mark.parametrize(
    ("reply", "no", "other"),
    [
        pytest.param(b"FAIL\t1\tuser=ann0\n", 1, 0, id="refused"),
        pytest.param(b"FAIL\t1\tuser=ann0\tcode=temp_fail\n", 0, 1, id="outage"),
    ],
)
def test_an_outage_is_no_refusal(
    tools: Path, door: socket.socket, path: Path, reply: bytes, no: int, other: int
) -> None:
    with Scripted(door, (HELLO_AND_ASK, reply)):
        said = authload(tools, path, "-n", "1")

    assert (said["no"], said["other"]) == (no, other)


def test_a_server_that_does_not_greet_gets_no_right_answer_out_of_it(
    tools: Path, door: socket.socket, path: Path
) -> None:
    with Scripted(door, greeting=b"VERSION\t1\t2\n"):
        said = authload(tools, path, "-n", "1")

    assert (said["right"], said["errors"]) == (0, 1)


@pytest.mark.parametrize(
    ("realm", "name"),
    [pytest.param("", b"ann0", id="no-realm"), pytest.param("r.example", b"ann0@r.example")],
)
def test_the_load_says_what_postfix_says(
    tools: Path, door: socket.socket, path: Path, realm: str, name: bytes
) -> None:
    with Scripted(door, (HELLO_AND_ASK, b"OK\t1\tuser=%b\n" % name)) as server:
        said = authload(tools, path, "-n", "1", realm=realm)

    version, cpid, asked = server.heard
    message = base64.b64encode(b"\0%b\0pw" % name)
    assert said["right"] == 1
    assert (version, cpid[:5]) == (b"VERSION\t1\t0\n", b"CPID\t")
    assert asked == b"AUTH\t1\tPLAIN\t%b\tresp=%b\n" % (ABOUT, message)


def test_answers_may_come_in_any_order_and_each_is_followed_by_a_new_request(
    tools: Path, door: socket.socket, path: Path
) -> None:
    replies = [
        (2 + 3, b"OK\t3\tuser=ann0\nOK\t1\tuser=ann0\n"),
        (2, b"OK\t5\tuser=ann0\nOK\t2\tuser=ann0\nOK\t4\tuser=ann0\n"),
    ]
    with Scripted(door, *replies) as server:
        said = authload(tools, path, "-n", "5", in_flight=3)

    ids = [line.split(b"\t")[1] for line in server.heard if line.startswith(b"AUTH")]
    assert ids == [b"1", b"2", b"3", b"4", b"5"]
    assert (said["right"], said["wrong"], said["errors"]) == (5, 0, 0)


def test_an_answer_that_comes_twice_ends_the_connection(
    tools: Path, door: socket.socket, path: Path
) -> None:
    with Scripted(door, (HELLO_AND_ASK, YES + YES)):
        said = authload(tools, path, "-n", "9")

    assert (said["right"], said["errors"]) == (1, 1)


def test_all_that_was_in_flight_is_lost_with_the_connection(
    tools: Path, door: socket.socket, path: Path
) -> None:
    with Scripted(door, (2 + 8, YES)):
        said = authload(tools, path, "-n", "99", in_flight=8)

    assert (said["right"], said["errors"]) == (1, 8)


@pytest.mark.usefixtures("door")
def test_the_load_gives_up_on_a_server_that_never_answers(tools: Path, path: Path) -> None:
    said = authload(tools, path, "-w", "0.01", "-t", "2", in_flight=4)

    assert (said["right"], said["errors"]) == (0, 8)


CHALLENGE = b"<1.2@mail.test.example>"


def cont(number: int, data: bytes) -> bytes:
    return b"CONT\t%d\t%b\n" % (number, base64.b64encode(data))


def test_a_cram_challenge_is_responded_to(tools: Path, door: socket.socket, path: Path) -> None:
    with Scripted(door, (HELLO_AND_ASK, cont(1, CHALLENGE)), (1, YES)) as server:
        said = authload(tools, path, "-n", "1", mechanism="CRAM-MD5")

    proof = hmac.digest(b"pw", CHALLENGE, "md5").hex().encode()
    assert server.heard[2:] == [b"AUTH\t1\tCRAM-MD5\t%b\n" % ABOUT, cont(1, b"ann0 " + proof)]
    assert said["right"] == 1


@pytest.mark.parametrize("mechanism", dovecot_auth.CHALLENGED)
def test_a_yes_without_a_challenge_is_not_right(
    tools: Path, door: socket.socket, path: Path, mechanism: str
) -> None:
    with Scripted(door, (HELLO_AND_ASK, YES)):
        said = authload(tools, path, "-n", "1", mechanism=mechanism)

    assert (said["right"], said["wrong"]) == (0, 1)


class ScramServer(Scripted):
    """A server of SCRAM-SHA-256 that knows the password, or just *says* something last."""

    def __init__(self, door: socket.socket, says: bytes | None = None) -> None:
        super().__init__(door)
        self._says = says

    def run(self) -> None:
        with self._door.accept()[0] as client, client.makefile("rb") as lines:
            client.settimeout(PATIENCE)
            client.sendall(self._greeting)
            asked = [lines.readline() for _ in range(HELLO_AND_ASK)][-1]
            bare = base64.b64decode(asked.partition(b"resp=")[2]).removeprefix(b"n,,")
            nonce = bare.partition(b",r=")[2] + b"more"
            first = b"r=%b,s=%b,i=4096" % (nonce, base64.b64encode(b"salt"))
            client.sendall(cont(1, first))
            final = base64.b64decode(lines.readline().split(b"\t")[2])
            message = b",".join([bare, first, re.sub(b",p=.*", b"", final)])
            client.sendall(cont(1, self._says or _server_final(message)))
            self.heard = [final, message, lines.readline()]
            with contextlib.suppress(BrokenPipeError):  # who was shown no proof has gone
                client.sendall(YES)


def _salted() -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 4096)


def _server_final(message: bytes) -> bytes:
    key = hmac.digest(_salted(), b"Server Key", "sha256")
    return b"v=" + base64.b64encode(hmac.digest(key, message, "sha256"))


def test_the_load_proves_with_scram_that_it_knows_the_password(
    tools: Path, door: socket.socket, path: Path
) -> None:
    with ScramServer(door) as server:
        said = authload(tools, path, "-n", "1", mechanism="SCRAM-SHA-256")

    final, message, last = server.heard
    key = hmac.digest(_salted(), b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
    assert final.endswith(b"more,p=" + base64.b64encode(proof))
    assert (last, said["right"]) == (b"CONT\t1\t\n", 1)


def test_a_scram_server_that_proves_nothing_is_not_right(
    tools: Path, door: socket.socket, path: Path
) -> None:
    with ScramServer(door, says=b"v=" + base64.b64encode(bytes(32))):
        said = authload(tools, path, "-n", "1", mechanism="SCRAM-SHA-256")

    assert (said["right"], said["wrong"]) == (0, 1)


@pytest.fixture
def bench(tools: Path) -> Iterator[Bench]:
    with short_directory("mux-") as work:
        yield Bench(tools, work, work / "sasldb2", rounds=1, seconds=0.2, users=10)


RUNS = [
    pytest.param(dovecot_auth.pysaslauthd, id="ours", marks=pytest.mark.interop("saslpasswd2")),
    pytest.param(dovecot_auth.theirs, id="dovecot", marks=pytest.mark.interop("dovecot")),
    pytest.param(dovecot_auth.free, id="free", marks=pytest.mark.interop("dovecot")),
]


@pytest.mark.parametrize("run", RUNS[:2])  # the third is the second with another setting
@pytest.mark.parametrize("mechanism", ["PLAIN", *dovecot_auth.CHALLENGED])
@pytest.mark.usefixtures("root")
def test_each_server_knows_the_benchmarks_users_with_each_mechanism(
    bench: Bench, run: Callable[[Bench], AbstractContextManager[Door]], mechanism: str
) -> None:
    database.make(bench.database, bench.users)

    with run(bench) as door:
        asked = door.asked(mechanism, in_flight=8)
        sample = load.apply(Load(8, 20, bench.users, 64), asked, bench.tools)

    assert (sample.right, sample.not_right) == (64, 0)


STRANGERS = replace(IN_DATABASE, login="stranger")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.usefixtures("root")
def test_each_server_refuses_strangers(
    bench: Bench, run: Callable[[Bench], AbstractContextManager[Door]]
) -> None:
    database.make(bench.database, 1)

    with run(bench) as door:
        asked = door.asked("PLAIN", in_flight=1)
        sample = load.apply(Load(1, 20, 1, 1, STRANGERS), asked, bench.tools)

    assert (sample.right, sample.not_right) == (0, 1)
