"""OpenLDAP's slapd and slappasswd, and what we make of the same values of userPassword."""

import base64
import hashlib
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd.errors import CannotCheck
from pysaslauthd.passwords.schemes import fits
from tests.helpers.processes import DEADLINE
from tests.helpers.slapd import SUFFIX, Slapd, slapd

pytestmark = pytest.mark.interop("ldapwhoami", "slapadd", "slapd", "slappasswd")

MODULES = ("pw-sha2", "pw-pbkdf2", "argon2")
SCHEMES = {
    "MD5 SMD5 SHA SSHA CRYPT": (),
    "SHA256 SSHA256 SHA384 SSHA384 SHA512 SSHA512": ("-o", "module-load=pw-sha2"),
    "PBKDF2 PBKDF2-SHA1 PBKDF2-SHA256 PBKDF2-SHA512": ("-o", "module-load=pw-pbkdf2"),
    "ARGON2": ("-o", "module-load=argon2"),
}
EACH_SCHEME = [(name, options) for names, options in SCHEMES.items() for name in names.split()]
PASSWORDS = ["secret", "pässwörd €", " blanks ", "{brace}", "p" * 200]

DIGEST = hashlib.sha1(b"secret", usedforsecurity=False).digest()


def salted(salt: bytes) -> bytes:
    made = hashlib.sha1(b"secret" + salt, usedforsecurity=False).digest()
    return b"{SSHA}" + base64.b64encode(made + salt)


ODD = {
    "no-scheme": b"secret",
    "no-scheme-and-braces": b"secret{SHA}",
    "lower-case": salted(b"salt").replace(b"SSHA", b"sshA"),
    "one-byte-of-salt": salted(b"s"),
    "much-salt": salted(b"s" * 40),
    "no-salt": salted(b""),
    "salt-where-none-belongs": salted(b"salt").replace(b"SSHA", b"SHA"),
    "line-end": salted(b"salt") + b"\n",
    "blanks": salted(b"salt").replace(b"}", b"} ") + b" ",
    "blank-before": b" " + salted(b"salt"),
    "no-padding": b"{SHA}" + base64.b64encode(DIGEST).rstrip(b"="),
    "more-padding": b"{SHA}" + base64.b64encode(DIGEST) + b"=",
    "more": b"{SHA}" + base64.b64encode(DIGEST) + b"x",
    "unknown-scheme": b"{FOO}secret",
    "crypt-and-line-end": b"{CRYPT}tgfEqCpZyHKQ6\n",
    "pbkdf2-and-line-end": b"{PBKDF2}10000$OGSnEpmp78Lh0MUnpi3yMQ$pLt6EJqnNUCKfeV4HLb8qFBPyc8\n",
    "a-user": b"{UNIX}nobody",
}
VECTORS = tomllib.loads((Path(__file__).parents[1] / "vectors/userpassword.toml").read_text())
ALL = {**ODD, **{made["by"]: made["value"].encode() for made in VECTORS["made"]}}
OTHERS = (b"{BLF-CRYPT}", b"{PLAIN}")  # Dovecot's, which slapd does not know
SHARED = {name: value for name, value in ALL.items() if not value.startswith(OTHERS)}


def entries() -> Iterator[str]:
    """Yield an entry for each of SHARED, whose password it is."""
    for number, value in enumerate(SHARED.values()):
        yield f"dn: cn={number},{SUFFIX}\nobjectClass: person\ncn: {number}\nsn: {number}\n"
        yield f"userPassword:: {base64.b64encode(value).decode()}\n\n"


def slapd_lets_in(directory: Slapd, name: str, password: str) -> bool:
    """Say whether *password* is good for the entry that has the value *name*."""
    who = f"cn={list(SHARED).index(name)},{SUFFIX}"
    done = subprocess.run(
        ["ldapwhoami", "-H", directory.uri, "-x", "-D", who, "-w", password],
        capture_output=True,
        check=False,
        timeout=DEADLINE,
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def _modules(lacking: Callable[[str], NoReturn]) -> None:
    missing = [name for name in MODULES if not Path(f"/usr/lib/ldap/{name}.so").exists()]
    if missing:
        lacking(f"slapd has no {', '.join(missing)}: install slapd-contrib")


@pytest.fixture(scope="module")
def directory(_modules: None) -> Iterator[Slapd]:
    loads = "\n".join(f"moduleload {name}" for name in MODULES)
    with slapd("".join(entries()), server=loads) as running:
        yield running


def we_let_in(stored: bytes, password: str) -> bool:
    """Say whether *password* is good; where that cannot be found out, nobody is let in."""
    try:
        return fits(password.encode(), stored)
    except CannotCheck:
        return False


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("password", ["secret", VECTORS["password"], "other"])
def test_slapd_and_we_let_in_the_same(directory: Slapd, name: str, password: str) -> None:
    assert we_let_in(SHARED[name], password) == slapd_lets_in(directory, name, password)


@pytest.mark.usefixtures("_modules")
@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(("scheme", "options"), EACH_SCHEME, ids=[name for name, _ in EACH_SCHEME])
def test_what_slappasswd_makes_fits(scheme: str, options: tuple[str, ...], password: str) -> None:
    argv = ["slappasswd", *options, "-n", "-h", f"{{{scheme}}}", "-s", password]
    made = subprocess.run(argv, check=True, capture_output=True, timeout=DEADLINE).stdout

    assert fits(password.encode(), made)
    assert not fits(b"other", made)
