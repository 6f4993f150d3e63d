"""Where log lines go: syslog as the C daemon's (facility auth), and stderr while attached.

Formats: protocols/saslauthd-cli.md section 4, as Debian builds it.
"""

import logging
import os
import socket
import sys
import syslog
import time
from pathlib import Path

IDENT = "saslauthd"
FUNCTION_COLUMN = " " * 16  # where other builds of the C daemon name a function
SYSLOG_SOCKET = "/dev/log"
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
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(0)
                self._socket.connect(self._address)
            self._socket.send(line)
        except BlockingIOError:
            return True
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the connection; the next line opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _SyslogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = syslog.LOG_AUTH | PRIORITIES[record.levelno]
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(record.created))
        text = super().format(record).replace("\n", " | ")
        return f"<{priority}>{stamp} {IDENT}[{record.process}]: {FUNCTION_COLUMN}: {text}"


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{IDENT}[{record.process}] :{super().format(record)}"


def set_up(*, verbose: bool) -> logging.Handler:
    """Send the package's log to syslog, and to stderr until the returned handler is removed."""
    root = logging.getLogger("pysaslauthd")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_TerminalFormatter())
    if not _stderr_is_journal():
        root.addHandler(terminal)
    root.addHandler(Syslog(SYSLOG_SOCKET))
    return terminal


def detach(terminal: logging.Handler) -> None:
    """Stop writing to stderr."""
    logging.getLogger("pysaslauthd").removeHandler(terminal)


def _stderr_is_journal() -> bool:
    """Say whether stderr is the journal, which has every line from syslog already."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not inode or not Path(SYSLOG_SOCKET).exists():
        return False
    found = os.fstat(2)
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
