"""The command pytestsaslauthd: asks a saslauthd server one question and prints its answer.

A twin of Cyrus testsaslauthd: what that program prints is printed byte for
byte, its exit codes are kept. What it cannot tell (why there is no answer, and
that no answer is not a "no") follows on stderr.
"""

import errno
import getpass
import math
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pysaslauthd import __version__
from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.wire.mux import COUNT_BYTES, encode_request

DEFAULT_SOCKET = "/var/run/saslauthd/mux"
DEFAULT_SERVICE = "imap"
DEFAULT_TIMEOUT = 30.0
LONGEST_TIMEOUT = 86400.0

# libsasl and the C program read no more of a reply than this, and need no less.
LONGEST_REPLY = 1023
SHORTEST_REPLY = 2

ACCEPTED = 0
FAILED = 255  # refused, or no answer: the C program does not tell them apart
USAGE = 1
INTERRUPTED = 130  # what a shell says of a program that SIGINT ended

SHORT_OPTIONS = "u:p:r:s:f:R:a:"
LONG_OPTIONS = {"password-stdin": False, "timeout": True, "help": False, "version": False}

UNDECIDED = "neither yes nor no: "

USAGE_TEXT = """\
{program}: usage: {program} -u username -p password
              [-r realm] [-s servicename] [-a clientaddr]
              [-f socket path] [-R repeatnum]
"""

HELP_TEXT = (
    USAGE_TEXT
    + f"""
Asks a saslauthd server whether a password is right.

  -u NAME           the user's name; name@realm is sent as it is, not split
  -p PASSWORD       the password. Every local user can read it in the process
                    list: better give --password-stdin
  --password-stdin  read the password from a terminal, or one line of stdin
  -r REALM          the realm (default: empty)
  -s SERVICE        the service, for PAM and for logs (default: {DEFAULT_SERVICE})
  -a ADDRESS        the client's address, `addr;port`; sent only if given,
                    because released C daemons do not know it
  -f PATH           the server's socket, not its directory
                    (default: {DEFAULT_SOCKET})
  -R N              ask N times
  --timeout SECONDS give up on an answer after this long (default: {DEFAULT_TIMEOUT:g})
  --help, --version print this, or the version

Exit status: 0 the password is right; 255 it is not, or nobody could find out
(then stderr says so); 1 the command line is wrong.
"""
)


class NoAnswer(Exception):
    """Nobody said yes or no; *said* is what the C program prints, *meaning* our explanation."""

    def __init__(self, said: str, meaning: str) -> None:
        super().__init__(f"{said}: {meaning}")
        self.said = said
        self.meaning = meaning


