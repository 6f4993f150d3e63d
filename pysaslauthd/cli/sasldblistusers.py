"""pysasldblistusers: lists the records of a sasldb, as sasldblistusers2 does.

protocols/sasldb.md section 4; what differs is in pysasldblistusers(8).
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pysaslauthd import __version__
from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.errors import StoreError
from pysaslauthd.stores import sasldb

DONE, FAILED = 0, 1
STDOUT = 1

USAGE = """\
usage: {program} [-v] [[-f] sasldb]
\t-f sasldb\tthe database file
\t-v\tprint the version and exit
"""

HELP = """\
List who has which secret in a sasldb file; no secret is shown.

usage: {program} [-v] [[-f] SASLDB]

  -f SASLDB       the database file (default: /etc/sasldb2)
  -v, --version   print the version
  -h              print the usage, exit 1
  --help          print this

One line for each record: user@realm: property. Exit code: 0, also when the file
is missing or cannot be read (stderr then says why and `listusers failed`);
1 for wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """List the file that *argv* (without the program's name) names; return the exit code."""
    program = Path(sys.argv[0]).name
    options = Options(
        sys.argv[1:] if argv is None else argv, "vf:h?", {"help": False, "version": False}
    )
    path, unknown, status = "", False, DONE
    for name, value in _patiently(options):
        if name == "-f":
            path = value
        elif name in ("-h", "-?"):
            status = FAILED
        elif name:
            return _say(name, program)
        else:
            print(f"{program}: {value}", file=sys.stderr)
            unknown, status = True, FAILED
    operands = options.operands
    if status or operands == ["-"] or len(operands) > (0 if path else 1):
        print(f"{program}: {USAGE.format(program=program)}", end="", file=sys.stderr)
        if unknown:
            print("Unrecognized command line option", file=sys.stderr)
        return FAILED
    _list(program, path or "".join(operands) or sasldb.DEFAULT_PATH)
    return DONE


def _patiently(options: Options) -> Iterator[tuple[str, str]]:
    """Yield the options; a wrong one has no name, its value says why. The C program goes on."""
    while True:
        try:
            yield from options
            return
        except UsageError as error:
            yield "", str(error)


def _say(name: str, program: str) -> int:
    version = f"{program} (pysaslauthd) {__version__}"
    if name == "--help":
        print(HELP.format(program=program), end="")
    else:
        print(version, file=sys.stderr if name == "-v" else sys.stdout)
    return DONE


def _list(program: str, path: str) -> None:
    try:
        records = sasldb.load(path)
    except StoreError as error:
        # The C program's exit code says nothing of this, and scripts rely on that.
        print(f"{program}: {error}\nlistusers failed", file=sys.stderr)
        return
    keys = [sasldb.split_key(raw) for raw in records]
    lines = [b"%b@%b: %b\n" % parts for parts in keys if parts]
    with contextlib.suppress(OSError):  # the C program's exit code says nothing of this either
        _write(b"".join(lines))
    if bad := keys.count(None):
        print(f"{program}: {path}: {bad} records skipped: no user in the key", file=sys.stderr)


def _write(output: bytes) -> None:
    """Write past Python's buffer, which would complain at exit about a reader that left."""
    view = memoryview(output)
    while view:
        view = view[os.write(STDOUT, view) :]
