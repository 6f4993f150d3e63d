"""Where log lines go: syslog as the C daemon's (facility auth), and stderr while attached.

Formats: protocols/saslauthd-cli.md section 4, as Debian builds it.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import syslog
import time
from pathlib import Path

IDENT = "saslauthd"
FUNCTION_COLUMN = " " * 16  # where other builds of the C daemon name a function
SYSLOG_SOCKET = "/dev/log"
LOGGERS = ("pysaslauthd", "asyncio")  # the event loop tells of faults too
# What these say, the C daemon's mechanisms say: with or without -V, and without the column.
MECHANISMS = ("pysaslauthd.backends.kerberos5.verifier", "pysaslauthd.backends.pam")
PRIORITIES = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
}


class Syslog(logging.Handler):
    """Sends to the local syslog and never waits for it: a line that does not fit is dropped.

    The standard library's handler blocks on a syslog that does not read. One
    that is absent, or comes back later, costs its lines and nothing else.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._socket: socket.socket | None = None
        self.setFormatter(_SyslogFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line; where the connection broke, connect again and try once more."""
        line = self.format(record).encode(errors="backslashreplace")
        if not self._send(line):
            self._send(line)

    def _send(self, line: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = self._connect()
            # On a stream, which some syslogs offer, NUL ends a line (syslog(3)).
            end = b"\0" if self._socket.type == socket.SOCK_STREAM else b""
            self._socket.send(line + end)
        except BlockingIOError:
            return True
        except OSError:
            self.close()
            return False
        return True

    def _connect(self) -> socket.socket:
        try:
            return _connected(self._address, socket.SOCK_DGRAM)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            return _connected(self._address, socket.SOCK_STREAM)

    def close(self) -> None:
        """Close the connection; the next line opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(address: str, kind: socket.SocketKind) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, kind)
    found.settimeout(0)
    try:
        found.connect(address)
    except OSError:
        found.close()
        raise
    return found


class Terminal(logging.Handler):
    """Writes to a descriptor such as stderr and never waits for its reader.

    A reader that has stalled must not hold the daemon; the descriptor is shared
    with others, so it is not made non-blocking but asked for room first.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self.setFormatter(_TerminalFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, as much of it as a pipe takes at once."""
        line = self.format(record).encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            if self._room.poll(0):
                os.write(self._descriptor, line[: select.PIPE_BUF - 1] + b"\n")


class _SyslogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = syslog.LOG_AUTH | PRIORITIES[record.levelno]
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(record.created))
        column = "" if record.name in MECHANISMS else f"{FUNCTION_COLUMN}: "
        text = super().format(record).replace("\n", " | ")
        return f"<{priority}>{stamp} {IDENT}[{record.process}]: {column}{text}"


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{IDENT}[{record.process}] :{super().format(record)}"


def set_up() -> logging.Handler:
    """Send the log to syslog, and to stderr until the returned handler is detached."""
    terminal = Terminal(2)
    handlers: list[logging.Handler] = [Syslog(SYSLOG_SOCKET)]
    if not _stderr_is_journal():
        handlers.append(terminal)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    for name in MECHANISMS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    set_verbose(verbose=False)
    return terminal


def reconnect() -> None:
    """Let go of the connection to syslog; the next line makes another. For a forked child."""
    for handler in logging.getLogger(LOGGERS[0]).handlers:
        if isinstance(handler, Syslog):
            handler.close()


def set_verbose(*, verbose: bool) -> None:
    """Log successes and inner workings too, or not."""
    logging.getLogger("pysaslauthd").setLevel(logging.DEBUG if verbose else logging.INFO)


def detach(terminal: logging.Handler) -> None:
    """Stop writing to stderr."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(terminal)


def _stderr_is_journal() -> bool:
    """Say whether stderr is the journal, which has every line from syslog already."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not inode or not Path(SYSLOG_SOCKET).exists():
        return False
    found = os.fstat(2)
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
