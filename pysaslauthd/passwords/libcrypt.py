"""Password hashes of the system's accounts, checked by the system's own libcrypt.

What crypt(5) lists is understood, yescrypt too. For processes of one thread:
every call works in the same buffer.
"""

import ctypes
import functools
import hmac
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from pysaslauthd.errors import StartupError

SONAMES = ("libcrypt.so.1", "libcrypt.so.2")
NAME = "crypt"
GENSALT = "crypt_gensalt_rn"  # glibc before libxcrypt, and musl, have none
LONGEST_PASSWORD = 511  # bytes; crypt.h: CRYPT_MAX_PASSPHRASE_SIZE counts the NUL
DATA_BYTES = 131_232  # struct crypt_data of glibc before libxcrypt, whose own is 32768
SETTING_BYTES = 192  # crypt.h: CRYPT_GENSALT_OUTPUT_SIZE
SCHEME = re.compile(rb"\$[a-z0-9-]{1,16}(?=[$,])")
SHA512_SETTING = b"$6$decoydecoydecoy$"


class CannotHash(Exception):
    """libcrypt makes no hash of this scheme; the text names the scheme and holds no hash."""


class _Library:
    def __init__(self, shared: ctypes.CDLL) -> None:
        shared.crypt_r.restype = ctypes.c_char_p
        self.crypt_r: Callable[..., bytes | None] = shared.crypt_r
        self.workspace = ctypes.create_string_buffer(DATA_BYTES)
        self.decoy_setting = _default_setting(shared)


def load() -> None:
    """Load libcrypt, unless that is done; StartupError where there is none."""
    _library()


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """Return crypt(3) of *password* under *setting*, a hash or its beginning.

    None where libcrypt makes none: it does not know the scheme, the setting is
    damaged, the password too long, or memory short.
    """
    library = _library()
    made = library.crypt_r(password, setting, library.workspace)
    return None if made is None or made.startswith(b"*") else made


def is_locked(stored: bytes) -> bool:
    """Say whether *stored* is no hash but a mark that no password fits, or empty."""
    return stored[:1] in (b"", b"*", b"!")


def matches(password: bytes, stored: bytes) -> bool:
    """Say whether *stored* is a hash of *password*; "no" takes as long as one hash takes.

    No hash fits a password longer than LONGEST_PASSWORD or with a NUL in it.
    CannotHash where *stored* is of a scheme (`$id$`) that cannot be checked
    here, or cannot be checked now: that is no "no".
    """
    if not is_locked(stored) and len(password) <= LONGEST_PASSWORD and b"\0" not in password:
        made = crypt(password, stored)
        if made is not None:
            _library().decoy_setting = stored
            return hmac.compare_digest(made, stored)
        if scheme := SCHEME.match(stored):
            raise CannotHash(f"libcrypt cannot check {scheme[0].decode()}$ hashes")
    decoy(password)
    return False


def decoy(password: bytes) -> None:
    """Take as long as checking *password* takes: for users who are not there.

    What costs as much is known from the last hash that was checked; before that,
    it is the library's own default.
    """
    crypt(password[:LONGEST_PASSWORD], _library().decoy_setting)


@functools.cache
def _library() -> _Library:
    return _Library(_open())


def _open() -> ctypes.CDLL:
    for name in _names():
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise StartupError(
        "cannot load libcrypt, which checks the passwords of system accounts",
        "install it (Debian: libcrypt1, Fedora: libxcrypt)",
    )


def _names() -> Iterator[str]:
    yield from SONAMES
    from ctypes.util import find_library  # it may run programs, so only where it is needed

    if found := find_library(NAME):
        yield found


def _default_setting(shared: ctypes.CDLL) -> bytes:
    """Return a setting of the scheme new passwords get here; SHA-512 where libcrypt cannot say."""
    gensalt = getattr(shared, GENSALT, None)
    if gensalt is None:
        return SHA512_SETTING
    gensalt.restype = ctypes.c_char_p
    output = ctypes.create_string_buffer(SETTING_BYTES)
    made: bytes | None = gensalt(None, ctypes.c_ulong(0), None, 0, output, SETTING_BYTES)
    return made or SHA512_SETTING
