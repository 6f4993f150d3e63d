"""Makes the listening unix sockets: at no moment open to more people than they should be."""

import contextlib
import grp
import ipaddress
import os
import pwd
import socket
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pysaslauthd.errors import StartupError

INET = "inet:"
LONGEST_PATH = 107  # bytes; sun_path has 108, one for the NUL
LEAVING_SECONDS, LEAVING_POLL = 2.0, 0.05
IPV6 = 6

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
BACKLOG = 4096  # as many as net.core.somaxconn allows


@dataclass
class Listeners:
    """Listening sockets, by the protocol that is spoken there."""

    mux: list[socket.socket] = field(default_factory=list)
    dovecot: list[socket.socket] = field(default_factory=list)

    @property
    def all(self) -> list[socket.socket]:
        """Those of every protocol."""
        return [*self.mux, *self.dovecot]


def listen(
    path: str, mode: int | None, group: str | None, owner: str | None = None
) -> socket.socket:
    """Return a non-blocking socket that listens at *path*; StartupError says why there is none.

    Without *mode* it is 0777 where *path*'s directory keeps others out, as with
    the C daemon, else 0660; without *group* it has the directory's, without *owner* ours.
    """
    _check_length(path)
    directory = _directory_of(path)
    gid = directory.st_gid if group is None else _group(group)
    uid = os.geteuid() if owner is None else _user(owner)
    _remove_stale(path)
    if mode is None:
        mode = 0o660 if directory.st_mode & stat.S_IXOTH else 0o777
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.settimeout(0)
        try:
            _bind(listener, path, mode)
            undo.callback(Path(path).unlink)
            made = Path(path).lstat()
            if (made.st_uid, made.st_gid) != (uid, gid):
                os.chown(path, uid, gid, follow_symlinks=False)
            listener.listen(BACKLOG)
        except OSError as error:
            raise StartupError(f"could not bind to socket: {path}", str(error)) from None
        undo.pop_all()
    return listener


def listen_tcp(place: str) -> socket.socket:
    """Return a non-blocking socket that listens at *place*, which is inet:ADDRESS:PORT."""
    host, _, digits = place.removeprefix(INET).rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        port = int(digits)
    except ValueError:
        raise StartupError(f"not inet:ADDRESS:PORT: {place}") from None
    is_ipv6 = address.version == IPV6
    with contextlib.ExitStack() as undo:
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.settimeout(0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((str(address), port))
            listener.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            raise StartupError(f"could not listen at {place}: {error}") from None
        undo.pop_all()
    return listener


def _bind(listener: socket.socket, path: str, mode: int) -> None:
    """Bind with *mode* from the first moment: Linux gives the file the mode of the descriptor."""
    old_umask = os.umask(0)
    try:
        os.fchmod(listener.fileno(), mode)
        listener.bind(path)
    finally:
        os.umask(old_umask)


def _check_length(path: str) -> None:
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        raise StartupError(
            f"could not bind to socket: {path}",
            f"its name has {length} bytes, and a unix socket's may have {LONGEST_PATH}:"
            " choose a shorter directory",
        )


def _directory_of(path: str) -> os.stat_result:
    directory = Path(path).parent
    try:
        found = directory.stat()
    except OSError as error:
        raise StartupError(
            f"could not bind to socket: {path}", f"{directory}: {error.strerror}"
        ) from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartupError(
            f"could not bind to socket: {path}",
            "its directory is writable by others, who could replace it",
            f"run: chmod go-w {directory}",
        )
    return found


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise StartupError(f"there is no group {name!r}: see --socket-group") from None


def _user(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise StartupError(f"there is no user {name!r}: see --socket-owner") from None


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens to; refuse to remove anything else."""
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartupError(
            f"could not bind to socket: {path}", "it exists and is no socket: remove it yourself"
        )
    # The one before may be leaving: it has let go of its lock, and answers the last clients.
    until = time.monotonic() + LEAVING_SECONDS
    while (served := _is_served(path)) and time.monotonic() < until:
        time.sleep(LEAVING_POLL)
    if served:
        raise StartupError(
            f"could not bind to socket: {path}",
            "another process listens there: stop it, or choose another path",
        )
    Path(path).unlink(missing_ok=True)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except BlockingIOError:  # somebody listens, and is busy
            return True
        except OSError:
            return False
    return True
