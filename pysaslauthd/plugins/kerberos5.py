"""The backend that asks a KDC: kerberos5."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pysaslauthd.config import tables
from pysaslauthd.config.classic import DEFAULT_FILE
from pysaslauthd.config.kerberos5 import read_kerberos5
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins.mechanism import READING, Mechanism, in_workers, option_file
from pysaslauthd.workers.child import Answer, checking

if TYPE_CHECKING:
    from pysaslauthd.backends.kerberos5.verifier import Rules

NAME = "kerberos5"


def _configure(settings: Settings) -> Settings:
    """Return *settings* with those of `-O`'s file, else of their table, else of the default file.

    StartupError where the file cannot be used.
    """
    path = option_file(settings)
    if path is None and (settings.kerberos5 is not None or not Path(DEFAULT_FILE).exists()):
        return settings
    try:
        table = read_kerberos5(path or DEFAULT_FILE)
    except StartupError as error:
        raise StartupError(*error.lines, f"failed to initialize mechanism {NAME}") from None
    return msgspec.structs.replace(settings, kerberos5=table)


def _check(settings: Settings) -> None:
    from pysaslauthd.backends.kerberos5 import verifier

    verifier.check_prerequisites(_rules(settings))


def _work(settings: Settings) -> Answer:
    from pysaslauthd.backends.kerberos5.verifier import Kerberos5

    return checking(Kerberos5(_rules(settings)).check, NAME)


def _rules(settings: Settings) -> "Rules":
    from pysaslauthd.backends.kerberos5.principals import NameRules
    from pysaslauthd.backends.kerberos5.verifier import Rules

    table = settings.kerberos5 or tables.Kerberos5()
    return Rules(
        table.keytab,
        table.verify_principal,
        table.servername,
        NameRules(table.conv_krb4_instance, table.uppercase_realm, table.instances),
    )


# Its workers are busy for some milliseconds with each password, but a KDC far away or silent
# takes longer: there are as many as where they wait.
KERBEROS5 = Mechanism(
    ("in_workers",),
    _check,
    in_workers(NAME),
    configure=_configure,
    work=_work,
    capabilities=READING,  # the keytab is root's
)
