"""The system's accounts, from every source that nsswitch.conf names.

Through ctypes, for Python's `pwd` cannot tell a fault from a user who is not
there, and `spwd` is gone since 3.13. Rules: getpwnam(3), getspnam(3), shadow(5).
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pysaslauthd.model import Secret

PASSWD = "/etc/passwd"  # noqa: S105 (a path)
SHADOW = "/etc/shadow"
BUFFER_SIZES = tuple(1 << bits for bits in range(10, 21))  # bytes; 1 KiB does for nearly all
UNSET = -1

_libc = ctypes.CDLL(None)


class Aging(NamedTuple):
    """When an account and its password end, as in shadow(5): days, None where not set.

    *last_change* and *expire* count from 1970-01-01. From *last_change* on a
    password lasts for *max_days*, and is still taken for *inactive* more.
    """

    last_change: int | None = None
    max_days: int | None = None
    inactive: int | None = None
    expire: int | None = None


class Shadow(NamedTuple):
    """What the shadow map has of an account: the hash, as stored, and its dates."""

    stored: Secret
    aging: Aging


class _Passwd(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("gecos", ctypes.c_char_p),
        ("directory", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


class _Spwd(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("last_change", ctypes.c_long),
        ("min_days", ctypes.c_long),
        ("max_days", ctypes.c_long),
        ("warn", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expire", ctypes.c_long),
        ("flag", ctypes.c_ulong),
    )


Entry = TypeVar("Entry", _Passwd, _Spwd)
Found = TypeVar("Found")


def find_hash(user: str) -> Secret | None:
    """Return what the passwd map has as *user*'s hash, often `x`; None: there is no such user.

    OSError where that could not be found out.
    """
    check_readable(PASSWD)
    return _look_up(_libc.getpwnam_r, _Passwd(), user, lambda found: Secret(found.password or b""))


def find_shadow(user: str) -> Shadow | None:
    """Return what the shadow map has of *user*; None: it has no such user.

    OSError where that could not be found out.
    """
    check_readable(SHADOW)
    return _look_up(_libc.getspnam_r, _Spwd(), user, _shadow)


def check_readable(path: str) -> None:
    """Raise OSError where this process cannot read the file at *path*.

    Where glibc cannot open a file, because it is gone, or for want of a
    permission or a descriptor, it asks the next source, and reports that one's
    "no such user" (so it is with Debian's `files systemd`).
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _look_up(
    getter: Callable[..., int], entry: Entry, user: str, read: Callable[[Entry], Found]
) -> Found | None:
    name = user.encode()
    if b"\0" in name:  # C would look for what stands before it
        return None
    result = ctypes.c_void_p()
    for size in BUFFER_SIZES:
        strings = ctypes.create_string_buffer(size)
        code = getter(
            name, ctypes.byref(entry), strings, ctypes.c_size_t(size), ctypes.byref(result)
        )
        if code != errno.ERANGE:
            break
    if code:
        raise OSError(code, os.strerror(code))
    # Now, and not later: what entry points to is in strings.
    return None if result.value is None else read(entry)


def _shadow(found: _Spwd) -> Shadow:
    dates = (found.last_change, found.max_days, found.inactive, found.expire)
    aging = Aging(*(None if days == UNSET else days for days in dates))
    return Shadow(Secret(found.password or b""), aging)
