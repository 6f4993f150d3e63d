"""The C daemon's LDAP settings (`/etc/saslauthd.conf`, `-O FILE`) as table `ldap`.

Every key of LDAP_SASLAUTHD; protocols/backends.md section 9 has their meaning. Of
several lines with the same key the last one counts; where there is none, what
libldap would take.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pysaslauthd.config.classic import Line, read_lines
from pysaslauthd.config.tables import Ldap
from pysaslauthd.model import Secret

PREFIX = "ldap_"
NEIGHBOURS = ("httpform_", "krb5_")  # other backends' keys in the same file
ALIASES = {
    "bind_pw": "password",
    "default_domain": "default_realm",
    "sasl_authc_id": "id",
    "sasl_authz_id": "authz_id",
    "sasl_mech": "mech",
    "sasl_realm": "realm",
}
WORDS = {
    "auth_method": ("bind", "custom", "fastbind"),
    "deref": ("never", "search", "find", "always"),
    "group_match_method": ("attr", "filter"),
    "group_scope": ("sub", "one", "base"),
    "scope": ("sub", "one", "base"),
    "tls_minimum": ("1.2", "1.3"),
}
SWITCHES = frozenset({"start_tls", "tls_check_peer", "use_sasl"})
NUMBERS = {  # from, to
    "connections": (1, 10_000),
    "size_limit": (0, 0x7FFFFFFF),
    "time_limit": (0, 0x7FFFFFFF),
    "timeout": (1, 3600),
}
PATHS = frozenset({"tls_cacert_file", "tls_cacert_dir", "tls_cert", "tls_key"})
TEXTS = frozenset(Ldap.__struct_fields__) - {"tls_identity"}
# Of ldap.conf(5), and which settings they are where the file has none.
FROM_LIBLDAP = {
    "SASL_AUTHCID": "id",
    "SASL_AUTHZID": "authz_id",
    "SASL_MECH": "mech",
    "SASL_REALM": "realm",
    "TLS_CACERT": "tls_cacert_file",
    "TLS_CACERTDIR": "tls_cacert_dir",
    "TLS_CERT": "tls_cert",
    "TLS_CIPHER_SUITE": "tls_ciphers",
    "TLS_KEY": "tls_key",
}
REQCERT = {"never": False, "allow": False, "try": True, "demand": True, "hard": True}
PROTOCOL_MIN = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?")
NEW_TLS = (3, 4)  # TLS 1.3, as it calls itself

# Keys whose wish cannot be granted, and why not; asked for by what the value must be.
HOPELESS: dict[str, tuple[Callable[[Line], bool], str]] = {
    "debug": (lambda _: True, "there is no libldap that could show its work: use -V"),
    "referrals": (lambda line: bool(line.switch), "a password never follows a referral"),
    "restart": (lambda _: False, ""),  # system calls that a signal interrupts always go on
    "sasl_secprops": (lambda _: True, "SASL is only used without layers of its own"),
    "version": (lambda line: line.number != 3, "only version 3 is spoken"),
    "TLS_CRLCHECK": (lambda line: line.text.lower() != "none", "revocation lists are not read"),
    "TLS_CRLFILE": (lambda _: True, "revocation lists are not read"),
}


class Found(NamedTuple):
    """The settings, and what is to be said about lines that have no effect.

    *places* has for each setting the line that it comes from, for messages.
    """

    table: Ldap
    warnings: list[str]
    places: Mapping[str, str]


def read_file(path: str, libldap: Mapping[str, Line], directory: str) -> Found:
    """Return the settings in the file at *path*, completed by what *libldap* would take.

    The paths of files are relative to *directory*. StartupError names the line
    that is no setting.
    """
    reading = _Reading(directory)
    for option, line in libldap.items():
        reading.take_option(option, line)
    for line in read_lines(path):
        if not line.key.startswith(NEIGHBOURS):
            reading.take_line(line)
    return Found(reading.table(), reading.warnings, reading.places)


class _Reading:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._values: dict[str, object] = {}
        self.warnings: list[str] = []
        self.places: dict[str, str] = {}

    def table(self) -> Ldap:
        """Return the settings that have been taken."""
        values = self._values
        if values.get("use_sasl") and values.get("auth_method", "bind") == "bind":
            values["auth_method"] = "fastbind"
        return msgspec.convert(values, Ldap)

    def take_line(self, line: Line) -> None:
        """Take a setting of the C daemon's file."""
        key = line.key.removeprefix(PREFIX)
        known = line.key.startswith(PREFIX)
        self._take(ALIASES.get(key, key) if known else "", line)

    def take_option(self, option: str, line: Line) -> None:
        """Take a setting of libldap's."""
        if option == "TLS_REQCERT":
            self._take_demand(line)
        elif option == "TLS_PROTOCOL_MIN":
            self._take_minimum(line)
        else:
            self._take(FROM_LIBLDAP.get(option, option), line)

    def _take(self, key: str, line: Line) -> None:
        """Put what *line* says into the values, or into the warnings why that is not possible."""
        if key in HOPELESS:
            concerns, why = HOPELESS[key]
            if concerns(line):
                self._ignore(line, why)
        elif key in SWITCHES:
            self._take_switch(key, line)
        elif key in WORDS:
            self._take_word(key, line)
        elif key in NUMBERS:
            self._take_number(key, line)
        elif key in TEXTS:
            self._put(key, self._text(key, line), line)
        else:
            self._ignore(line, "there is no such key")

    def _take_switch(self, key: str, line: Line) -> None:
        found = line.switch
        if found is None:
            found = key == "tls_check_peer" and not _may_be_no(line)
            self._warn(line, f"neither yes nor no, which counts as {'yes' if found else 'no'}")
        self._put(key, found, line)

    def _take_word(self, key: str, line: Line) -> None:
        word = line.text.lower()
        if word in WORDS[key]:
            self._put(key, word, line)
        else:
            self._ignore(line, f"{word!r} is none of {', '.join(WORDS[key])}")

    def _take_number(self, key: str, line: Line) -> None:
        least, most = NUMBERS[key]
        if line.number is not None and least <= line.number <= most:
            self._put(key, line.number, line)
        else:
            self._ignore(line, f"it is a number from {least} to {most}")

    def _text(self, key: str, line: Line) -> object:
        if key == "password":
            return Secret(line.value)
        if key == "servers":
            return tuple(line.text.replace(",", " ").split())
        return str(Path(self._directory, line.text)) if key in PATHS else line.text

    def _take_demand(self, line: Line) -> None:
        demand = REQCERT.get(line.text.lower())
        self._put("tls_check_peer", demand is not False, line)
        if demand is None:
            self._warn(line, f"none of {', '.join(REQCERT)}: certificates are checked")

    def _take_minimum(self, line: Line) -> None:
        version = PROTOCOL_MIN.fullmatch(line.text)
        if version is None:
            self._ignore(line, "no version of TLS, such as 3.3")
        elif (int(version[1]), int(version[2] or 0)) >= NEW_TLS:
            self._put("tls_minimum", "1.3", line)

    def _put(self, key: str, value: object, line: Line) -> None:
        self._values[key] = value
        self.places[key] = f"{line.place}: {line.key}"

    def _ignore(self, line: Line, why: str) -> None:
        self._warn(line, f"ignored: {why}")

    def _warn(self, line: Line, what: str) -> None:
        self.warnings.append(f"{line.place}: {line.key}: {what}")


def _may_be_no(line: Line) -> bool:
    """Say whether *line* is a no in any case of letters, which the C daemon takes for one."""
    return line._replace(value=line.value.lower()).switch is False