def main(argv: Sequence[str] | None = None) -> int:
    """Ask as the command line says; return the exit code."""
    program = Path(sys.argv[0]).name
    try:
        return run(program, sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        if str(error):
            complain(f"{program}: {error}")
        sys.stderr.write(USAGE_TEXT.format(program=program))
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError:  # nobody can read the answer, so nobody must take it for a yes
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED


def run(program: str, argv: Sequence[str]) -> int:
    """Print what is asked for; UsageError where the line is wrong."""
    given: dict[str, str] = {}
    for option, value in Options(argv, SHORT_OPTIONS, LONG_OPTIONS):
        if option == "--help":
            sys.stdout.write(HELP_TEXT.format(program=program))
            return 0
        if option == "--version":
            print(f"{program} {__version__}")
            return 0
        given[option] = value
    # The C program takes 0 and words for 1, and asks never if told a negative number.
    times = leading_number(given.get("-R", "1")) or 1
    timeout = seconds(given["--timeout"]) if "--timeout" in given else DEFAULT_TIMEOUT
    request = the_request(given)
    status = ACCEPTED
    for number in range(times):
        print(f"{number}: ", end="", flush=True)
        status = attempt(program, given.get("-f", DEFAULT_SOCKET), request, timeout)
    return status


def the_request(given: Mapping[str, str]) -> bytes:
    """Return the bytes to send; UsageError where something is missing or too long."""
    if "-u" not in given or not ("-p" in given or "--password-stdin" in given):
        raise UsageError
    password = read_password() if "--password-stdin" in given else os.fsencode(given["-p"])
    try:
        return encode_request(
            os.fsencode(given["-u"]),
            password,
            os.fsencode(given.get("-s", DEFAULT_SERVICE)),
            os.fsencode(given.get("-r", "")),
            os.fsencode(given["-a"]) if "-a" in given else None,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def read_password() -> bytes:
    """Return the password a person types, or one line of standard input."""
    if sys.stdin is None:
        raise UsageError("there is no standard input to read the password from")
    try:
        if sys.stdin.isatty():
            return os.fsencode(getpass.getpass())
        # Nothing at all, unlike an empty line, is a broken pipeline and no password.
        if line := sys.stdin.buffer.readline():
            return line.removesuffix(b"\n")
    except EOFError:
        pass
    except UnicodeDecodeError:
        raise UsageError("these bytes are no text of this terminal: send them by a pipe") from None
    raise UsageError("there is no password on standard input")


def attempt(program: str, path: str, request: bytes, timeout: float) -> int:
    """Ask once, print the answer, and return the exit code it stands for."""
    try:
        reply = ask(path, request, timeout)
    except NoAnswer as none:
        complain(none.said)
        complain(f"{program}: {none.meaning}")
        return FAILED
    if reply.startswith(b"OK"):
        print('OK "Success."', flush=True)
        return ACCEPTED
    print('NO "authentication failed"', flush=True)
    if not reply.startswith(b"NO"):
        complain(f"{program}: the reply is neither OK nor NO: {printable(reply)}")
    elif reason := reply[3:]:
        complain(f"{program}: refused: {printable(reason)}")
    return FAILED


def ask(path: str, request: bytes, timeout: float) -> bytes:
    """Return the text of the server's reply to *request*, two bytes at least; NoAnswer otherwise.

    *timeout* bounds the whole, not each step.
    """
    deadline = time.monotonic() + timeout
    late = f"no answer within {timeout:g} seconds"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            connect(server, path, timeout)
        except BlockingIOError:
            raise NoAnswer(late, UNDECIDED + "the server does not accept connections") from None
        try:
            return converse(server, request, deadline)
        except TimeoutError:
            raise NoAnswer(late, UNDECIDED + "the server accepts but does not reply") from None


def connect(server: socket.socket, path: str, timeout: float) -> None:
    """Connect; BlockingIOError after *timeout*, NoAnswer where it fails otherwise."""
    # A full backlog makes a non-blocking connect to a unix socket fail at once:
    # the kernel must do the waiting.
    whole, fraction = divmod(timeout, 1)
    limit = struct.pack("@ll", int(whole), max(int(fraction * 1e6), 1))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    try:
        server.connect(path)
    except BlockingIOError:
        raise
    except OSError as error:
        # Python itself refuses a path that is too long, and gives no number.
        number = error.errno or errno.ENAMETOOLONG
        raise NoAnswer(f"connect() : {os.strerror(number)}", advice(number, path)) from None


def advice(number: int, path: str) -> str:
    """Say what to look at when connecting to *path* failed with errno *number*."""
    if os.path.isdir(path):  # noqa: PTH112 (Path raises where the name is too long)
        return f"{path} is a directory; -f takes the socket in it"
    match number:
        case errno.ENOENT:
            return f"there is no {path}: is the server running?"
        case errno.ECONNREFUSED:
            return f"nobody listens at {path}: is the server running?"
        case errno.EACCES:
            return f"you may not reach {path}: who may enter its directory? (on Debian: group sasl)"
    return f"cannot connect to {path}"


def converse(server: socket.socket, request: bytes, deadline: float) -> bytes:
    """Send *request* and return the reply's text; TimeoutError at *deadline*."""
    server.settimeout(left(deadline))
    try:
        server.sendall(request)
    except TimeoutError:
        raise
    except OSError:
        raise NoAnswer("write failed", UNDECIDED + "the server hung up") from None
    counted = receive(server, COUNT_BYTES, deadline)
    if len(counted) < COUNT_BYTES:
        raise NoAnswer("size read failed", UNDECIDED + "the server hung up without a reply")
    count = int.from_bytes(counted, "big")
    if count < SHORTEST_REPLY:
        raise NoAnswer("bad response from saslauthd", UNDECIDED + "the server could not find out")
    size = min(count, LONGEST_REPLY)
    reply = receive(server, size, deadline)
    if len(reply) < size:
        raise NoAnswer("read failed", UNDECIDED + "the server hung up within its reply")
    return reply


def receive(server: socket.socket, size: int, deadline: float) -> bytes:
    """Return *size* bytes, or what came before the peer hung up; TimeoutError at *deadline*."""
    received = b""
    while len(received) < size:
        server.settimeout(left(deadline))
        try:
            chunk = server.recv(size - len(received))
        except ConnectionError:
            break
        if not chunk:
            break
        received += chunk
    return received


def left(deadline: float) -> float:
    """Return the seconds until *deadline*; never 0, which a socket takes for "do not wait"."""
    return max(deadline - time.monotonic(), 0.001)


def leading_number(text: str) -> int:
    """Return the number at the start of *text* as C's atoi does: 0 where there is none."""
    found = re.match(r"\s*[+-]?[0-9]{1,18}", text)
    return int(found[0]) if found else 0


def seconds(text: str) -> float:
    """Return *text* as a time to wait; UsageError where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_TIMEOUT:
        raise UsageError(f"--timeout wants a number of seconds above zero, not '{text}'")
    return value


def printable(text: bytes) -> str:
    """Return *text* of a peer in a form that cannot play with a terminal."""
    return repr(text)[2:-1]


def complain(line: str) -> None:
    """Write *line* to stderr."""
    print(line, file=sys.stderr, flush=True)
