"""PAM services of the tests' own, and PAM modules compiled for them; root only."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.helpers.processes import DEADLINE

RULES = Path("/etc/pam.d")
SOURCES = Path(__file__).parent
NUMBERS = itertools.count()

# Message styles for pam_talk.c, as in Linux-PAM's _pam_types.h.
ECHO_OFF = 1
ECHO_ON = 2
ERROR_MSG = 3
TEXT_INFO = 4
RADIO_TYPE = 5


class Stack(NamedTuple):
    """A service's rules: one required module of each type, with its arguments."""

    auth: str
    account: str = "pam_permit.so"

    @property
    def text(self) -> str:
        """The file below /etc/pam.d."""
        return f"auth required {self.auth}\naccount required {self.account}\n"


PERMIT = Stack("pam_permit.so")
DENY = Stack("pam_deny.so")
UNIX = Stack("pam_unix.so", "pam_unix.so")
MISSING_MODULE = Stack("pam_no_such_module.so")
NO_START = "@include no-such-file\n"  # rules with which pam_start fails


class Service:
    """A PAM service; its name is no other test's."""

    def __init__(self) -> None:
        self.name = f"pysasl-{os.getpid()}-{next(NUMBERS)}"
        self._path = RULES / self.name

    def write(self, rules: Stack | str) -> None:
        """Replace the service's rules; surrogate escapes stand for bytes that are no UTF-8."""
        self._path.write_bytes(os.fsencode(rules if isinstance(rules, str) else rules.text))

    def remove(self) -> None:
        """Remove the service's rules."""
        self._path.unlink()


@contextmanager
def pam_service(rules: Stack | str) -> Iterator[Service]:
    """Make a service with *rules* while the block runs."""
    service = Service()
    service.write(rules)
    try:
        yield service
    finally:
        service.remove()


def stack_that_runs(command: str) -> Stack:
    """Return rules that accept if the shell's *command* succeeds, a child of who authenticates."""
    return Stack(f"pam_exec.so quiet /bin/sh -c [{command}]")


def stack_that_sleeps(seconds: float) -> Stack:
    """Return rules that accept after a while."""
    return stack_that_runs(f"exec sleep {seconds}")


def stack_that_kills_its_parent() -> Stack:
    """Return rules that kill the process that authenticates."""
    return stack_that_runs("kill -KILL $PPID")


class Modules(NamedTuple):
    """The compiled modules: pam_code.c and pam_talk.c say what they do."""

    code: Path
    talk: Path

    def returning(self, auth: int, account: int = 0) -> Stack:
        """Return rules whose two calls end with these PAM codes."""
        return Stack(f"{self.code} {auth}", f"{self.code} 0 {account}")

    def saying(self, *messages: tuple[int, str | None], options: str = "") -> Stack:
        """Return rules that send *messages*, pairs of style and text, in one round."""
        said = " ".join(
            f"{style}" if text is None else f"[{style}:{text}]" for style, text in messages
        )
        return Stack(f"{self.talk} {options} {said}")


def compile_modules(directory: Path) -> Modules:
    """Compile the modules into *directory*."""
    return Modules(*(_compiled(name, directory) for name in ("pam_code", "pam_talk")))


def _compiled(name: str, directory: Path) -> Path:
    module = directory / f"{name}.so"
    source = SOURCES / f"{name}.c"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", module, source],
        check=True,
        timeout=DEADLINE,
    )
    return module
