"""pysaslauthd: the daemon's command line, read as the C daemon reads its own."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from pysaslauthd import __version__, logs, plugins
from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.config.cyrus import LONG, SHORT, Flags, RepeatedMechanism
from pysaslauthd.daemon import Daemon
from pysaslauthd.errors import StartupError

log = logging.getLogger(__name__)

LAST_STANDARD_DESCRIPTOR = 2
INTERRUPTED, TERMINATED = 130, 143

USAGE = """\
usage: pysaslauthd [options]

option information:
  -a <authmech>  Selects the authentication mechanism to use.
  -c             Enable credential caching (sasldb needs none: it answers from memory).
  -d             Debugging (combines -f and -V)
  -f             Run in foreground, don't detach from tty
  -r             Combine the realm with the login before passing to authentication mechanism
                 Ex. login: "foo" realm: "bar" will get passed as login: "foo@bar"
                 sasldb keeps the two apart.
  -O <option>    Optional argument to pass to the authentication
                 mechanism; for sasldb the path of the database, for rimap
                 the server, for ldap, kerberos5 and httpform a file
                 (default: /etc/saslauthd.conf).
  -l             Disable accept() locking (there is none: accepted and ignored).
  -m <path>      Alternate path for the saslauthd working directory,
                 must be absolute.
  -n <procs>     The most worker processes (default: 16 for pam and kerberos5, else as
                 many as cores; sasldb, rimap, httpform and mostly ldap need none).
  -s <kilobytes> Size of the credential cache (in kilobytes; default: 10266 users)
  -t <seconds>   Timeout for items in the credential cache (in seconds; default: 28800)
  -v             Display version information and available mechs
  -V             Enable verbose logging
  -h             Display this message.

  --allow-cleartext HOST Passwords may go unencrypted to this host; repeatable.
  --config FILE          Settings in TOML; the command line wins over it.
  --mux PATH             Another socket, such as one in Postfix's chroot; repeatable.
  --dovecot WHERE        A socket for Dovecot's auth protocol, or inet:ADDRESS:PORT;
                         repeatable. Postfix: smtpd_sasl_type = dovecot.
  --socket-mode MODE     Octal mode of the sockets (default: 777 where the directory
                         keeps others out, else 660).
  --socket-group GROUP   Group of the sockets (default: the directory's).
  --socket-owner USER    Owner of the sockets (default: who starts the daemon).
  --on-outage WHAT       What a client hears when the answer could not be found out:
                         tempfail (default; Postfix says 454) or no (as the C daemon).
  --local-domain DOMAIN  Realm of users who name none (default: the host's name).
  --user USER            Who talks to clients when root starts the daemon
                         (default: pysaslauthd, else nobody).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit code (protocols/saslauthd-cli.md section 2)."""
    arguments = sys.argv[1:] if argv is None else argv
    _occupy_standard_descriptors()
    signal.signal(signal.SIGTERM, _leave)  # as pid 1 there is no default action
    # It waits until there is something to reload: the supervisor lets it through.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    terminal = logs.set_up()
    try:
        flags = _parse(arguments)
        if flags is None:
            return 0
        return Daemon(flags.config, flags.values, terminal).start()
    except StartupError as error:
        for line in error.lines:
            log.error("%s", line)
        return error.status
    except KeyboardInterrupt:  # while a detached daemon starts, which goes on
        return INTERRUPTED


def _occupy_standard_descriptors() -> None:
    """Let no socket or lock get the number of a standard stream that was closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        pass
    os.close(descriptor)


def _leave(_number: int, _frame: object) -> None:
    """End a start that has not come to the supervisor yet; what was made is removed."""
    sys.exit(TERMINATED)


def _parse(arguments: Sequence[str]) -> Flags | None:
    """Return the flags, or None where the usage or the version was all that was asked for."""
    flags = Flags()
    options = Options(arguments, SHORT, LONG)
    try:
        for flag, value in options:
            if flag in {"-h", "--help"}:
                _show_usage()
                return None
            if flag in {"-v", "--version"}:
                _show_version()
                return None
            flags.apply(flag, value)
    except UsageError as error:
        print(f"pysaslauthd: {error}", file=sys.stderr)
        _show_usage()
        return None
    except RepeatedMechanism:
        _show_usage()
        return None
    if "mechanism" not in flags.values and flags.config is None:
        log.error("no authentication mechanism specified")
        _show_usage()
        return None
    return flags


def _show_usage() -> None:
    print(USAGE, file=sys.stderr)
    _show_version()


def _show_version() -> None:
    print(
        f"pysaslauthd {__version__}\nauthentication mechanisms: {' '.join(plugins.MECHANISMS)}\n",
        file=sys.stderr,
    )
