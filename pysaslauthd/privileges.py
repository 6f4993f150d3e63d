"""What a process may do, and giving it up: users, groups, capabilities.

Linux only: prctl(2), capset(2), credentials(7), capabilities(7).
"""

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import signal
from collections.abc import Iterable
from typing import NamedTuple

from pysaslauthd.errors import StartupError

USER, FALLBACK_USER = "pysaslauthd", "nobody"
MAKE_USER = f"useradd --system --no-create-home --shell /usr/sbin/nologin {USER}"
SHADOW_GROUP = "shadow"

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522

CAP_DAC_READ_SEARCH = 2  # read any file
CAP_SYS_PTRACE = 19  # look into any process


class Identity(NamedTuple):
    """Who the front is to be."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWords(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def find_identity(user: str | None, groups: Iterable[str]) -> Identity | None:
    """Return who the front becomes: *user*, with those of *groups* that exist; None: who we are.

    Without root nobody can become another. StartupError says what is wrong with *user*.
    """
    if os.geteuid() != 0:
        if user is not None and _find_user(user).pw_uid != os.geteuid():
            raise StartupError(
                f"only root can become another user: start as {user}, without --user"
            )
        return None
    entry = _find_user(user) if user is not None else _default_user()
    if entry.pw_uid == 0:
        raise StartupError(
            "the process that talks to clients does not run as root",
            f"name another user with --user, or make the default one: {MAKE_USER}",
        )
    found = (_find_group(name) for name in groups)
    gids = tuple(sorted(gid for gid in found if gid is not None))
    identity = Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, gids)
    _refuse_shadow(identity)
    return identity


def _find_user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise StartupError(f"there is no user {name!r}: see --user") from None


def _find_group(name: str) -> int | None:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(name).gr_gid
    return None


def _default_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return _find_user(FALLBACK_USER)


def _refuse_shadow(identity: Identity) -> None:
    if _find_group(SHADOW_GROUP) in {identity.gid, *identity.groups}:
        raise StartupError(
            f"user {identity.name} has the group {SHADOW_GROUP}, and could read every hash",
            f"give {identity.name} another primary group, or name another user with --user",
        )


def forbid_dumps() -> None:
    """Write no core files, which would hold passwords, and let nobody attach a debugger."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core pattern that is a pipe ignores the limit.
    _prctl(PR_SET_DUMPABLE, 0)


def become(identity: Identity) -> None:
    """Be *identity* and nobody else, for good: no capability is left, and none can be gained."""
    _drop_bounding_set(keep=())
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    keep_capabilities(())


def keep_capabilities(keep: Iterable[int]) -> None:
    """Give up all capabilities but *keep*, as far as they are there, and the ways to new ones."""
    kept = frozenset(keep)
    _drop_bounding_set(kept)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(kept)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    forbid_dumps()  # a change of user or capabilities may have allowed them again


def _drop_bounding_set(keep: Iterable[int]) -> None:
    """Shrink what an exec could give back; whoever may not do so has nothing to give up."""
    kept = frozenset(keep)
    number = 0
    while (state := _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if state and number not in kept:
            _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1


def _set_capabilities(keep: frozenset[int]) -> None:
    header = _CapabilityHeader(CAPABILITY_VERSION_3, 0)
    words = (_CapabilityWords * 2)()
    _check(_libc.capget(ctypes.byref(header), words), "capget")
    for index, word in enumerate(words):
        mask = sum(1 << (number - 32 * index) for number in keep if number // 32 == index)
        word.permitted &= mask
        word.effective = word.permitted
        word.inheritable = 0
    _check(_libc.capset(ctypes.byref(header), words), "capset")


def die_with(parent: int) -> None:
    """Be killed when *parent* dies; a change of user forgets this, so it comes after."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it was quicker


def adopt_orphans() -> None:
    """Become the parent of what our children's children start, when those die."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Set the name that ps(1) and top(1) show; it is cut after 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def close_all_but(descriptors: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and *descriptors*."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 3
    for descriptor in sorted({number for number in descriptors if number >= low}):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, most)


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _check(status: int, what: str) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
