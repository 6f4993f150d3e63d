"""Many users from one file: `pysaslpasswd --import`.

A line is user@realm, a TAB and the password, and ends in LF. One bad line
refuses the whole file, before anything is written.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TextIO

LONGEST_PASSWORD = 2048
STEP = 1000  # lines between two looks of the progress bar

Users = dict[tuple[bytes, bytes], bytes]
Advance = Callable[[int], None]


class BadLine(Exception):
    """A line that is no user with a password; the text names the line and shows no password."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}")


def read_users(content: bytes, realm: bytes | None, advance: Advance) -> Users:
    """Return the users in *content*; BadLine at the first line that is none.

    Names without `@` are in *realm*; None refuses them. *advance* is told how
    many lines were read since it was last called.
    """
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    users: Users = {}
    first_seen: dict[tuple[bytes, bytes], int] = {}
    for number, line in enumerate(lines, 1):
        user, password = _parse(number, line, realm)
        if (earlier := first_seen.setdefault(user, number)) != number:
            raise BadLine(number, f"the user is on line {earlier} already")
        users[user] = password
        if number % STEP == 0:
            advance(STEP)
    advance(len(lines) % STEP)
    return users


def _parse(number: int, line: bytes, realm: bytes | None) -> tuple[tuple[bytes, bytes], bytes]:
    name, tab, password = line.partition(b"\t")
    user, at, domain = name.partition(b"@")
    if not tab:
        raise BadLine(number, "there is no TAB between user@realm and password")
    if not user or not _is_text(name):
        raise BadLine(number, "the user is empty or not UTF-8")
    if not at and realm is None:
        raise BadLine(number, "the user has no @realm; add it, or give one with -u")
    problem = _problem(password)
    if problem:
        raise BadLine(number, problem)
    return (user, domain if at else realm or b""), password


def _is_text(name: bytes) -> bool:
    try:
        return name.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _problem(password: bytes) -> str:
    if not password:
        return "the password is empty"
    if b"\0" in password:
        return "the password contains a NUL"
    if password.endswith(b"\r"):
        return "the line ends in CR LF; write the file with LF alone"
    if len(password) > LONGEST_PASSWORD:
        return f"the password is longer than {LONGEST_PASSWORD} bytes"
    return ""


@contextmanager
def progress(total: int, title: str, stream: TextIO) -> Iterator[Advance]:
    """Lend a function that moves a bar on *stream*, or does nothing if that is no terminal."""
    if not stream.isatty():
        yield _no_bar
        return
    try:
        rich = import_module("rich.progress")
        console = import_module("rich.console").Console(file=stream)
    except ImportError:
        yield _PlainBar(total, title, stream)
        stream.write("\n")
        return
    with rich.Progress(console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _no_bar(count: int) -> None:
    del count


class _PlainBar:
    """A percentage that is written over itself, for a terminal without rich."""

    def __init__(self, total: int, title: str, stream: TextIO) -> None:
        self._total, self._title, self._stream, self._done = max(total, 1), title, stream, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._stream.write(f"\r{self._title} {100 * self._done // self._total} %")
        self._stream.flush()


def read_source(path: str) -> bytes:
    """Return the content of *path*, or of standard input for `-`; OSError if it cannot be read."""
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:  # noqa: PTH123 (a name from the command line, used once)
        return file.read()
