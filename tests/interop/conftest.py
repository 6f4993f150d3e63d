"""Fixtures for tests against other people's programs."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.helpers.processes import short_directory
from tests.interop.users import make_database


@pytest.fixture(scope="session")
def as_root(lacking: Callable[[str], NoReturn]) -> None:
    """Let a test run as root only."""
    if os.geteuid() != 0:
        lacking("needs root")


@pytest.fixture(scope="module")
def directory(as_root: None) -> Iterator[Path]:
    """Return a directory short enough for sockets; it goes when the module's tests are done."""
    with short_directory("sd-") as path:
        yield path


@pytest.fixture(scope="module")
def running(directory: Path) -> Iterator[Daemon]:
    """Return our daemon with the database of `users`, as the C tool writes it."""
    make_database(directory / "sasldb2")
    with daemon(directory) as subject:
        yield subject


@pytest.fixture(autouse=True)
def _show_the_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the daemon logged during a test: pytest shows it where the test fails."""
    if "running" not in request.fixturenames:
        yield
        return
    subject: Daemon = request.getfixturevalue("running")
    before = len(subject.log())
    yield
    sys.stdout.write(subject.log()[before:])
