"""What libldap would read beside the C daemon's file: ldap.conf, ldaprc, LDAP... variables.

The order, and which options count where, are those of ldap.conf(5).
"""

import re
from collections.abc import Mapping
from pathlib import Path

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
LINE = re.compile(r"\s*([A-Za-z_]+)\s+(\S.*?)\s*")


def read_options(
    environment: Mapping[str, str], run_directory: str, system: tuple[str, ...] = SYSTEM_FILES
) -> dict[str, str]:
    """Return the options that count, by their names in ldap.conf, of those that matter here.

    A file that is missing or cannot be read counts for nothing, as for libldap.
    """
    if f"{PREFIX}NOINIT" in environment:
        return {}
    found: dict[str, str] = {}
    for path in system:
        found |= _read(path, OPTIONS - USER_ONLY)
    found |= _read_users("ldaprc", environment, run_directory)
    if file := environment.get(f"{PREFIX}CONF"):
        found |= _read(file, OPTIONS - USER_ONLY)
    if name := environment.get(f"{PREFIX}RC"):
        found |= _read_users(name, environment, run_directory)
    named = {option: environment.get(f"{PREFIX}{option}") for option in OPTIONS}
    return found | {option: value for option, value in named.items() if value}


def _read_users(name: str, environment: Mapping[str, str], run_directory: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if home := environment.get("HOME"):
        found |= _read(f"{home}/{name}", OPTIONS)
        found |= _read(f"{home}/.{name}", OPTIONS)
    return found | _read(str(Path(run_directory, name)), OPTIONS)


def _read(path: str, options: frozenset[str]) -> dict[str, str]:
    try:
        lines = Path(path).read_text(errors="surrogateescape").split("\n")
    except OSError:
        return {}
    settings = (LINE.fullmatch(line) for line in lines if not line.startswith("#"))
    pairs = ((found[1].upper(), found[2]) for found in settings if found is not None)
    return {option: value for option, value in pairs if option in options}
