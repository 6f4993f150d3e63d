"""Accounts of this machine, made and removed with its own tools; as root only.

Names are random, so that tests in several processes do not meet.
"""

import ctypes
import os
import resource
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd.passwords import libcrypt
from tests.helpers.processes import DEADLINE, wait_for

PASSWD = Path("/etc/passwd")
SHADOW = Path("/etc/shadow")
LOCKED = "!"

needs_account_tools = pytest.mark.interop("useradd", "usermod", "chpasswd", "chage", "userdel")


def require_root(lacking: Callable[[str], NoReturn]) -> None:
    """Leave the test out where it may make no accounts; *lacking* is the fixture."""
    if os.geteuid() != 0:
        lacking("needs root")


@contextmanager
def account(password: str | None = None, *, stored: str = LOCKED, **aging: int) -> Iterator[str]:
    """Make an account and return its name; remove it when the block ends.

    *password* is hashed as this machine does it; else *stored* stands in the
    shadow map as it is. *aging* has long options of chage, such as maxdays or
    expiredate, and days.
    """
    name = f"sd-{secrets.token_hex(6)}"
    _change(
        *("useradd", "--system", "--no-user-group", "--no-create-home"),
        *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "--password", stored),
        name,
    )
    try:
        if password is not None:
            _change("chpasswd", standard_input=f"{name}:{password}\n")
        if aging:
            _change("chage", *(f"--{field}={days}" for field, days in aging.items()), name)
        yield name
    finally:
        _change("userdel", name)


def set_stored(name: str, stored: str) -> None:
    """Put *stored* where the hash of *name* is kept, whatever it is."""
    _change("usermod", "--password", stored, name)


def keep_out_of_shadow(name: str, stored: str = "x") -> None:
    """Drop *name* from the shadow map and put *stored* into the passwd map."""
    with _locked_maps():
        _rewrite(SHADOW, lambda line: "" if line.startswith(f"{name}:") else line)
        _rewrite(PASSWD, lambda line: line.replace(f"{name}:x:", f"{name}:{stored}:", 1))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list to which every hash that is computed adds its setting."""
    computed: list[bytes] = []
    crypt = libcrypt.crypt

    def counting(password: bytes, setting: bytes) -> bytes | None:
        made = crypt(password, setting)
        if made is not None:
            computed.append(setting)
        return made

    monkeypatch.setattr(libcrypt, "crypt", counting)
    return computed


def _change(*argv: str, standard_input: str = "") -> None:
    """Run one of the tools that change accounts, again while another holds the lock."""
    wait_for(lambda: _has_changed(argv, standard_input), f"{argv[0]} without a lock in its way")


def _has_changed(argv: Sequence[str], standard_input: str) -> bool:
    done = subprocess.run(
        argv,
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode and "lock" in done.stderr:
        return False
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"
    return True


@contextmanager
def _locked_maps() -> Iterator[None]:
    """Hold the lock under which the tools change both maps."""
    libc = ctypes.CDLL(None)
    assert libc.lckpwdf() == 0, "the password files stay locked"
    try:
        yield
    finally:
        libc.ulckpwdf()


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Replace the file at *path* as the tools do, with every line changed by *change*."""
    found = path.stat()
    new = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    new.touch(mode=0o600)
    new.write_text("".join(change(line) for line in path.read_text().splitlines(keepends=True)))
    os.chown(new, found.st_uid, found.st_gid)
    new.chmod(found.st_mode & 0o7777)
    new.replace(path)
