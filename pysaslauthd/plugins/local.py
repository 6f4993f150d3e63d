"""The backends that ask this machine: sasldb, getpwent, pam, shadow."""

import contextlib
import logging
import pwd

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.mechanism import READING, Mechanism, in_workers
from pysaslauthd.workers.child import Answer, checking
from pysaslauthd.workers.pool import Source

log = logging.getLogger(__name__)

DEFAULT_SASLDB = "/etc/sasldb2"


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


def _work_getpwent(_settings: Settings) -> Answer:
    from pysaslauthd.backends.getpwent import Getpwent

    return checking(Getpwent().check, "getpwent")


def _check_shadow(_settings: Settings) -> None:
    from pysaslauthd.backends import shadow

    shadow.check_prerequisites()


def _work_shadow(_settings: Settings) -> Answer:
    from pysaslauthd.backends.shadow import Shadow

    return checking(Shadow().check, "shadow")


def _check_pam(_settings: Settings) -> None:
    from pysaslauthd.backends import pam

    pam.load()


def _work_pam(_settings: Settings) -> Answer:
    from pysaslauthd.backends.pam import Pam

    return checking(Pam().check, "pam")


SASLDB = Mechanism(("sasldb",), _check_sasldb, _make_sasldb, groups=("sasl",), has_passwords=True)
GETPWENT = Mechanism(
    ("in_workers",),
    _check_getpwent,
    in_workers("getpwent", hashes=True),
    work=_work_getpwent,
    hashes=True,
    capabilities=READING,
)
PAM = Mechanism(
    ("in_workers",),
    _check_pam,
    in_workers("pam", uses_address=True),
    work=_work_pam,
    needs_root=True,
)
SHADOW = Mechanism(
    ("in_workers",),
    _check_shadow,
    in_workers("shadow", hashes=True),
    work=_work_shadow,
    hashes=True,
    capabilities=READING,
)
