"""The benchmark's compiled programs, for its tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.bench import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def tools(lacking: Callable[[str], NoReturn]) -> Iterator[Path]:
    if shutil.which("gcc") is None:
        lacking("needs gcc")
    with tempfile.TemporaryDirectory(prefix="mux-", dir="/tmp") as directory:
        load.build(Path(directory))
        yield Path(directory)


@pytest.fixture
def root(lacking: Callable[[str], NoReturn]) -> None:
    if os.geteuid():
        lacking("needs root")
