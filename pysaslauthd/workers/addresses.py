"""The client's address where the question does not carry it, from the process that asks.

Released libsasl sends none (cyrus-sasl issue 346); but an smtpd that asks serves one
client, so the TCP connection it has accepted is that client's. Linux's /proc shows it:
proc(5), /proc/PID/fd and /proc/PID/net/tcp.

What is found is what the asking process holds, no proof of who is behind it: a process
may hold a connection that another process accepted, behind a proxy it is the proxy's
address, and a server of several clients may drop one while it asks for it. So an
address may count against a client, and is never a reason to accept.

To look at another user's process takes CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH too,
which root has. A process in a container shows if our /proc shows it, with the
container's addresses.
"""

import array
import ipaddress
import itertools
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MOST_DESCRIPTORS = 512  # a process with more serves many clients: which one asks cannot be told
MOST_ROWS = 50_000  # of a table, about 8 MB
MOST_KNOWN = 1024  # processes

CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group (unix(7))
LISTENING = b"0A"  # TCP_LISTEN
TABLES = {b"TCP\0": "tcp", b"TCPv6\0": "tcp6"}  # the kernel's names; no table has MPTCP's inodes
PAGE = 4096  # more is not read at once; Python's own choice for /proc is less


class Process(NamedTuple):
    """A process id and when its process started, in clock ticks: a later one differs."""

    pid: int
    started: bytes


class TcpSocket(NamedTuple):
    """A TCP socket: the table of /proc/PID/net that has it, and its inode."""

    table: str
    inode: bytes


class Known(NamedTuple):
    """The TCP sockets that a process had, and the client's address they showed."""

    sockets: frozenset[TcpSocket]
    address: str


class AddressFinder:
    """Finds the address of the client for which a process asks; blocks, one question at a time."""

    def __init__(self) -> None:
        self._known: dict[Process, Known] = {}

    def find(self, connection: socket.socket) -> str:
        """Return `address;port`, as libsasl's newer clients send it, or "" if it cannot be told.

        *connection* is the accepted unix connection on which the process asks, and
        stays open. An IPv4 client of an IPv6 socket has its IPv4 address.
        """
        try:
            process = asking_process(connection)
            address = self._address(process)
            # Who has hung up may be serving its next client, or be dead, its id another's.
            stays = asking_process(connection) == process and not has_hung_up(connection)
        except (OSError, ValueError, LookupError):
            return ""
        return address if stays else ""

    def _address(self, process: Process) -> str:
        """Return the client's address; from memory if *process* has the same TCP sockets as then.

        Whether a socket was accepted, and from whom, never changes. To compare only the
        client's would not do: a second client makes the first one's address ambiguous.
        """
        known = self._known.pop(process, None)
        sockets = tcp_sockets(process.pid)
        if known is None or known.sockets != sockets:
            known = Known(sockets, client_of(process.pid, sockets))
        self._known[process] = known
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return known.address


def asking_process(connection: socket.socket) -> Process:
    """Return who opened *connection*; OSError where that cannot be told.

    The kernel says 0, which no process has, for one in a namespace that ours does not contain.
    """
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, _, _ = CREDENTIALS.unpack(packed)
    # The program's name, in parentheses, may hold any byte; the start is field 22.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return Process(pid, fields[22 - 3])


def has_hung_up(connection: socket.socket) -> bool:
    """Say whether nobody holds the other end of *connection* any more."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def tcp_sockets(pid: int) -> frozenset[TcpSocket]:
    """Return the process's TCP sockets; OSError where it may not be looked at.

    ValueError or LookupError if it has too many descriptors, or a socket that is in no table.
    """
    with os.scandir(f"/proc/{pid}/fd") as entries:
        paths = [entry.path for entry in itertools.islice(entries, MOST_DESCRIPTORS + 1)]
    if len(paths) > MOST_DESCRIPTORS:
        raise ValueError(f"more than {MOST_DESCRIPTORS} descriptors")
    found = set()
    for path in paths:
        target = os.readlink(path)  # noqa: PTH115 (a hot path: a Path object costs more)
        if target.startswith("socket:["):
            protocol = os.getxattr(path, "system.sockprotoname")
            if b"TCP" in protocol:
                found.add(TcpSocket(TABLES[protocol], target[len("socket:[") : -1].encode()))
    return frozenset(found)


def client_of(pid: int, sockets: Iterable[TcpSocket]) -> str:
    """Return the peer of the one accepted connection among *sockets*, "" if there is no such one.

    LookupError where a socket is not in its table.
    """
    inodes: dict[str, set[bytes]] = {}
    for table, inode in sockets:
        inodes.setdefault(table, set()).add(inode)
    accepted = []
    for table, wanted in inodes.items():
        with Path(f"/proc/{pid}/net/{table}").open("rb", buffering=PAGE) as rows:
            accepted += accepted_peers(wanted, itertools.islice(rows, MOST_ROWS))
    return address_of(accepted[0]) if len(accepted) == 1 else ""


def accepted_peers(inodes: Iterable[bytes], rows: Iterable[bytes]) -> list[bytes]:
    """Return the peers, as they are written in *rows*, of those of *inodes* that were accepted.

    That is, whose local port is listened on; a server's own connections to a milter
    or a database are not. A connection that one side has closed counts: the question
    may be that client's. For the same reason LookupError if there is no row of an inode,
    as after a reset. Two peers are enough to know that it is not one: more need not follow.
    """
    missing = set(inodes)
    listening = set()
    peers = []
    for row in rows:  # those that listen come first
        _, local, peer, state, *_, inode, _ = row.split(None, 10)
        if state == LISTENING:
            listening.add(local)
        if inode not in missing:
            continue
        missing.remove(inode)
        if state != LISTENING and (local in listening or anywhere(local) in listening):
            peers.append(peer)
        # Reading only as far as needed: the kernel takes milliseconds to find the end.
        if not missing or len(peers) > 1:
            return peers
    raise LookupError("a socket is in no row")


def anywhere(local: bytes) -> bytes:
    """Return what a table has for the port of *local* on every address."""
    host, port = local.split(b":")
    return b"0" * len(host) + b":" + port


def address_of(peer: bytes) -> str:
    """Return `address;port` for a table's hexadecimal `address:port`; ValueError for no such."""
    host, port = peer.decode().split(":")
    numbers = array.array("I", bytes.fromhex(host))
    if sys.byteorder == "little":  # each 32 bits are printed as a number
        numbers.byteswap()
    address = ipaddress.ip_address(numbers.tobytes())
    mapped = address.ipv4_mapped if address.version == 6 else None
    return f"{mapped or address};{int(port, 16)}"
