"""pysaslsmtpd put together: the supervisor's shape with a front that takes in mail.

Whatever backend there is works here as in the daemon, with its workers and what root
must read; the front talks to strangers, and has given up root before it does.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import secrets
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pysaslauthd import channel, logs, offer, privileges, worker
from pysaslauthd.app import build_parts
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.exchange import Exchanges, Parts
from pysaslauthd.errors import StartupError
from pysaslauthd.link import Link, Workers
from pysaslauthd.model import Secret
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.privileges import find_identity
from pysaslauthd.sasl.server import registry
from pysaslauthd.sasl.server.mechanism import ChannelBinding, Mechanism, Need, Surroundings
from pysaslauthd.server.auth import KEY_BYTES, Auth
from pysaslauthd.server.binding import end_point
from pysaslauthd.server.relay import Upstream
from pysaslauthd.server.submission import Limits, Rules
from pysaslauthd.server.submission_door import SubmissionDoor
from pysaslauthd.smtp.banner import Offer
from pysaslauthd.smtp.options import DEFAULT_POLICY, Policy
from pysaslauthd.supervisor import Supervisor
from pysaslauthd.worker import VERIFIER

log = logging.getLogger(__name__)

BACKLOG = 128
STOP_GRACE = 5.0  # seconds for messages that have been begun


class Options(NamedTuple):
    """What the command line says of SMTP; addresses are host and port.

    *mechanisms*: the names of those that may be offered; None for all but -PLUS ones.
    *reuse_port*: other instances may listen at the same places.
    """

    listen: tuple[tuple[str, int], ...] = ()
    listen_tls: tuple[tuple[str, int], ...] = ()
    host: str = ""
    mechanisms: tuple[str, ...] | None = None
    policy: Policy = DEFAULT_POLICY
    broken_clients: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    upstream: Upstream | None = None
    own_senders: bool = False
    reuse_port: bool = False
    limits: Limits = Limits()


class Listener(NamedTuple):
    """A listening socket; *within_tls*: its clients begin with a handshake."""

    socket: socket.socket
    within_tls: bool


class SmtpDaemon:
    """One instance, in the foreground; StartupError where the options are no good."""

    def __init__(self, settings: Settings, options: Options) -> None:
        mechanism = find_mechanism(settings)
        self._settings = mechanism.configure(settings)
        mechanism.check(self._settings)
        self._options = options
        if options.tls_key and not options.tls_cert:
            raise StartupError("--tls-key needs --tls-cert")
        self._context = _tls_context(options)
        if options.listen_tls and self._context is None:
            raise StartupError("--listen-tls needs --tls-cert and --tls-key")
        _check_names(options.mechanisms)
        self._binding = _channel_binding(options)
        self._identity = find_identity(settings.user, mechanism.groups)
        self._listeners: list[Listener] = []

    def run(self) -> None:
        """Serve until told to stop by SIGTERM or SIGINT."""
        logs.set_verbose(verbose=self._settings.verbose)
        # aiosmtpd's own log, of commands and peers: ours has what matters of them.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        privileges.forbid_dumps()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        options = self._options
        if options.upstream is None:
            log.warning("no --relay: whoever logs in is told 451 for every message")
        if options.own_senders and not self._settings.local_domain:
            log.warning(
                "--own-senders without --local-domain: who logs in without a domain has no address"
            )
        for places, within_tls in ((options.listen, False), (options.listen_tls, True)):
            for host, port in places:
                self._listeners += _bind(
                    host, port, within_tls=within_tls, reuse_port=options.reuse_port
                )
        supervisor = os.getpid()

        def run_front(settings: Settings, generation: int, end: socket.socket) -> None:
            self._run_front(settings, generation, end, supervisor)

        def run_worker(settings: Settings, kind: str, end: socket.socket) -> None:
            worker.work(settings, kind, end, supervisor, ())

        Supervisor(
            self._settings,
            _read_again,
            run_front,
            run_worker,
            front_uid=None if self._identity is None else self._identity.uid,
            on_ready=lambda: log.info("serving"),
            on_stop=lambda: None,
        ).run()

    def _run_front(
        self, settings: Settings, generation: int, end: socket.socket, supervisor: int
    ) -> None:
        find_mechanism(settings).preload()
        privileges.set_name("saslsmtpd-front")
        logs.reconnect()
        kept = [end.fileno(), *(listener.socket.fileno() for listener in self._listeners)]
        privileges.close_all_but(kept)
        os.setsid()
        if self._identity is not None:
            privileges.become(self._identity)
        else:
            privileges.keep_capabilities(())
        privileges.die_with(supervisor)
        front = Front(self._options, self._context, self._binding, self._listeners, end)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        # Not asyncio.run: that waits for threads, and one may hang looking up a name.
        loop.run_until_complete(front.run(settings, generation))


class Front:
    """Serves *listeners* until the supervisor says stop, or is gone."""

    def __init__(
        self,
        options: Options,
        context: ssl.SSLContext | None,
        binding: ChannelBinding | None,
        listeners: Sequence[Listener],
        to_supervisor: socket.socket,
    ) -> None:
        self._options = options
        self._context = context
        self._binding = binding
        self._listeners = listeners
        self._channel = to_supervisor
        self._link = Link(to_supervisor)
        self._stopped = asyncio.Event()

    async def run(self, settings: Settings, generation: int) -> None:
        """Open the backend, serve, and leave when the messages that were begun are handed on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._on_word)
        self._beat()
        workers = Workers(self._link, VERIFIER, generation)
        parts = build_parts(settings, workers, None).distrusting_realms()
        backend = parts.authenticator.backend
        try:
            async with asyncio.timeout(settings.deadline):
                await backend.open()
        except TimeoutError:
            log.warning("%s is not ready yet: serving without it", backend.name)
        rules = build_rules(settings, self._options, parts, self._binding)
        for warning in rules.auth.warnings(has_tls=self._context is not None):
            log.warning("%s", warning)
        door = SubmissionDoor(rules, self._context)
        for listener in self._listeners:
            await door.listen(listener.socket, within_tls=listener.within_tls)
        self._link.say(channel.READY)
        gc.freeze()  # what lives as long as the process need not be looked at again
        await self._stopped.wait()
        parts.authenticator.end_delays()
        await door.stop(STOP_GRACE)
        await backend.close()
        loop.remove_reader(self._channel)

    def _on_word(self) -> None:
        word = channel.receive_word(self._channel)
        if word is None:
            return
        if word.text in {b"", channel.STOP}:
            if word.text == b"":
                asyncio.get_running_loop().remove_reader(self._channel)
            self._stopped.set()
        else:
            self._link.on_answer(word)

    def _beat(self) -> None:
        self._link.beat()
        asyncio.get_running_loop().call_later(channel.SECONDS_BETWEEN_HEARTBEATS, self._beat)


