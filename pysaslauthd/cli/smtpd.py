"""pysaslsmtpd: the command line of the submission server."""

import importlib.util
import logging
import sys
from collections.abc import Sequence

from pysaslauthd import __version__, logs, plugins
from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.config.cyrus import Flags, RepeatedMechanism
from pysaslauthd.config.load import load_settings
from pysaslauthd.errors import StartupError
from pysaslauthd.remote.endpoint import split_port
from pysaslauthd.smtp.options import DEFAULT_POLICY, Policy, SecurityOptions, UnknownOption

log = logging.getLogger(__name__)

USAGE_ERROR, CONFIGURATION_ERROR = 64, 78  # sysexits(3)
SUBMISSION, SUBMISSIONS, SMTP = 587, 465, 25

SHORT = "a:chn:O:rVv"
OF_THE_DAEMON = {"allow-cleartext": True, "config": True, "local-domain": True, "user": True}
LONG = {
    **OF_THE_DAEMON,
    "auth-only-with-tls": False,
    "broken-sasl-auth-clients": False,
    "connections": True,
    "help": False,
    "hostname": True,
    "idle-after": True,
    "listen": True,
    "listen-tls": True,
    "mech-list": True,
    "message-size": True,
    "own-senders": False,
    "recipients": True,
    "relay": True,
    "reuse-port": False,
    "security-options": True,
    "tls-cert": True,
    "tls-key": True,
    "tls-security-options": True,
    "version": False,
}
LIMITS = {
    "--connections": "connections",
    "--idle-after": "idle_after",
    "--message-size": "message_bytes",
    "--recipients": "recipients",
}

USAGE = """\
usage: pysaslsmtpd -a BACKEND --listen HOST:PORT [options]

Takes in mail from whoever can log in, and hands it to the mail server behind it.
It stays in the foreground.

  --listen HOST:PORT     Where to listen; repeatable. Port 587 where none is named.
  --listen-tls HOST:PORT The same within TLS from the first byte on. Port 465.
  --relay HOST:PORT      The mail server behind, in the clear: best on this host.
                         Port 25. Without it nobody can hand in anything.
  --reuse-port           Other instances may listen there too: one for each core.
  --hostname NAME        What this server calls itself (default: the host's name).

  -a BACKEND             Who knows the passwords: as for pysaslauthd.
  -O OPTION              The backend's option.
  -r                     Backends without realms get user@realm.
  -c                     Remember good answers of backends that ask elsewhere.
  -n PROCS               The most worker processes.
  --config FILE          Settings of pysaslauthd in TOML, such as the backend's.
  --allow-cleartext HOST Passwords may go unencrypted to this host; repeatable.
  --local-domain DOMAIN  Realm of users who name none; completes their logins.
  --user USER            Who talks to clients when root starts it
                         (default: pysaslauthd, else nobody).

  --mech-list "A B ..."  Offer no mechanisms but these.
  --security-options "WORD, WORD ..."
                         noanonymous (default), noplaintext, noactive, nodictionary,
                         mutual_auth, forward_secrecy.
  --tls-security-options "WORD, WORD ..."
                         The same within TLS (default: as before it).
  --auth-only-with-tls   Nobody logs in before STARTTLS.
  --broken-sasl-auth-clients
                         Offer the mechanisms in a line AUTH= too.
  --tls-cert FILE        Certificate, with those that it needs, in PEM.
  --tls-key FILE         Its key (default: in the same file).

  --own-senders          MAIL's address must be the login.
  --message-size BYTES   The largest message (default: 10240000).
  --recipients NUMBER    The most of one message (default: 100).
  --connections NUMBER   The most at once (default: 200).
  --idle-after SECONDS   The longest silence, and the longest message (default: 300).

  -V                     Log successes and inner workings too.
  -v, --version          Print the version and the backends.
  -h, --help             Print this.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code (sysexits)."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except RepeatedMechanism:
        print("pysaslsmtpd: -a was given twice", file=sys.stderr)
        return USAGE_ERROR
    except UsageError as error:
        print(f"pysaslsmtpd: {error}\nTry 'pysaslsmtpd --help'.", file=sys.stderr)
        return USAGE_ERROR
    except StartupError as error:
        for line in error.lines:
            log.error("%s", line)
        return CONFIGURATION_ERROR


def _run(arguments: Sequence[str]) -> int:
    flags = Flags()
    values: dict[str, list[str]] = {}
    options = Options(arguments, SHORT, LONG)
    for flag, value in options:
        if flag in {"-h", "--help"}:
            print(USAGE, end="")
            return 0
        if flag in {"-v", "--version"}:
            print(f"pysaslsmtpd {__version__}\nbackends: {' '.join(plugins.MECHANISMS)}")
            return 0
        if flag.removeprefix("--") in OF_THE_DAEMON or not flag.startswith("--"):
            flags.apply(flag, value)
        else:
            values.setdefault(flag, []).append(value)
    if options.operands:
        raise UsageError(f"what is {options.operands[0]!r}?")
    logs.set_up()
    _serve(flags, values)
    return 0


def _serve(flags: Flags, values: dict[str, list[str]]) -> None:
    for library in ("aiosmtpd", "aiosmtplib"):
        if importlib.util.find_spec(library) is None:
            raise StartupError(
                f"pysaslsmtpd needs {library}, which is not installed",
                "install it: pip install 'pysaslauthd[smtp]'",
            )
    from pysaslauthd.server.relay import Upstream
    from pysaslauthd.server.submission import Limits
    from pysaslauthd.smtpd import Options as SmtpOptions
    from pysaslauthd.smtpd import SmtpDaemon

    settings = load_settings(flags.config, flags.values)
    relay = _places(values, "--relay", SMTP)
    names = values.get("--mech-list")
    options = SmtpOptions(
        listen=_places(values, "--listen", SUBMISSION),
        listen_tls=_places(values, "--listen-tls", SUBMISSIONS),
        host=_last(values, "--hostname"),
        mechanisms=None if names is None else tuple(names[-1].upper().replace(",", " ").split()),
        policy=_policy(values),
        broken_clients="--broken-sasl-auth-clients" in values,
        tls_cert=_last(values, "--tls-cert"),
        tls_key=_last(values, "--tls-key"),
        upstream=Upstream(*relay[-1]) if relay else None,
        own_senders="--own-senders" in values,
        reuse_port="--reuse-port" in values,
        limits=Limits(**{LIMITS[name]: _number(values, name) for name in LIMITS if name in values}),
    )
    if not options.listen and not options.listen_tls:
        raise UsageError("no --listen HOST:PORT")
    SmtpDaemon(settings, options).run()


def _policy(values: dict[str, list[str]]) -> Policy:
    before = _security(values, "--security-options", DEFAULT_POLICY.before_tls)
    after = _security(values, "--tls-security-options", before)
    return Policy(before, after, only_with_tls="--auth-only-with-tls" in values)


def _security(values: dict[str, list[str]], flag: str, default: SecurityOptions) -> SecurityOptions:
    if flag not in values:
        return default
    try:
        return SecurityOptions.parse(_last(values, flag))
    except UnknownOption as error:
        raise StartupError(f"{flag}: {error}") from None


def _places(values: dict[str, list[str]], flag: str, port: int) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(split_port(value, port) for value in values.get(flag, ()))
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _number(values: dict[str, list[str]], flag: str) -> int:
    text = _last(values, flag)
    if not text.isdecimal() or not int(text):
        raise UsageError(f"{flag} takes a number greater than zero, not {text!r}")
    return int(text)


def _last(values: dict[str, list[str]], flag: str) -> str:
    return values.get(flag, [""])[-1]
