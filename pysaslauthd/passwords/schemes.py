"""Whether a password is that of a directory's `userPassword` value, `{SCHEME}data`.

What OpenLDAP writes, with its modules pw-sha2, pw-pbkdf2 and argon2, is
understood; without a scheme the value is the password itself (RFC 2307
section 5.3, RFC 3112). For processes of one thread: see libcrypt.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable

from pysaslauthd.errors import CannotCheck
from pysaslauthd.passwords import libcrypt

# OpenLDAP: whatever has a character at least between its braces is a scheme.
SCHEME = re.compile(rb"\{([^}]+)\}")
SHOWABLE = re.compile(rb"[A-Z0-9./_-]{1,32}")  # RFC 3112 section 2

Check = Callable[[bytes, bytes], bool]


def fits(password: bytes, stored: bytes) -> bool:
    """Say whether *stored* is a value for *password*; none fits one with a NUL in it.

    CannotCheck where that cannot be found out: the scheme is not known, its
    library is missing, the data is damaged. That is no "no"; nor is the value
    the password then, or it would let in whoever has seen it.
    """
    found = SCHEME.match(stored)
    scheme, data = (found[1].upper(), stored[found.end() :]) if found else (b"CLEARTEXT", stored)
    shown = f"{{{scheme.decode()}}}" if SHOWABLE.fullmatch(scheme) else "a scheme"
    check = CHECKS.get(scheme)
    if check is None:
        raise CannotCheck(f"{shown}: not known here")
    if b"\0" in password:
        return False
    try:
        return check(password, data)
    except (CannotCheck, libcrypt.CannotHash) as fault:
        raise CannotCheck(f"{shown}: {fault}") from None
    except (ValueError, TypeError):  # whose texts may have the hash in them
        raise CannotCheck(f"{shown}: the value is damaged, or asks too much") from None


def any_fits(password: bytes, values: Iterable[bytes]) -> bool:
    """Say whether *password* fits one of *values*; a CannotCheck counts where none does."""
    fault = None
    for stored in values:
        try:
            if fits(password, stored):
                return True
        except CannotCheck as found:
            fault = fault or found
    if fault is not None:
        raise fault
    return False


def rival_library() -> str | None:
    """Return what to say where the passlib of old has taken the place of libpass, its successor.

    None where it has not.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("passlib")
    except PackageNotFoundError:
        return None
    return (
        f"passlib {found} is installed, and takes the place of libpass, its successor:"
        " pip uninstall passlib libpass, then pip install libpass"
    )


def _is_same(password: bytes, data: bytes) -> bool:
    return data != b"" and hmac.compare_digest(password, data)


def _digest(name: str, *, salted: bool = False) -> Check:
    """Make a check of digests *name*, behind which the salt is.

    passlib lacks some of these, and of the others those with a salt of over 16
    bytes; and it takes a damaged one for that of another password.
    """

    def check(password: bytes, data: bytes) -> bool:
        raw = base64.b64decode(b"".join(data.split()), validate=True)  # white space: as OpenLDAP
        size = hashlib.new(name, usedforsecurity=False).digest_size
        digest, salt = raw[:size], raw[size:]
        if len(digest) < size or bool(salt) != salted:
            raise ValueError("not so many bytes")
        made = hashlib.new(name, password + salt, usedforsecurity=False).digest()
        return hmac.compare_digest(made, digest)

    return check


def _crypt(form: bytes) -> Check:
    """Make a check of hashes that match *form* and that libcrypt knows."""

    def check(password: bytes, data: bytes) -> bool:
        if not re.match(form, data):
            raise ValueError("not of this form")
        return libcrypt.matches(password, data)

    return check


def _passlib(handler: str, prefix: bytes = b"") -> Check:
    """Make a check by a handler of passlib, which is imported when it is needed."""

    def check(password: bytes, data: bytes) -> bool:
        from passlib.exc import MissingBackendError, PasswordSizeError
        from passlib.registry import get_crypt_handler

        try:
            return bool(get_crypt_handler(handler).verify(password, prefix + data))
        except MissingBackendError:
            raise CannotCheck("argon2-cffi, which it needs, is not installed") from None
        except PasswordSizeError:
            raise CannotCheck("so long a password is not checked") from None

    return check


CHECKS = {
    b"CLEARTEXT": _is_same,
    b"PLAIN": _is_same,
    b"MD5": _digest("md5"),
    b"SMD5": _digest("md5", salted=True),
    b"SHA": _digest("sha1"),
    b"SSHA": _digest("sha1", salted=True),
    b"SHA256": _digest("sha256"),
    b"SSHA256": _digest("sha256", salted=True),
    b"SHA384": _digest("sha384"),
    b"SSHA384": _digest("sha384", salted=True),
    b"SHA512": _digest("sha512"),
    b"SSHA512": _digest("sha512", salted=True),
    b"CRYPT": _crypt(b""),
    # To OpenLDAP, {UNIX} has the name of a local user.
    b"UNIX": _crypt(rb"[$_*!]|[./0-9A-Za-z]{13}$|$"),
    b"BCRYPT": _crypt(rb"\$2[abxy]\$"),
    b"BLF-CRYPT": _crypt(rb"\$2[abxy]\$"),
    b"PBKDF2": _passlib("ldap_pbkdf2_sha1", b"{PBKDF2}"),
    b"PBKDF2-SHA1": _passlib("ldap_pbkdf2_sha1", b"{PBKDF2}"),
    b"PBKDF2-SHA256": _passlib("ldap_pbkdf2_sha256", b"{PBKDF2-SHA256}"),
    b"PBKDF2-SHA512": _passlib("ldap_pbkdf2_sha512", b"{PBKDF2-SHA512}"),
    b"ARGON2": _passlib("argon2"),
}
