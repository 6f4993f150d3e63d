"""What libldap would read beside the C daemon's file: ldap.conf, ldaprc, LDAP... variables.

The order, and which options count where, are those of ldap.conf(5).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pysaslauthd.config.classic import Line

SYSTEM_FILES = ("/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf")  # Debian's and Fedora's
PREFIX = "LDAP"
OPTIONS = frozenset(
    {
        "SASL_AUTHCID",
        "SASL_AUTHZID",
        "SASL_MECH",
        "SASL_REALM",
        "TLS_CACERT",
        "TLS_CACERTDIR",
        "TLS_CERT",
        "TLS_CIPHER_SUITE",
        "TLS_CRLCHECK",
        "TLS_CRLFILE",
        "TLS_KEY",
        "TLS_PROTOCOL_MIN",
        "TLS_REQCERT",
    }
)
USER_ONLY = frozenset({"SASL_AUTHCID", "SASL_AUTHZID", "TLS_CERT", "TLS_KEY"})
LINE = re.compile(rb"\s*([A-Za-z_]+)\s+(\S.*)")  # of what begins with # the name does not fit


def read_options(
    environment: Mapping[str, str], run_directory: str, system: tuple[str, ...] = SYSTEM_FILES
) -> dict[str, Line]:
    """Return the options that count, by their names in ldap.conf, of those that matter here.

    A file that is missing or cannot be read counts for nothing, as for libldap;
    a variable that is empty takes back what files say.
    """
    if f"{PREFIX}NOINIT" in environment:
        return {}
    found: dict[str, Line] = {}
    for path in system:
        found |= _read(Path(path), OPTIONS - USER_ONLY)
    found |= _read_users("ldaprc", environment, run_directory)
    if file := environment.get(f"{PREFIX}CONF"):
        found |= _read(Path(run_directory, file), OPTIONS - USER_ONLY)
    if name := environment.get(f"{PREFIX}RC"):
        found |= _read_users(name, environment, run_directory)
    found |= _read_variables(environment)
    return {option: line for option, line in found.items() if line.value}


def _read_users(name: str, environment: Mapping[str, str], run_directory: str) -> dict[str, Line]:
    found: dict[str, Line] = {}
    if "HOME" in environment:
        found |= _read(Path(f"{environment['HOME']}/{name}"), OPTIONS)
        found |= _read(Path(f"{environment['HOME']}/.{name}"), OPTIONS)
    return found | _read(Path(run_directory, name), OPTIONS)


def _read(path: Path, options: frozenset[str]) -> dict[str, Line]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return {}
    matches = ((number, LINE.fullmatch(line.rstrip())) for number, line in enumerate(lines, 1))
    settings = (
        Line(f"{path}: line {number}", match[1].decode().upper(), match[2])
        for number, match in matches
        if match is not None
    )
    return {line.key: line for line in settings if line.key in options}


def _read_variables(environment: Mapping[str, str]) -> dict[str, Line]:
    names = ((option, f"{PREFIX}{option}") for option in OPTIONS)
    return {
        option: Line("environment", name, environment[name].encode(errors="surrogateescape"))
        for option, name in names
        if name in environment
    }
