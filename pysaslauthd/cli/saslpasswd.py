"""pysaslpasswd: sets and deletes passwords in a sasldb, as saslpasswd2 does.

Flags, prompts and exit codes: protocols/sasldb.md section 3; what differs is in
pysaslpasswd(8). The exit code of a failure is the SASL code of the C program.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sysconfig import get_config_var

from pysaslauthd import __version__
from pysaslauthd.cli import bulk
from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.errors import StoreError
from pysaslauthd.stores import sasldb
from pysaslauthd.stores.records import Records

DONE, FAILED, BAD_PARAMETER = 0, 1, 7
STDIN = 0
DEFAULT_APPLICATION = "saslpasswd"

# Verifiers of an older password: whoever knew it could log in with them still.
STALE = (
    b"authPassword",
    b"cmusaslsecretSRP",
    b"cmusaslsecretCRAM-MD5",
    b"cmusaslsecretDIGEST-MD5",
    b"cmusaslsecretPLAIN",
)
OF_A_USER = (sasldb.PASSWORD, *STALE, b"cmusaslsecretOTP")

USAGE = """\
usage: {program} [-v] [-c [-p] [-n]] [-d] [-a appname] [-f sasldb] [-u DOM] userid
       {program} --import FILE [-f sasldb] [-u DOM]
\t-p\tpipe mode: no prompt, the password is read from standard input
\t-c\tcreate the user
\t-d\tdelete the user
\t-n\tdo not store userPassword
\t-f sasldb\tthe database file
\t-a appname\tread sasldb_path from appname.conf
\t-u DOM\tthe realm of a userid without @
\t-v\tprint the version and exit
\t--help\tprint more and exit
"""

HELP = """\
Set or delete the password of a user in a sasldb file.

usage: {program} [-c] [-p] [-n] [-a APPNAME] [-f SASLDB] [-u DOM] USERID
       {program} -d [-f SASLDB] [-u DOM] USERID
       {program} --import FILE [-f SASLDB] [-u DOM]

  -c              create the user; the default does that too
  -d              delete the user and every secret of theirs
  -p              no prompt: read the password from standard input, which is
                  also done when that is no terminal
  -n              do not store userPassword (nothing else is stored either)
  -f SASLDB       the database file (default: sasldb_path of the application's
                  configuration, else /etc/sasldb2)
  -a APPNAME      read sasldb_path from APPNAME.conf in the directories of
                  SASL_CONF_PATH, else /etc/sasl2 and its like
                  (default: saslpasswd)
  -u DOM          the realm, if USERID has no @ (default: the host name)
  --import FILE   add many users at once: lines of user@realm, TAB, password;
                  - is standard input
  --format KIND   what a new file is: berkeley (default), lmdb or gdbm
  -v, --version   print the version
  -h              print the usage, exit 1
  --help          print this

