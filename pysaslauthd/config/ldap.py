"""The C daemon's LDAP settings (`/etc/saslauthd.conf`, `-O FILE`) as table `ldap`.

Every key of LDAP_SASLAUTHD; protocols/backends.md section 9 has their meaning. Of
several lines with the same key the last one counts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from pysaslauthd.config.classic import Line, read_lines
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
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
NUMBERS = {"connections": 1, "size_limit": 0, "time_limit": 0, "timeout": 1}  # and the least
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
UNCHECKED = frozenset({"never", "allow"})  # of TLS_REQCERT
NEW_TLS = "3.4"  # TLS_PROTOCOL_MIN for TLS 1.3

UNHEEDED = {
    "TLS_CRLCHECK": "revocation lists are not read",
    "TLS_CRLFILE": "revocation lists are not read",
}
# Keys whose wish cannot be granted, and why not; asked for by what the value must be.
HOPELESS: dict[str, tuple[Callable[[Line], bool], str]] = {
    "debug": (lambda _: True, "there is no libldap that could show its work: use -V"),
    "referrals": (lambda line: bool(line.switch), "a password never follows a referral"),
    "restart": (lambda _: False, ""),  # system calls that a signal interrupts always go on
    "sasl_secprops": (lambda _: True, "SASL is only used without layers of its own"),
    "version": (lambda line: line.number != 3, "only version 3 is spoken"),
}


class Found(NamedTuple):
    """The settings, and what is to be said about lines that have no effect."""

    table: Ldap
    warnings: list[str]


def read_file(path: str, libldap: Mapping[str, str]) -> Found:
    """Return the settings in the file at *path*, completed by what *libldap* would take.

    StartupError names the line that is no setting, or the setting that has no meaning.
    """
    values, warnings = from_libldap(libldap)
    for line in read_lines(path):
        if line.key.startswith(NEIGHBOURS):
            continue
        problem = "ignored: there is no such key"
        if line.key.startswith(PREFIX):
            key = line.key.removeprefix(PREFIX)
            problem = _take(values, ALIASES.get(key, key), line)
        if problem:
            warnings.append(f"{line.place}: {line.key}: {problem}")
    if values.get("use_sasl") and values.get("auth_method", "bind") == "bind":
        values["auth_method"] = "fastbind"
    try:
        return Found(msgspec.convert(values, Ldap), warnings)
    except msgspec.ValidationError as error:
        raise StartupError(f"{path}: {error}") from None


def _take(values: dict[str, object], key: str, line: Line) -> str:
    """Put what *line* says into *values*; return why that is not possible, if it is not."""
    if key in HOPELESS:
        concerns, why = HOPELESS[key]
        return f"ignored: {why}" if concerns(line) else ""
    if key in SWITCHES:
        values[key] = bool(line.switch)
        return "" if line.switch is not None else "neither yes nor no, which counts as no"
    if key in WORDS:
        return _take_word(values, key, line.text.lower())
    if key in NUMBERS:
        return _take_number(values, key, line.number)
    return _take_text(values, key, line)


def _take_word(values: dict[str, object], key: str, word: str) -> str:
    if word not in WORDS[key]:
        return f"ignored: it is one of {', '.join(WORDS[key])}"
    values[key] = word
    return ""


def _take_number(values: dict[str, object], key: str, number: int | None) -> str:
    if number is None or number < NUMBERS[key]:
        return f"ignored: it is a number from {NUMBERS[key]} on"
    values[key] = number
    return ""


def _take_text(values: dict[str, object], key: str, line: Line) -> str:
    if key == "password":
        values[key] = Secret(line.value)
    elif key == "servers":
        values[key] = tuple(line.text.replace(",", " ").split())
    elif key in Ldap.__struct_fields__ and key != "tls_identity":
        values[key] = line.text
    else:
        return "ignored: there is no such key"
    return ""


def from_libldap(options: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """Return the settings that ldap.conf, ldaprc and the environment make, and warnings."""
    values: dict[str, object] = {
        setting: options[option] for option, setting in FROM_LIBLDAP.items() if option in options
    }
    if "TLS_REQCERT" in options:
        values["tls_check_peer"] = options["TLS_REQCERT"].lower() not in UNCHECKED
    if options.get("TLS_PROTOCOL_MIN", "") >= NEW_TLS:
        values["tls_minimum"] = "1.3"
    unheeded = [option for option in UNHEEDED if options.get(option, "none").lower() != "none"]
    return values, [f"{option} of ldap.conf: ignored: {UNHEEDED[option]}" for option in unheeded]
