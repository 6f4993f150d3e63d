"""The command line of saslauthd 2.1.28 (and `-f` of its sources since), as settings.

Values are read as the C daemon reads them and refused with its words;
protocols/saslauthd-cli.md sections 1 and 2.
"""

import re
from pathlib import Path

from pysaslauthd.errors import StartupError

SHORT = "a:cdfhO:lm:n:rs:t:vV"
LONG = {
    "allow-cleartext": True,
    "config": True,
    "dovecot": True,
    "help": False,
    "local-domain": True,
    "mux": True,
    "on-outage": True,
    "socket-group": True,
    "socket-mode": True,
    "socket-owner": True,
    "user": True,
    "version": False,
}

SWITCHES = {
    "-c": {"cache": True},
    "-d": {"foreground": True, "verbose": True},
    "-f": {"foreground": True},
    "-l": {},  # there is no accept lock
    "-r": {"combine_realm": True},
    "-V": {"verbose": True},
}
TEXTS = {
    "-a": "mechanism",
    "-O": "mechanism_option",
    "--local-domain": "local_domain",
    "--socket-group": "socket_group",
    "--socket-owner": "socket_owner",
    "--user": "user",
}


class RepeatedMechanism(Exception):
    """`-a` was given twice; the C daemon prints its usage then."""


class Flags:
    """The settings that the flags seen so far make."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.values: dict[str, object] = {}
        self._lists: dict[str, list[str]] = {}

    def apply(self, flag: str, value: str) -> None:
        """Take one option; StartupError, in the C daemon's words, where *value* is refused."""
        if flag in SWITCHES:
            self.values |= SWITCHES[flag]
        elif flag in TEXTS:
            if flag == "-a" and "mechanism" in self.values:
                raise RepeatedMechanism
            self.values[TEXTS[flag]] = value
        else:
            self._checked(flag, value)

    def _checked(self, flag: str, value: str) -> None:
        match flag:
            case "-n":
                problem = "invalid number of worker processes defined"
                self.values["processes"] = _at_least(0, value, problem)
            case "-s":
                problem = "cache size must be positive and non zero"
                self.values["cache_kilobytes"] = _at_least(1, value, problem)
            case "-t":
                problem = "cache timeout must be positive"
                self.values["cache_seconds"] = float(_at_least(1, value, problem))
            case "--on-outage":
                self.values["on_outage"] = _one_of(("tempfail", "no"), value)
            case "--socket-mode":
                self.values["socket_mode"] = _octal(value)
            case "--allow-cleartext":
                self._add("allow_cleartext", value)
            case "--config":
                self.config = str(Path(value).absolute())  # the daemon changes its directory
            case _:
                self._path(flag, value)

    def _path(self, flag: str, value: str) -> None:
        is_inet = flag == "--dovecot" and value.startswith("inet:")
        if not value.startswith("/") and not is_inet:
            alternative = ", or inet:ADDRESS:PORT" if flag == "--dovecot" else ""
            raise StartupError(f"{flag} requires an absolute pathname{alternative}")
        if flag == "-m":
            self.values["run_directory"] = value
        else:
            self._add(flag.removeprefix("--"), value)

    def _add(self, setting: str, value: str) -> None:
        """Take an option that may be repeated."""
        values = self._lists.setdefault(setting, [])
        values.append(value)
        self.values[setting] = tuple(values)


def _at_least(least: int, text: str, problem: str) -> int:
    """Return *text* as atoi(3) reads it: leading digits, else 0."""
    found = re.match(r"\s*([+-]?[0-9]+)", text)
    number = int(found[1]) if found else 0
    if number < least:
        raise StartupError(problem)
    return number


def _one_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise StartupError(f"--on-outage takes {' or '.join(words)}, not {text!r}")
    return text


def _octal(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise StartupError(f"--socket-mode takes three octal digits such as 660, not {text!r}")
    return int(text, 8)
