"""The settings of `-a kerberos5` out of a file in the C daemon's form.

Facts: protocols/backends.md sections 7 and 8.
"""

import logging
import re

import msgspec

from pysaslauthd.config.classic import Line, read_lines
from pysaslauthd.config.tables import Kerberos5
from pysaslauthd.errors import StartupError

log = logging.getLogger(__name__)

PREFIX = "krb5_"  # other keys are other backends', which may share the file
TEXTS = {"krb5_keytab", "krb5_verify_principal", "krb5_servername"}
SWITCHES = {"krb5_conv_krb4_instance", "krb5_uppercase_realm"}
INSTANCE = re.compile(r"krb5_(.+)_instance")


def read_kerberos5(path: str) -> Kerberos5:
    """Return the settings in the file at *path*, and defaults for what it does not have.

    StartupError, in the C daemon's words, where it is no such file. A key that
    nobody knows is logged.
    """
    try:
        lines = read_lines(path)
    except StartupError as error:
        problem = str(error)
        opened = not problem.startswith("cannot open")
        raise StartupError(f"auth_krb5_init {'' if opened else 'cfile_read: '}{problem}") from None
    values: dict[str, object] = {}
    instances: dict[str, str] = {}
    for line in lines:
        name = line.key.removeprefix(PREFIX)
        if line.key in TEXTS:
            values.setdefault(name, line.text)  # the first one counts
        elif line.key in SWITCHES:
            values.setdefault(name, _switch(line))
        elif found := INSTANCE.fullmatch(line.key):
            instances.setdefault(found[1], line.text)
        elif line.key.startswith(PREFIX):
            log.warning("%s: unknown key %s", line.place, line.key)
    return msgspec.convert({**values, "instances": instances}, Kerberos5)


def _switch(line: Line) -> bool:
    if line.switch is None:
        log.warning("%s: %s is neither yes nor no: taken for no", line.place, line.key)
    return bool(line.switch)
