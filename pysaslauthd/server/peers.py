"""Who is at the other end of a connection, as the kernel knows it."""

import socket
import struct
from socket import SocketType

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


def asking_process(connection: SocketType) -> int:
    """Return the id of the process that opened *connection*; 0 where it is not known here."""
    return _credentials(connection)[0]


def described(connection: SocketType) -> str:
    """Return who opened *connection*, for the log: a process and its user, or an address."""
    if connection.family == socket.AF_UNIX:
        pid, uid = _credentials(connection)
        return f"process {pid} of user {uid}" if pid else "a process that cannot be seen from here"
    try:
        address: str = connection.getpeername()[0]
    except OSError:  # it has gone
        return "an address that cannot be told any more"
    return address


def _credentials(connection: SocketType) -> tuple[int, int]:
    """Return process id and user id; the kernel says process 0 for one that ours cannot see."""
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    except OSError:
        return 0, 0
    pid, uid, _ = CREDENTIALS.unpack(packed)
    return pid, uid
