"""What `-a httpform` is told: by a file, else by its table, else by the default file.

Facts: protocols/backends.md sections 6 and 8.
"""

import ipaddress
import logging
import re
import socket
from pathlib import Path

import msgspec
from msgspec.structs import FieldInfo

from pysaslauthd.config.classic import DEFAULT_FILE, Line, read_lines, with_identity
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform
from pysaslauthd.errors import StartupError

log = logging.getLogger(__name__)

PREFIX = "httpform_"
FIELDS = {
    PREFIX + field.name: field
    for field in msgspec.structs.fields(Httpform)
    if field.name != "tls_identity"  # several lines of PEM
}
NAME = re.compile(r"[A-Za-z0-9._-]+")
TARGET = re.compile(r"/[^\s\x00-\x1f\x7f]*")


def configure(settings: Settings, file: str | None) -> Settings:
    """Return *settings* with the table that counts, that of *file* if there is one.

    StartupError says what is wrong with it.
    """
    table = with_identity(_find_table(settings, file), "httpform")
    if not table.uri or not table.data:
        raise StartupError(
            "auth_httpform_init formdata and uri must be specified",
            f"set httpform_uri and httpform_data in the file of -O or in {DEFAULT_FILE},"
            " or uri and data in [httpform]",
        )
    if not (NAME.fullmatch(table.host) or _is_address(table.host)):
        raise StartupError(f"httpform: host is no name in ASCII and no address: {table.host!r}")
    if not TARGET.fullmatch(table.uri):
        raise StartupError(
            f"httpform: uri must begin with / and have no blank or control character: {table.uri!r}"
        )
    return msgspec.structs.replace(settings, httpform=table)


def _find_table(settings: Settings, file: str | None) -> Httpform:
    if file is not None:
        return _read_table(file)
    if settings.httpform is not None:
        return settings.httpform
    return _read_table(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else Httpform()


def _read_table(path: str) -> Httpform:
    """Return what the file at *path* says; other mechanisms may have their keys there too."""
    try:
        lines = read_lines(path)
    except StartupError as error:
        raise StartupError(f"auth_httpform_init {error}") from None
    values: dict[str, object] = {}
    for line in lines:
        field = FIELDS.get(line.key)
        if field is not None:
            values.setdefault(field.name, _value(line, field))
        elif line.key.startswith(PREFIX):
            log.warning("%s: unknown key %s", line.place, line.key)
    return msgspec.convert(values, Httpform)


def _value(line: Line, field: FieldInfo) -> object:
    try:
        return msgspec.convert(_found(line, field), field.type, strict=False)
    except msgspec.ValidationError as error:
        raise StartupError(f"{line.place}: {line.key}: {error}") from None


def _found(line: Line, field: FieldInfo) -> object:
    if field.type is bool:
        if line.switch is None:  # the default might be cleartext
            raise StartupError(f"{line.place}: {line.key}: neither yes nor no: {line.text!r}")
        return line.switch
    if field.name == "port" and not line.text.isdigit():
        return _port_of(line)
    return line.text


def _port_of(line: Line) -> int:
    """Return the port of a service that goes by its name, such as http."""
    try:
        return socket.getservbyname(line.text, "tcp")
    except OSError:
        raise StartupError(f"{line.place}: {line.key}: no such service: {line.text!r}") from None


def _is_address(host: str) -> bool:
    try:
        return not getattr(ipaddress.ip_address(host), "scope_id", None)
    except ValueError:
        return False
