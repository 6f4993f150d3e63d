"""Reads the configuration file and lays the command line's settings over it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret


def load_settings(file: str | None, flags: Mapping[str, object]) -> Settings:
    """Return the settings of *file*, where given, with *flags* over them.

    StartupError names the file, the setting and what is wrong with it.
    """
    values = {**(_read(file) if file else {}), **flags}
    if "mechanism" not in values:
        raise StartupError(f"{file or 'command line'}: no mechanism: set it there, or with -a")
    try:
        return msgspec.convert(values, Settings, dec_hook=_secret)
    except msgspec.ValidationError as error:
        raise StartupError(f"{file or 'command line'}: {error}") from None


def _secret(_kind: type, value: object) -> Secret:
    """Return the secret that *value* is; there is no other kind of value that TOML lacks."""
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    return Secret(value.encode())


def _read(file: str) -> dict[str, object]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(f"could not read the configuration: {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of the text, its numbers, its depth
        raise StartupError(f"the configuration is not TOML: {file}: {error}") from None
