"""The finder beside real processes, which hold the sockets a test gives them and ask."""

import ipaddress
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysaslauthd.workers import addresses
from pysaslauthd.workers.addresses import AddressFinder
from tests.helpers.processes import DEADLINE, short_directory

ROOT = Path(__file__).parents[2]
UNKNOWN = ""
USUAL = 5  # descriptors of an asker: the standard ones, one client's, and the one it asks on

# Holds the sockets it is sent, instead of those before, and asks: connects to the door.
ASKER = """\
import os, socket, sys
control, holding = socket.socket(fileno=0), []
more = [os.dup(0) for _ in range(int(sys.argv[2]))]
open("/proc/self/comm", "w").write(sys.argv[3])
while (message := socket.recv_fds(control, 1, 64))[0]:
    for descriptor in holding:
        os.close(descriptor)
    holding = message[1]
    asking = socket.socket(socket.AF_UNIX)
    if message[0] == b"f" and not os.fork():
        continue
    asking.connect(sys.argv[1])
"""

# Finds for the connection that is its standard input.
FINDER = """\
import socket
from pysaslauthd.workers.addresses import AddressFinder
print(AddressFinder().find(socket.socket(fileno=0)))
"""


class Asker:
    """A process that asks at *door*."""

    def __init__(self, door: socket.socket, descriptors: int = 0, name: str = "asker") -> None:
        self._door = door
        self._control, theirs = socket.socketpair()
        argv = [sys.executable, "-c", ASKER, door.getsockname(), str(descriptors), name]
        with theirs:
            self._process = subprocess.Popen(argv, stdin=theirs.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def ask(self, *holding: socket.socket, fork: bool = False) -> socket.socket:
        """Return the connection on which it asks while it holds these sockets and no others.

        A child that it forks holds them too, and the connection, until the test ends.
        """
        descriptors = [one.fileno() for one in holding]
        socket.send_fds(self._control, [b"f" if fork else b"-"], descriptors)
        return self._door.accept()[0]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    def end(self) -> None:
        self._control.close()
        self._process.wait(DEADLINE)


class Scene:
    """A daemon's door, and servers with clients, until the test ends."""

    def __init__(self, hold: ExitStack) -> None:
        self.hold = hold
        self._own_ends: dict[socket.socket, socket.socket] = {}
        self.door = hold.enter_context(socket.socket(socket.AF_UNIX))
        self.door.settimeout(DEADLINE)
        self.door.bind(str(hold.enter_context(short_directory("af-")) / "mux"))
        self.door.listen()
        self.server = self.listens("127.0.0.1")

    def asker(self, descriptors: int = 0, name: str = "asker") -> Asker:
        return self.hold.enter_context(Asker(self.door, descriptors, name))

    def listens(self, host: str, port: int = 0) -> socket.socket:
        """Return a server; one for "::" serves IPv4 too."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        dual = family == socket.AF_INET6
        server = socket.create_server((host, port), family=family, dualstack_ipv6=dual)
        return self.hold.enter_context(server)

    def client(self, server: socket.socket | None = None, host: str = "127.0.0.1") -> socket.socket:
        """Connect to a server; return the accepted end."""
        server = server or self.server
        own = socket.create_connection((host, server.getsockname()[1]))
        accepted = self.hold.enter_context(server.accept()[0])
        self._own_ends[accepted] = self.hold.enter_context(own)
        return accepted

    def own_end(self, accepted: socket.socket) -> socket.socket:
        """Return the client's end of its connection."""
        return self._own_ends[accepted]

    def address(self, accepted: socket.socket) -> str:
        host, port, *_ = self.own_end(accepted).getsockname()
        return f"{host};{port}"


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


@pytest.fixture
def asker(scene: Scene) -> Asker:
    return scene.asker()


class TestOneClient:
    @pytest.mark.parametrize(
        ("listened", "host"),
        [
            pytest.param("127.0.0.1", "127.0.0.1", id="ipv4"),
            pytest.param("0.0.0.0", "127.0.0.1", id="ipv4-on-any-address"),  # noqa: S104
            pytest.param("::1", "::1", id="ipv6"),
            pytest.param("::", "::1", id="ipv6-on-any-address"),
            pytest.param("::", "127.0.0.1", id="ipv4-at-an-ipv6-socket"),
            pytest.param("::ffff:127.0.0.1", "127.0.0.1", id="mapped"),
        ],
    )
    def test_its_address_is_found(
        self, scene: Scene, asker: Asker, listened: str, host: str
    ) -> None:
        client = scene.client(scene.listens(listened), host)

        with asker.ask(client) as connection:
            assert AddressFinder().find(connection) == scene.address(client)

    def test_listening_sockets_of_the_process_do_not_count(
        self, scene: Scene, asker: Asker
    ) -> None:
        client = scene.client()

        with asker.ask(scene.server, client, scene.listens("::1")) as connection:
            assert AddressFinder().find(connection) == scene.address(client)

    def test_connections_that_the_process_made_do_not_count(
        self, scene: Scene, asker: Asker
    ) -> None:
        client = scene.client()
        made = scene.own_end(scene.client(scene.listens("127.0.0.1")))

        with asker.ask(made, client) as connection:
            assert AddressFinder().find(connection) == scene.address(client)

    def test_two_descriptors_of_one_connection_are_one_client(
        self, scene: Scene, asker: Asker
    ) -> None:
        client = scene.client()

        with asker.ask(client, client) as connection:
            assert AddressFinder().find(connection) == scene.address(client)

    def test_a_client_that_writes_no_more_is_found(self, scene: Scene, asker: Asker) -> None:
        client = scene.client()
        scene.own_end(client).shutdown(socket.SHUT_WR)

        with asker.ask(client) as connection:
            assert AddressFinder().find(connection) == scene.address(client)

    def test_it_is_found_among_many_connections_of_others(self, scene: Scene, asker: Asker) -> None:
        crowd = [scene.client() for _ in range(200)]

        with asker.ask(crowd[100]) as connection:
            assert AddressFinder().find(connection) == scene.address(crowd[100])

    def test_a_process_with_the_most_descriptors_is_searched(self, scene: Scene) -> None:
        asker = scene.asker(addresses.MOST_DESCRIPTORS - USUAL)
        client = scene.client()

        with asker.ask(client) as connection:
            assert AddressFinder().find(connection) == scene.address(client)


class TestWhatCannotBeTold:
    def test_a_process_without_a_client_has_no_address(self, scene: Scene, asker: Asker) -> None:
        with asker.ask(scene.server) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_process_that_only_connects_has_no_address(self, scene: Scene, asker: Asker) -> None:
        made = scene.own_end(scene.client())

        with asker.ask(made) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_two_clients_are_one_too_many(self, scene: Scene, asker: Asker) -> None:
        with asker.ask(scene.client(), scene.client()) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_clients_of_both_families_are_one_too_many(self, scene: Scene, asker: Asker) -> None:
        other = scene.client(scene.listens("::1"), "::1")

        with asker.ask(scene.client(), other) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_one_of_two_clients_is_not_taken_for_the_other_that_writes_no_more(
        self, scene: Scene, asker: Asker
    ) -> None:
        client, other = scene.client(), scene.client()
        scene.own_end(other).shutdown(socket.SHUT_WR)

        with asker.ask(client, other) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_one_of_two_clients_is_not_taken_for_the_other_that_was_reset(
        self, scene: Scene, asker: Asker
    ) -> None:
        client, other = scene.client(), scene.client()
        reset(scene.own_end(other))

        with asker.ask(client, other) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_connection_whose_port_is_listened_on_elsewhere_only_was_not_accepted(
        self, scene: Scene, asker: Asker
    ) -> None:
        made = scene.own_end(scene.client())
        scene.listens("127.0.0.2", made.getsockname()[1])

        with asker.ask(made) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_process_with_too_many_descriptors_is_not_searched(self, scene: Scene) -> None:
        asker = scene.asker(addresses.MOST_DESCRIPTORS - USUAL + 1)

        with asker.ask(scene.client()) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_connection_beyond_the_rows_that_are_read_is_not_found(
        self, scene: Scene, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(addresses, "MOST_ROWS", 1)

        with asker.ask(scene.client()) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_socket_of_multipath_tcp_may_be_another_client(
        self, scene: Scene, asker: Asker, lacking: Callable[[str], NoReturn]
    ) -> None:
        try:
            multipath = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        except OSError:
            lacking("needs Multipath TCP")
        scene.hold.enter_context(multipath)

        with asker.ask(scene.client(), multipath) as connection:
            assert AddressFinder().find(connection) == UNKNOWN


class TestWhoAsks:
    @pytest.mark.parametrize("name", ["asker", "a) S 1 1 (b", ") ) )", "two words"])
    def test_its_start_is_read_whatever_its_name(self, scene: Scene, name: str) -> None:
        earliest = ticks_since_boot()
        asker = scene.asker(name=name)

        with asker.ask() as connection:
            started = int(addresses.asking_process(connection).started)

        assert earliest <= started <= ticks_since_boot()

    @pytest.mark.parametrize("fork", [False, True], ids=["alone", "with-a-child"])
    def test_a_process_that_has_ended_has_no_address(
        self,
        scene: Scene,
        asker: Asker,
        fork: bool,  # noqa: FBT001
    ) -> None:
        with asker.ask(scene.client(), fork=fork) as connection:
            asker.kill()

            assert AddressFinder().find(connection) == UNKNOWN

    @pytest.mark.parametrize("fork", [False, True], ids=["alone", "with-a-child"])
    def test_a_process_that_ends_meanwhile_has_no_address(
        self,
        scene: Scene,
        asker: Asker,
        monkeypatch: pytest.MonkeyPatch,
        fork: bool,  # noqa: FBT001
    ) -> None:
        def die(_peer: bytes) -> str:
            asker.kill()
            return "192.0.2.1;1"

        monkeypatch.setattr(addresses, "address_of", die)
        with asker.ask(scene.client(), fork=fork) as connection:
            assert AddressFinder().find(connection) == UNKNOWN

    def test_a_process_that_has_hung_up_may_be_asking_for_the_next_client(
        self, scene: Scene, asker: Asker
    ) -> None:
        with asker.ask(scene.client()) as earlier, asker.ask(scene.client()):
            assert AddressFinder().find(earlier) == UNKNOWN

    def test_a_connection_without_a_process_has_no_address(self, scene: Scene) -> None:
        assert AddressFinder().find(scene.client()) == UNKNOWN

    def test_a_closed_connection_has_no_address(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.close()

        assert AddressFinder().find(connection) == UNKNOWN


class TestSameProcessAgain:
    @pytest.fixture
    def finder(self) -> AddressFinder:
        return AddressFinder()

    def test_each_of_several_clients_is_found_in_its_turn(
        self, scene: Scene, finder: AddressFinder, asker: Asker
    ) -> None:
        for client in [scene.client() for _ in range(5)]:
            with asker.ask(client) as connection:
                assert finder.find(connection) == scene.address(client)

    def test_the_next_question_for_a_client_needs_no_table(
        self, scene: Scene, finder: AddressFinder, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = scene.client()
        with asker.ask(client) as connection:
            finder.find(connection)
        monkeypatch.setattr(addresses, "MOST_ROWS", 0)

        with asker.ask(client) as connection:
            assert finder.find(connection) == scene.address(client)

    def test_a_second_client_beside_a_known_one_makes_both_unknown(
        self, scene: Scene, finder: AddressFinder, asker: Asker
    ) -> None:
        client = scene.client()
        with asker.ask(client) as connection:
            finder.find(connection)

        with asker.ask(client, scene.client()) as connection:
            assert finder.find(connection) == UNKNOWN

    def test_a_process_that_no_longer_has_its_client_has_no_address(
        self, scene: Scene, finder: AddressFinder, asker: Asker
    ) -> None:
        with asker.ask(scene.client()) as connection:
            finder.find(connection)

        with asker.ask() as connection:
            assert finder.find(connection) == UNKNOWN

    def test_what_could_not_be_told_is_looked_up_again(
        self, scene: Scene, finder: AddressFinder, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = scene.client()
        with asker.ask(client) as connection, monkeypatch.context() as short:
            short.setattr(addresses, "MOST_ROWS", 0)
            finder.find(connection)

        with asker.ask(client) as connection:
            assert finder.find(connection) == scene.address(client)

    def test_the_process_that_asked_longest_ago_is_forgotten_first(
        self, scene: Scene, finder: AddressFinder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(addresses, "MOST_KNOWN", 2)
        client = scene.client()
        askers = [scene.asker() for _ in range(3)]
        asking = [scene.hold.enter_context(asker.ask(client)) for asker in askers]
        for number in (0, 1, 0, 2):
            finder.find(asking[number])
        monkeypatch.setattr(addresses, "MOST_ROWS", 0)

        found = [finder.find(connection) != UNKNOWN for connection in asking]

        assert found == [True, False, True]


class TestAnotherUser:
    """The finder in a process of its own; what it prints is the address."""

    @pytest.fixture
    def needs_root(self, lacking: Callable[[str], NoReturn]) -> None:
        if os.geteuid() != 0:
            lacking("needs root")

    def test_without_the_right_to_trace_there_is_no_address(
        self, scene: Scene, needs_root: None, asker: Asker
    ) -> None:
        with asker.ask(scene.client()) as connection:
            found = found_by(connection, "setpriv", "--bounding-set=-sys_ptrace")

        assert found == UNKNOWN

    def test_with_no_other_right_there_is_one(
        self, scene: Scene, needs_root: None, asker: Asker
    ) -> None:
        client = scene.client()

        with asker.ask(client) as connection:
            found = found_by(connection, "setpriv", "--bounding-set=-all,+sys_ptrace")

        assert found == scene.address(client)

    def test_a_process_of_another_namespace_has_no_address(
        self, scene: Scene, needs_root: None, asker: Asker
    ) -> None:
        with asker.ask(scene.client()) as connection:
            found = found_by(connection, "unshare", "--pid", "--fork")

        assert found == UNKNOWN


def found_by(connection: socket.socket, *command: str) -> str:
    """Return what the finder, run by *command*, finds for *connection*."""
    done = subprocess.run(
        [*command, sys.executable, "-c", FINDER],
        stdin=connection.fileno(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout.removesuffix("\n")


def ticks_since_boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def reset(own_end: socket.socket) -> None:
    """Close a connection so that its peer is told by a reset."""
    own_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    own_end.close()


def word(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bytes:
    """Return what the kernel prints: each 32 bits as a number of this machine, then the port."""
    numbers = struct.unpack(f"={len(address.packed) // 4}I", address.packed)
    return b"%b:%04X" % (b"".join(b"%08X" % number for number in numbers), port)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        pytest.param(b"0100007F:01BD", "127.0.0.1;445", id="ipv4"),
        pytest.param(b"010200C0:D431", "192.0.2.1;54321", id="ipv4-high-port"),
        pytest.param(b"B80D0120000000000000000001000000:D431", "2001:db8::1;54321", id="ipv6"),
        pytest.param(b"00000000000000000000000001000000:0019", "::1;25", id="ipv6-loopback"),
        pytest.param(b"0000000000000000FFFF00000100007F:A5A8", "127.0.0.1;42408", id="mapped"),
    ],
)
def test_an_address_of_a_little_endian_machine_is_read(
    monkeypatch: pytest.MonkeyPatch, peer: bytes, address: str
) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")

    assert addresses.address_of(peer) == address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        pytest.param(b"7F000001:01BD", "127.0.0.1;445", id="ipv4"),
        pytest.param(b"20010DB8000000000000000000000001:D431", "2001:db8::1;54321", id="ipv6"),
        pytest.param(b"00000000000000000000FFFF7F000001:A5A8", "127.0.0.1;42408", id="mapped"),
    ],
)
def test_an_address_of_a_big_endian_machine_is_read(
    monkeypatch: pytest.MonkeyPatch, peer: bytes, address: str
) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")

    assert addresses.address_of(peer) == address


@given(st.ip_addresses(v=4), st.integers(0, 65535))
def test_every_ipv4_address_is_read(address: ipaddress.IPv4Address, port: int) -> None:
    assert addresses.address_of(word(address, port)) == f"{address};{port}"


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_every_ipv6_address_is_read(address: ipaddress.IPv6Address, port: int) -> None:
    expected = address.ipv4_mapped or address

    assert addresses.address_of(word(address, port)) == f"{expected};{port}"


@given(st.ip_addresses(v=4), st.integers(0, 65535))
def test_every_mapped_address_is_read_as_ipv4(address: ipaddress.IPv4Address, port: int) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")

    assert addresses.address_of(word(mapped, port)) == f"{address};{port}"


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"0100007F", id="no-port"),
        pytest.param(b"0100007F:", id="empty-port"),
        pytest.param(b"0100007F:0019:0019", id="two-ports"),
        pytest.param(b"0100007:0019", id="half-a-byte"),
        pytest.param(b"01:0019", id="one-byte"),
        pytest.param(b"0100007F0100007F:0019", id="eight-bytes"),
        pytest.param(b"localhos:0019", id="no-hexadecimal"),
        pytest.param(b"\xff\xff\xff\xff:0019", id="no-text"),
    ],
)
def test_an_odd_address_is_an_error(peer: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the text is Python's own)
        addresses.address_of(peer)


LISTENER = (
    b"   0: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
    b"     7        0 500 1 0000000067 100 0 0 10 0\n"
)
CLIENT = (
    b"   1: 0100007F:0019 0100007F:A5A8 01 00000000:00000000 00:00000000 00000000"
    b"   501        0 7 1 0000000067 100 0 0 10 0\n"
)


def test_a_user_id_or_a_count_is_not_taken_for_an_inode() -> None:
    with pytest.raises(LookupError):
        addresses.accepted_peers([b"501"], [LISTENER, CLIENT])


def test_no_more_is_read_than_needed() -> None:
    rows = iter([LISTENER, CLIENT, CLIENT])

    peers = addresses.accepted_peers([b"7"], rows)

    assert (peers, list(rows)) == ([b"0100007F:A5A8"], [CLIENT])


def test_no_more_is_read_than_two_clients() -> None:
    other = CLIENT.replace(b" 7 1 ", b" 8 1 ")
    rows = iter([LISTENER, CLIENT, other, CLIENT])

    peers = addresses.accepted_peers([b"7", b"8", b"9"], rows)

    assert (len(peers), list(rows)) == (2, [CLIENT])


def test_a_listening_socket_of_another_port_accepts_nothing() -> None:
    rows = [LISTENER.replace(b":0019", b":0025"), CLIENT]

    assert addresses.accepted_peers([b"7"], rows) == []


@given(
    st.lists(st.binary() | st.lists(st.sampled_from([b"0A", b"7", b"0:0", b"x"])).map(b" ".join))
)
def test_an_odd_table_has_nothing_or_is_an_error_of_two_kinds(rows: list[bytes]) -> None:
    try:
        addresses.accepted_peers([b"7"], rows)
    except (ValueError, LookupError):
        return