Passwords are never taken from the command line, where others could see them.
Exit code: 0 done; 1 failed, or wrong usage; 7 the password is empty or the two
did not match.
"""


class Refused(Exception):
    """Nothing was stored; *status* is the exit code, the text what the user is told."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Wish:
    """What the command line asks for."""

    program: str
    flags: set[str] = field(default_factory=set)
    path: str = ""
    realm: str = ""
    application: str = DEFAULT_APPLICATION
    format: str = "berkeley"
    source: str | None = None
    operands: list[str] = field(default_factory=list)

    def is_sane(self) -> bool:
        """Say whether the flags go together."""
        if self.flags & {"-h", "bad"} or {"-c", "-d"} <= self.flags:
            return False
        if self.source is not None:
            return not self.operands and not self.flags & {"-d", "-n"}
        return len(self.operands) == 1


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (without the program's name) asks and return the exit code."""
    wish = Wish(Path(sys.argv[0]).name)
    try:
        status = _read_options(wish, sys.argv[1:] if argv is None else argv)
        if status is not None:
            return status
        if not wish.is_sane():
            print(f"{wish.program}: {USAGE.format(program=wish.program)}", end="", file=sys.stderr)
            return FAILED
        with _warnings_shown(wish.program):
            _run(wish)
    except Refused as refusal:
        return _complain(wish, str(refusal), refusal.status)
    except StoreError as error:
        return _complain(wish, str(error), FAILED)
    except KeyboardInterrupt:
        return _complain(wish, "interrupted; nothing was changed", 130)
    return DONE


@contextlib.contextmanager
def _warnings_shown(program: str) -> Iterator[None]:
    """Print what the stores have to say, such as a rewrite in place, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    log = logging.getLogger(sasldb.__package__)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _complain(wish: Wish, text: str, status: int) -> int:
    print(f"{wish.program}: {text}", file=sys.stderr)
    return status


def _read_options(wish: Wish, argv: Sequence[str]) -> int | None:
    """Fill *wish*; return the exit code if an option has already done the work.

    As in the C program -h and wrong options wait until all are read: -v wins.
    """
    long = {"help": False, "version": False, "import": True, "format": True}
    options = Options(argv, "vpcdnf:u:a:h?", long)
    reading = True
    while reading:
        try:
            for name, value in options:
                if (status := _take(wish, name, value)) is not None:
                    return status
            reading = False
        except UsageError as error:
            _complain(wish, str(error), FAILED)
            wish.flags.add("bad")
    wish.operands = options.operands
    return None


def _take(wish: Wish, name: str, value: str) -> int | None:
    match name:
        case "-f":
            wish.path = value
        case "-u":
            wish.realm = value
        case "-a":
            if "/" in value:
                raise Refused("appname must not contain /")
            wish.application = value
        case "--import":
            wish.source = value
        case "--format":
            if value not in sasldb.FORMATS:
                raise Refused(f"no such format; there are {', '.join(sasldb.FORMATS)}")
            wish.format = value
        case _:
            return _take_flag(wish, name)
    return None


def _take_flag(wish: Wish, name: str) -> int | None:
    version = f"{wish.program} (pysaslauthd) {__version__}"
    match name:
        case "-v":
            print(version, file=sys.stderr)
        case "--version":
            print(version)
        case "--help":
            print(HELP.format(program=wish.program), end="")
        case _:
            wish.flags.add("-h" if name == "-?" else name)
            return None
    return DONE


def database_path(wish: Wish) -> str:
    """Return the file to work on: that of -f, the configured one, or the default."""
    return wish.path or _configured_path(wish.application) or sasldb.DEFAULT_PATH


def _run(wish: Wish) -> None:
    path = database_path(wish)
    if wish.source is not None:
        _import(wish, path, wish.source)
        return
    user, realm = _identity(wish.operands[0], wish.realm)
    if "-d" in wish.flags:
        _edit(wish, path, _deletion(user, realm))
        return
    password = _password(wish)
    if "-n" in wish.flags:
        _complain(wish, "nothing was stored: -n leaves no secret to store", DONE)
        return
    change = _setting({(user, realm): password})
    _edit(wish, path, change)


def _edit(wish: Wish, path: str, change: sasldb.Change) -> None:
    """Change the file; an interrupt meanwhile would leave it open what has been done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        sasldb.edit(path, change, new_format=wish.format)
    finally:
        signal.sigtimedwait({signal.SIGINT}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _identity(userid: str, realm: str) -> tuple[bytes, bytes]:
    """Split at the first @, as the C program does; names are bytes as they were typed."""
    user, at, domain = os.fsencode(userid).partition(b"@")
    return user, domain if at else os.fsencode(realm or socket.gethostname())


def _setting(users: bulk.Users) -> Callable[[Records], None]:
    def change(records: Records) -> None:
        for (user, realm), password in users.items():
            records[sasldb.key(user, realm)] = password
            for prop in STALE:
                records.pop(sasldb.key(user, realm, prop), None)

    return change


def _deletion(user: bytes, realm: bytes) -> Callable[[Records], None]:
    def change(records: Records) -> None:
        for prop in OF_A_USER:
            records.pop(sasldb.key(user, realm, prop), None)

    return change


def _import(wish: Wish, path: str, source: str) -> None:
    try:
        content = bulk.read_source(source)
    except OSError as error:
        raise Refused(f"{source}: {error.strerror}") from error
    realm = os.fsencode(wish.realm) or None
    try:
        with bulk.progress(content.count(b"\n"), "reading", sys.stderr) as advance:
            users = bulk.read_users(content, realm, advance)
    except bulk.BadLine as error:
        raise Refused(f"{source}: {error}; nothing was imported") from error
    with bulk.progress(len(users), "writing", sys.stderr) as advance:
        _edit(wish, path, _setting(users))
        advance(len(users))
    try:
        print(f"{len(users)} users imported into {path}", flush=True)
    except OSError:  # they are, whether that can be told or not
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _password(wish: Wish) -> bytes:
    """Return the new password from the terminal or standard input; Refused if there is none."""
    try:
        if "-p" in wish.flags or not os.isatty(STDIN):
            raw = _read_pipe()
        else:
            with _echo_off():
                raw, again = _ask("Password: "), _ask("Again (for verification): ")
            if raw != again:
                raise Refused("passwords don't match; aborting", BAD_PARAMETER)
    except OSError as error:
        raise Refused(f"cannot read the password: {error.strerror}") from error
    return _usable(wish, raw.removesuffix(b"\n"))


def _usable(wish: Wish, password: bytes) -> bytes:
    """Return what the C program would store, which cuts, and tell the user about a cut."""
    usable = password.partition(b"\0")[0][: bulk.LONGEST_PASSWORD]
    if len(password) > bulk.LONGEST_PASSWORD:
        usable = usable.removesuffix(b"\n")  # the C program sees the cut line only
    if not usable:
        raise Refused("invalid parameter supplied: the password is empty", BAD_PARAMETER)
    if len(usable) < len(password):
        _complain(wish, f"the password was cut after {len(usable)} bytes (NUL, or too long)", DONE)
    return usable


def _read_pipe() -> bytes:
    """Read until a line is complete: a slow writer's password must not be stored by half.

    Like the single read of the C program this takes several lines that come at
    once, and does not wait for the writer to close its end.
    """
    raw = b""
    while len(raw) <= bulk.LONGEST_PASSWORD and not raw.endswith(b"\n"):
        part = os.read(STDIN, bulk.LONGEST_PASSWORD + 2 - len(raw))
        if not part:
            break
        raw += part
    return raw


def _ask(prompt: str) -> bytes:
    print(prompt, end="", flush=True)
    return os.read(STDIN, bulk.LONGEST_PASSWORD + 2)


@contextlib.contextmanager
def _echo_off() -> Iterator[None]:
    before = termios.tcgetattr(STDIN)
    quiet = list(before)
    quiet[3] = before[3] & ~termios.ECHO | termios.ECHONL
    # Not TCSAFLUSH: a script may have answered already.
    termios.tcsetattr(STDIN, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def _configured_path(application: str) -> str:
    """Return sasldb_path from the first configuration file there is, as libsasl does; or ""."""
    for directory in _configuration_directories():
        with contextlib.suppress(OSError):
            file = Path(directory) / f"{application}.conf"
            return _sasldb_path(file.read_text("utf-8", "replace"))
    return ""


def _sasldb_path(text: str) -> str:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "sasldb_path":
            return value.strip()
    return ""


def _configuration_directories() -> list[str]:
    listed = os.environ.get("SASL_CONF_PATH")
    if listed:
        return listed.split(":")
    architecture = get_config_var("MULTIARCH") or "."
    return ["/etc/sasl2", "/etc/sasl", f"/usr/lib/{architecture}/sasl2", "/usr/lib/sasl2"]
