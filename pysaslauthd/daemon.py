"""How the daemon comes up and goes down: directory, locks, sockets, detaching; then the supervisor.

The order is the C daemon's (protocols/saslauthd-cli.md section 3), except that
the parent of a detached daemon returns only when the sockets are served.
"""

import contextlib
import logging
import os
import resource
import socket
import stat
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import NoReturn

from pysaslauthd import channel, logs, offer, privileges, rundir, systemd, worker
from pysaslauthd.config.load import load_settings
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins import find_mechanism, most_workers
from pysaslauthd.privileges import MAKE_USER, USER, Identity, find_identity
from pysaslauthd.server.listener import INET, listen, listen_tcp
from pysaslauthd.supervisor import Supervisor

log = logging.getLogger(__name__)

SOCKET = "mux"
CRASHED = STOPPED_TOO_SOON = 1  # exit codes


class Daemon:
    """One instance: its configuration file, the command line's values, its log to the terminal."""

    def __init__(
        self, config: str | None, flags: Mapping[str, object], terminal: logging.Handler
    ) -> None:
        self._config = config
        self._flags = flags
        self._terminal = terminal
        self._settings = self._load_settings()
        # Now, for they are passed to this process and not to one it forks.
        self._listeners = systemd.inherited_listeners()
        self._bound: list[tuple[Path, int]] = []
        self._identity: Identity | None = None

    def _load_settings(self) -> Settings:
        settings = load_settings(self._config, self._flags)
        mechanism = find_mechanism(settings)
        settings = mechanism.configure(settings)
        mechanism.check(settings)
        offer.check(settings)
        channel.encode_reload(settings, 0)  # what cannot be handed to a front is refused here
        return settings

    def _reload_settings(self) -> Settings:
        """Return the settings as they are now, for the front that runs."""
        settings = self._load_settings()
        # By name: looking them up might ask a server that does not answer.
        if _front_needs(settings) != _front_needs(self._settings):
            raise StartupError(
                "the front would need another user or another group for these settings:"
                " restart the daemon"
            )
        logs.set_verbose(verbose=settings.verbose)
        return settings

    def start(self) -> int:
        """Serve in the foreground until stopped, or detach; return the exit code.

        StartupError where it cannot start.
        """
        settings = self._settings
        logs.set_verbose(verbose=settings.verbose)
        self._identity = find_identity(*_front_needs(settings))
        rundir.prepare(settings.run_directory)
        self._show()
        os.umask(0o077)
        _limit_resources()
        lock = rundir.lock_startup(settings.run_directory)
        if not settings.foreground:
            return self._detach(lock)
        try:
            rundir.lock_pid_file(settings.run_directory).release()
            self._serve(_nothing, _nothing)
        finally:
            lock.release()
            log.debug("pid file lock removed: %s", lock.path)
        log.info("master exited: %d", os.getpid())
        return 0

    def _show(self) -> None:
        settings = self._settings
        log.debug("num_procs  : %d", most_workers(settings))
        log.debug("mech_option: %s", settings.mechanism_option or "NULL")
        log.debug("run_path   : %s", settings.run_directory)
        log.debug("auth_mech  : %s", settings.mechanism)
        if os.geteuid() != 0 and find_mechanism(settings).needs_root:
            log.warning(
                "-a %s without root: pam_unix knows the password of user %d only, and calls all"
                " others wrong; start the daemon as root",
                settings.mechanism,
                os.geteuid(),
            )
        if self._identity is not None and settings.user is None and self._identity.name != USER:
            log.warning(
                "there is no user %s: using %s, which other programs may use too; run: %s",
                USER,
                self._identity.name,
                MAKE_USER,
            )

    def _detach(self, startup_lock: rundir.Lock) -> int:
        """Fork; return the child's word on whether it serves."""
        status_end, child_end = os.pipe()
        if os.fork() == 0:
            os.close(status_end)
            startup_lock.forget()
            with open(child_end, "wb", buffering=0) as parent:  # noqa: PTH123 (a descriptor)
                self._become_daemon(parent)
        os.close(child_end)
        try:
            status = int.from_bytes(os.read(status_end, 1) or bytes([CRASHED]), "big")
            if status:
                log.error("Cannot start saslauthd")
            return status
        finally:
            startup_lock.release()

    def _become_daemon(self, parent: FileIO) -> NoReturn:
        """Run detached in this child process; *parent* hears whether it serves."""

        def on_ready() -> None:
            _tell(parent, 0)
            parent.close()
            self._let_go_of_terminal()

        status = CRASHED
        try:
            os.setsid()
            self._serve_with_pid_file(self._let_go_of_terminal, on_ready)
            status = 0
        except StartupError as error:
            status = error.status
            for line in error.lines:
                log.error("%s", line)
        except Exception:
            log.exception("the supervisor failed")
        finally:
            if not parent.closed:
                _tell(parent, status or STOPPED_TOO_SOON)
            os._exit(status)

    def _serve_with_pid_file(
        self, front_on_ready: Callable[[], None], on_ready: Callable[[], None]
    ) -> None:
        pid_file = rundir.lock_pid_file(self._settings.run_directory)
        pid_file.write(f"{os.getpid()}\n")
        try:
            self._serve(front_on_ready, on_ready)
        finally:
            pid_file.release()
            log.debug("pid file removed: %s", pid_file.path)
        log.info("master exited: %d", os.getpid())

    def _let_go_of_terminal(self) -> None:
        """Leave the terminal; until the daemon serves, errors are told there."""
        logs.detach(self._terminal)
        with Path(os.devnull).open("r+b", buffering=0) as null:
            for descriptor in range(3):
                os.dup2(null.fileno(), descriptor)

    def _serve(self, front_on_ready: Callable[[], None], on_ready: Callable[[], None]) -> None:
        """Bind the sockets and supervise until told to stop."""
        supervisor = os.getpid()
        log.info("master pid is: %d", supervisor)

        def run_front(settings: Settings, generation: int, end: socket.socket) -> None:
            from pysaslauthd.app import serve  # what only the front needs

            find_mechanism(settings).preload()
            privileges.set_name("saslauthd-front")
            logs.reconnect()
            privileges.close_all_but(
                [end.fileno(), *(listener.fileno() for listener in self._listeners.all)]
            )
            os.setsid()  # who takes the front over must not reach the terminal of root
            if self._identity is not None:
                privileges.become(self._identity)
            else:
                privileges.keep_capabilities(())
            privileges.die_with(supervisor)
            serve(self._listeners, end, front_on_ready, settings, generation)

        def run_worker(settings: Settings, kind: str, end: socket.socket) -> None:
            if not self._settings.foreground:
                self._let_go_of_terminal()
            doors = {listener.getsockname() for listener in self._listeners.mux}
            worker.work(settings, kind, end, supervisor, doors)

        try:
            self._bind()
            Supervisor(
                self._settings,
                self._reload_settings,
                run_front,
                run_worker,
                front_uid=None if self._identity is None else self._identity.uid,
                on_ready=on_ready,
                on_stop=self._remove_sockets,
            ).run()
        finally:
            self._remove_sockets()

    def _bind(self) -> None:
        """Listen on the run directory's socket, unless systemd passed one, and where told to."""
        settings, listeners = self._settings, self._listeners
        own = [] if listeners.mux else [str(Path(settings.run_directory, SOCKET))]
        for path in (*own, *settings.mux):
            listeners.mux.append(self._listen(path))
        for place in settings.dovecot:
            is_path = not place.startswith(INET)
            listeners.dovecot.append(self._listen(place) if is_path else listen_tcp(place))
            log.info("serving Dovecot's auth protocol at: %s", place)

    def _listen(self, path: str) -> socket.socket:
        settings = self._settings
        mode, group, owner = settings.socket_mode, settings.socket_group, settings.socket_owner
        listener = listen(path, mode, group, owner)
        made = Path(path).lstat()
        self._bound.append((Path(path), made.st_ino))
        log.info("listening on socket: %s", path)
        if made.st_uid == made.st_gid == 0 and not made.st_mode & stat.S_IWOTH:
            log.warning(
                "%s is for root alone: name the mail server's group with --socket-group, or"
                " its user with --socket-owner",
                path,
            )
        return listener

    def _remove_sockets(self) -> None:
        """Remove the sockets that were bound here and are still ours."""
        while self._bound:
            path, inode = self._bound.pop()
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == inode:
                    path.unlink()
                    log.debug("socket removed: %s", path)


def _front_needs(settings: Settings) -> tuple[str | None, tuple[str, ...]]:
    """Return the user whom the front is to be, and the groups it needs."""
    return settings.user, find_mechanism(settings).groups


def _nothing() -> None:
    """Do what has to be done in the foreground when the daemon serves."""


def _tell(parent: FileIO, status: int) -> None:
    """Send *status* to a parent that may have been interrupted."""
    with contextlib.suppress(OSError):
        parent.write(bytes([status]))


def _limit_resources() -> None:
    """Forbid core dumps; allow as many descriptors as there may be."""
    privileges.forbid_dumps()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # the system's own bound has been lowered since
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
