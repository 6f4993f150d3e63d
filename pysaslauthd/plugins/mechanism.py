"""What a backend is to the rest of the daemon: how it is configured, checked, made and staffed."""

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.privileges import CAP_DAC_READ_SEARCH
from pysaslauthd.workers.child import Answer
from pysaslauthd.workers.pool import Pool, Size, Source

WARM_WORKERS, MOST_WORKERS = 2, 16
READING = frozenset({CAP_DAC_READ_SEARCH})

Make = Callable[[Settings, Source], PasswordVerifier]


def none(_settings: Settings) -> int:
    """Return how many connections a backend has that asks nobody elsewhere."""
    return 0


def unchanged(settings: Settings) -> Settings:
    """Return *settings*: there is no file to complete them from."""
    return settings


class Mechanism(NamedTuple):
    """A backend by its name.

    *configure* completes the settings from the backend's own files, *check*
    refuses settings it cannot use and a machine it cannot work on; both run
    while root is there. *make* builds it for the front, out of *modules*. Where
    something blocks, *work* builds what answers in each worker. *hashes*: its
    workers are busy rather than waiting, so there are as many as cores.
    *capabilities*: what its workers keep of root's; None for all. *groups*: what
    the front must be a member of. *needs_root*: without it, it may say no to
    what is right. *connections*: the most it has to servers elsewhere.
    *has_passwords*: it has them as they are, so that mechanisms can compute with them.
    """

    modules: tuple[str, ...]
    check: Callable[[Settings], None]
    make: Make
    configure: Callable[[Settings], Settings] = unchanged
    work: Callable[[Settings], Answer] | None = None
    hashes: bool = False
    capabilities: frozenset[int] | None = None
    groups: tuple[str, ...] = ()
    needs_root: bool = False
    connections: Callable[[Settings], int] = none
    has_passwords: bool = False

    def preload(self) -> None:
        """Import what *make* needs; for a process that may not be able to read it later."""
        for module in self.modules:
            importlib.import_module(f"pysaslauthd.backends.{module}")

    def most_workers(self, settings: Settings) -> int:
        """Return how many worker processes it may have."""
        return _most_workers(settings, hashes=self.hashes)


def option_file(settings: Settings) -> str | None:
    """Return the file that `-O` names, None where it names none."""
    option = settings.mechanism_option
    return None if option is None else _absolute(option)


@functools.cache
def _absolute(path: str) -> str:
    """Return what *path* means where the daemon was started, for it enters its run directory."""
    return str(Path(path).absolute())


def in_workers(name: str, *, hashes: bool = False, uses_address: bool = False) -> Make:
    """Return what makes the front's side of a backend that blocks."""

    def make(settings: Settings, source: Source) -> PasswordVerifier:
        from pysaslauthd.backends.in_workers import InWorkers

        pool = make_pool(name, settings, source, hashes=hashes)
        return InWorkers(name, pool, settings.deadlines, uses_address=uses_address)

    return make


def make_pool(
    name: str, settings: Settings, source: Source, *, hashes: bool, kept: int = 0
) -> Pool:
    """Return workers for the backend *name*; where they hash, *kept* are for other kinds."""
    most = _most_workers(settings, hashes=hashes)
    # What hashes is busy and not hung: there, nothing need be kept for the others, unless
    # users choose for themselves how much there is to do.
    share = max(1, most - kept) if hashes else most - most // 4
    return Pool(name, source, Size(min(WARM_WORKERS, most), most, share))


def _most_workers(settings: Settings, *, hashes: bool) -> int:
    if settings.processes:
        return settings.processes
    return len(os.sched_getaffinity(0)) if hashes else MOST_WORKERS