def build_rules(
    settings: Settings, options: Options, parts: Parts, binding: ChannelBinding | None
) -> Rules:
    """Return how a submission server serves by these settings and options."""
    exchanges = Exchanges(parts, registry.usable())
    host = options.host or socket.gethostname()
    offered = tuple(one for one in exchanges.mechanisms if _is_wanted(one, options.mechanisms))
    key = Secret(secrets.token_bytes(KEY_BYTES))
    auth = Auth(
        exchanges,
        Offer(offered, options.policy, broken_clients=options.broken_clients),
        Surroundings(host, key, realm=parts.names.default_realm),
        channel_binding=binding,
    )
    realm = settings.local_domain or ""
    return Rules(auth, host, options.upstream, realm, options.own_senders, options.limits)


def _is_of_use(mechanism: Mechanism) -> bool:
    """Say whether who logs in by *mechanism* is known here: neither nameless nor by certificate."""
    return not mechanism.traits.anonymous and mechanism.need is not Need.EXTERNAL_IDENTITY


def _is_wanted(mechanism: Mechanism, names: Sequence[str] | None) -> bool:
    return offer.is_default(mechanism) if names is None else mechanism.name in names


def _check_names(names: Sequence[str] | None) -> None:
    """Raise StartupError where one of *names* is that of no mechanism, or of one with no name."""
    known = [one for one in registry.STRONGEST_FIRST if _is_of_use(one)]
    for name in names or ():
        if not _is_of_use(offer.named("--mech-list", name, known)):
            raise StartupError(f"--mech-list: {name}: whoever hands in mail must have a password")


