"""libldap, which the C daemon asks with: its filters, names, URLs and settings, by ctypes."""

import ctypes
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.processes import DEADLINE

NAMES = ("libldap.so.2", "libldap-2.5.so.0")  # of 2.6, and of 2.5 as Debian 12 has it
USE_DER = 1  # LBER_USE_DER
DN_V3 = 0x10  # LDAP_DN_FORMAT_LDAPV3
PROJECT = Path(__file__).parents[2]
NUMBERS = {"TLS_REQCERT": 0x6006, "TLS_PROTOCOL_MIN": 0x6007}  # LDAP_OPT_...: ldap.h
TEXTS = {
    "TLS_CACERT": 0x6002,
    "TLS_CACERTDIR": 0x6003,
    "TLS_CERT": 0x6004,
    "TLS_KEY": 0x6005,
    "TLS_CIPHER_SUITE": 0x6008,
}
TEXTS_OF_A_SESSION = {
    "SASL_MECH": 0x6100,
    "SASL_REALM": 0x6101,
    "SASL_AUTHCID": 0x6102,
    "SASL_AUTHZID": 0x6103,
}


class _Value(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ulong), ("data", ctypes.c_void_p))


class _Ava(ctypes.Structure):
    _fields_ = (("attribute", _Value), ("value", _Value))


class _Url(ctypes.Structure):
    _fields_ = (
        ("next", ctypes.c_void_p),
        ("scheme", ctypes.c_char_p),
        ("host", ctypes.c_char_p),
        ("port", ctypes.c_int),
    )


class Pair(NamedTuple):
    """An attribute of a name, and its value."""

    attribute: bytes
    value: bytes


@cache
def load() -> ctypes.CDLL:
    """Return the library; OSError where there is none."""
    for name in NAMES:
        with suppress(OSError):
            library = ctypes.CDLL(name)
            library.ber_alloc_t.restype = ctypes.c_void_p
            return library
    raise OSError("there is no libldap")


def encode_filter(text: str) -> bytes | None:
    """Return what libldap sends for a filter, None where it refuses it."""
    library = load()
    ber = ctypes.c_void_p(library.ber_alloc_t(USE_DER))
    try:
        if library.ldap_pvt_put_filter(ber, text.encode()) != 0:
            return None
        found = ctypes.POINTER(_Value)()
        assert library.ber_flatten(ber, ctypes.byref(found)) == 0
        try:
            return _bytes(found.contents)
        finally:
            library.ber_bvfree(found)
    finally:
        library.ber_free(ber, 1)


def parse_name(text: bytes) -> list[list[Pair]] | None:
    """Return the parts of a name, each with its pairs; None where libldap takes it for none."""
    library = load()
    found = ctypes.POINTER(ctypes.POINTER(ctypes.POINTER(_Ava)))()
    if library.ldap_str2dn(text, ctypes.byref(found), DN_V3) != 0:
        return None
    parts = [
        [Pair(_bytes(pair.contents.attribute), _bytes(pair.contents.value)) for pair in _all(part)]
        for part in _all(found)
    ]
    library.ldap_dnfree(found)
    return parts


def parse_url(text: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port; None where it is no URL."""
    library = load()
    found = ctypes.POINTER(_Url)()
    if library.ldap_url_parse(text.encode(), ctypes.byref(found)) != 0:
        return None
    try:
        url = found.contents
        return url.scheme.decode(), (url.host or b"").decode(), url.port
    finally:
        library.ldap_free_urldesc(found)


def read_options(environment: Mapping[str, str], directory: Path) -> dict[str, str | int]:
    """Return what libldap makes of its files and variables, in a process that starts there."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        env={"PYTHONPATH": str(PROJECT), **environment},
        cwd=directory,
        capture_output=True,
        check=True,
        timeout=DEADLINE,
    )
    found: dict[str, str | int] = json.loads(done.stdout)
    return found


def _own_options() -> dict[str, str | int]:
    """Return this process's."""
    library = load()
    session, number = ctypes.c_void_p(), ctypes.c_int()
    assert library.ldap_initialize(ctypes.byref(session), b"ldap://localhost/") == 0
    found: dict[str, str | int] = {}
    for name, option in NUMBERS.items():
        assert library.ldap_get_option(None, option, ctypes.byref(number)) == 0
        found[name] = number.value
    texts = {name: _text_option(None, option) for name, option in TEXTS.items()}
    texts |= {name: _text_option(session, option) for name, option in TEXTS_OF_A_SESSION.items()}
    return found | {name: value.decode() for name, value in texts.items() if value is not None}


def _text_option(session: ctypes.c_void_p | None, option: int) -> bytes | None:
    text = ctypes.c_char_p()
    assert load().ldap_get_option(session, option, ctypes.byref(text)) == 0
    return text.value


def _bytes(value: _Value) -> bytes:
    return ctypes.string_at(value.data, value.size) if value.size else b""


def _all(array: Any) -> Iterator[Any]:
    """Go through an array of pointers that ends in none; for nothing at all there is no array."""
    return (
        itertools.takewhile(bool, (array[number] for number in itertools.count()))
        if array
        else iter(())
    )


if __name__ == "__main__":
    json.dump(_own_options(), sys.stdout)
