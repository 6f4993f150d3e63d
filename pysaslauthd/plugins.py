"""The backends by name; a backend's module is imported when it is used, and not before."""

import contextlib
import importlib
import logging
import os
import pwd
from collections.abc import Callable
from typing import NamedTuple

from pysaslauthd.backends.base import BlockingVerifier, PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.privileges import CAP_DAC_READ_SEARCH
from pysaslauthd.workers.pool import Pool, Size, Source

log = logging.getLogger(__name__)

DEFAULT_SASLDB = "/etc/sasldb2"
WARM_WORKERS, MOST_WORKERS = 2, 16


class Mechanism(NamedTuple):
    """A backend by its name.

    *check* refuses settings it cannot use, and a machine it cannot work on;
    *make* builds it for the front, out of *module*. Where it blocks, *work* builds what runs in
    each worker. *hashes*: its workers are busy rather than waiting, so there
    are as many as cores. *capabilities*: what its workers keep of root's; None
    for all. *groups*: what the front must be a member of. *needs_root*: without it,
    it may say no to what is right.
    """

    module: str
    check: Callable[[Settings], None]
    make: Callable[[Settings, Source], PasswordVerifier]
    work: Callable[[Settings], BlockingVerifier] | None = None
    hashes: bool = False
    capabilities: frozenset[int] | None = None
    groups: tuple[str, ...] = ()
    needs_root: bool = False

    def preload(self) -> None:
        """Import what *make* needs; for a process that may not be able to read it later."""
        importlib.import_module(f"pysaslauthd.backends.{self.module}")


def _check_sasldb(settings: Settings) -> None:
    path = settings.mechanism_option
    if path is not None and not path.startswith("/"):
        raise StartupError(f"-O names the database for -a sasldb: an absolute path, not {path!r}")


def _make_sasldb(settings: Settings, _source: Source) -> PasswordVerifier:
    from pysaslauthd.backends.sasldb import Sasldb

    return Sasldb(settings.mechanism_option or DEFAULT_SASLDB)


def _check_getpwent(_settings: Settings) -> None:
    from pysaslauthd.passwords import libcrypt

    libcrypt.load()
    # One account, and not all: those may be a directory's, and many.
    with contextlib.suppress(KeyError):
        if pwd.getpwuid(0).pw_passwd == "x":  # noqa: S105 (a mark that stands for a password)
            log.warning(
                "the passwd map has no hash of root: if it has none of the others either,"
                " nobody will be let in; use -a shadow"
            )


def _work_getpwent(_settings: Settings) -> BlockingVerifier:
    from pysaslauthd.backends.getpwent import Getpwent

    return Getpwent()


def _check_shadow(_settings: Settings) -> None:
    from pysaslauthd.backends import shadow

    shadow.check_prerequisites()


def _work_shadow(_settings: Settings) -> BlockingVerifier:
    from pysaslauthd.backends.shadow import Shadow

    return Shadow()


def _check_pam(_settings: Settings) -> None:
    from pysaslauthd.backends import pam

    pam.load()


def _work_pam(_settings: Settings) -> BlockingVerifier:
    from pysaslauthd.backends.pam import Pam

    return Pam()


def _in_workers(
    name: str, *, uses_address: bool = False
) -> Callable[[Settings, Source], PasswordVerifier]:
    def make(settings: Settings, source: Source) -> PasswordVerifier:
        from pysaslauthd.backends.in_workers import InWorkers

        most = most_workers(settings)
        # What hashes is busy and not hung: there, nothing need be kept for the others.
        share = most if find_mechanism(settings).hashes else most - most // 4
        pool = Pool(name, source, Size(min(WARM_WORKERS, most), most, share))
        return InWorkers(name, pool, settings.deadlines, uses_address=uses_address)

    return make


READING = frozenset({CAP_DAC_READ_SEARCH})

MECHANISMS = {
    "sasldb": Mechanism("sasldb", _check_sasldb, _make_sasldb, groups=("sasl",)),
    "getpwent": Mechanism(
        "in_workers",
        _check_getpwent,
        _in_workers("getpwent"),
        _work_getpwent,
        hashes=True,
        capabilities=READING,
    ),
    "pam": Mechanism(
        "in_workers", _check_pam, _in_workers("pam", uses_address=True), _work_pam, needs_root=True
    ),
    "shadow": Mechanism(
        "in_workers",
        _check_shadow,
        _in_workers("shadow"),
        _work_shadow,
        hashes=True,
        capabilities=READING,
    ),
}


def find_mechanism(settings: Settings) -> Mechanism:
    """Return what `-a` names, in any case; StartupError where there is no such backend."""
    mechanism = MECHANISMS.get(settings.mechanism.lower())
    if mechanism is None:
        raise StartupError(
            f"unknown authentication mechanism: {settings.mechanism}",
            f"this release knows: {' '.join(MECHANISMS)}",
        )
    return mechanism


def most_workers(settings: Settings) -> int:
    """Return how many worker processes the backend may have."""
    if settings.processes:
        return settings.processes
    if find_mechanism(settings).hashes:
        return len(os.sched_getaffinity(0))
    return MOST_WORKERS