def _tls_context(options: Options) -> ssl.SSLContext | None:
    """Return what TLS is made of, None where there is none; the key is read now, by root."""
    if not options.tls_cert:
        return None
    certificate, key = options.tls_cert, options.tls_key or options.tls_cert
    _check_pem("--tls-cert", certificate, "certificate")
    _check_pem("--tls-key", key, "private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=partial(_refuse_passphrase, key))
    except OSError as error:  # SSLError is one
        is_foreign = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        why = "the key is not that of the certificate" if is_foreign else str(error)
        raise StartupError(f"--tls-cert {certificate}, --tls-key {key}: {why}") from None
    _warn_of_age(certificate)
    return context


def _refuse_passphrase(key: str) -> str:
    raise StartupError(f"--tls-key {key}: it is encrypted; nobody is here to type its passphrase")


def _warn_of_age(file: str) -> None:
    """Log that the certificate in *file* is not valid now, which clients will say less plainly."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(Path(file).read_bytes())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= datetime.now(UTC) <= end:
        log.warning("--tls-cert %s: it is valid from %s to %s only", file, begin, end)


def _check_pem(flag: str, file: str, what: str) -> None:
    """Raise StartupError where *file* cannot be read, or has no *what*.

    OpenSSL does not say which of the two files it does not like.
    """
    try:
        found = f"{what.upper()}-----".encode() in Path(file).read_bytes()
    except OSError as error:
        raise StartupError(f"{flag} {file}: {error.strerror}") from None
    if not found:
        raise StartupError(f"{flag} {file}: there is no {what} in PEM in it")


def _channel_binding(options: Options) -> ChannelBinding | None:
    """Return what -PLUS mechanisms bind to, None where none is offered."""
    plus = [name for name in options.mechanisms or () if name.endswith("-PLUS")]
    if not plus:
        return None
    if not options.tls_cert:
        raise StartupError(f"--mech-list: {plus[0]} needs TLS: --tls-cert")
    try:
        return end_point(Path(options.tls_cert).read_bytes())
    except (OSError, ValueError) as error:
        raise StartupError(f"--tls-cert {options.tls_cert}, for {plus[0]}: {error}") from None


def _bind(host: str, port: int, *, within_tls: bool, reuse_port: bool) -> list[Listener]:
    """Return sockets that listen at every address of *host*; StartupError where one does not."""
    bound: list[Listener] = []
    try:
        # For all: of the families that this machine has.
        is_all = host == "*"
        name, flags = (None, socket.AI_PASSIVE | socket.AI_ADDRCONFIG) if is_all else (host, 0)
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
        for family, _, _, _, address in found:
            # By its protocol asyncio knows that it may switch Nagle's delay off.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            bound.append(Listener(listener, within_tls))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.settimeout(0)
            log.info("listening on %s port %d", address[0], address[1])
    except OSError as error:
        for one in bound:
            with contextlib.suppress(OSError):
                one.socket.close()
        raise StartupError(f"cannot listen on {host} port {port}: {_advice(error)}") from None
    return bound


def _advice(error: OSError) -> str:
    advice = {
        errno.EACCES: "ports below 1024 are root's to bind",
        errno.EADDRINUSE: "another server has it, which `ss -ltnp` names",
    }
    why = error.strerror or str(error)
    return f"{why} ({advice[error.errno]})" if error.errno in advice else why


def _read_again() -> Settings:
    """Refuse to reload: the front could not read the key again."""
    raise StartupError("pysaslsmtpd takes new settings when it is restarted")
