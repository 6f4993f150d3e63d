"""What a worker process is: it gives up what it does not need, then answers the front."""

import contextlib
import os
import resource
import socket
import syslog
from collections.abc import Container

from pysaslauthd import logs, privileges
from pysaslauthd.config.settings import Settings
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.workers import child

VERIFIER, ADDRESSES = "verifier", "addresses"  # the kinds
LOOKING = frozenset({privileges.CAP_DAC_READ_SEARCH, privileges.CAP_SYS_PTRACE})
NICE = 5  # who answers from memory goes before who hashes
DESCRIPTORS = 1024  # PAM modules close all that there may be, one by one
MEGABYTE = 1_000_000
FOR_EVER = child.Term(0, 0)


def work(
    settings: Settings, kind: str, end: socket.socket, supervisor: int, doors: Container[str]
) -> None:
    """Be a worker of *kind* until the front lets it go; *supervisor* is our parent's id.

    *doors* are the paths of the sockets on which the front serves.
    """
    os.setsid()  # a terminal's signals are not for us
    logs.reconnect()
    syslog.openlog(logs.IDENT, syslog.LOG_PID, syslog.LOG_AUTH)  # for PAM and its modules
    privileges.close_all_but([end.fileno()])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    privileges.set_name(f"saslauthd-{settings.mechanism.lower() if kind == VERIFIER else kind}")
    if kind == VERIFIER:
        _verify(settings, end, supervisor)
    else:
        _find_addresses(end, supervisor, doors)


def _verify(settings: Settings, end: socket.socket, supervisor: int) -> None:
    mechanism = find_mechanism(settings)
    if mechanism.work is None:
        return
    if mechanism.capabilities is not None:
        privileges.keep_capabilities(mechanism.capabilities)
    os.nice(NICE)
    asked = mechanism.work(settings)

    def answer(question: bytes, descriptors: list[int]) -> bytes:
        privileges.die_with(supervisor)  # again: a module may have changed its user, and lost it
        return asked(question, descriptors)

    privileges.die_with(supervisor)
    term = child.Term(settings.worker_requests, settings.worker_growth * MEGABYTE)
    child.serve(end, answer, term)


def _find_addresses(end: socket.socket, supervisor: int, doors: Container[str]) -> None:
    from pysaslauthd.workers.addresses import AddressFinder

    privileges.keep_capabilities(LOOKING)
    privileges.die_with(supervisor)
    finder = AddressFinder()

    def answer(_question: bytes, descriptors: list[int]) -> bytes:
        with contextlib.ExitStack() as stack:
            try:
                found = [stack.enter_context(socket.socket(fileno=d)) for d in descriptors]
            except OSError:  # no socket
                return b""
            # Of connections that the front has not accepted it is to learn nothing.
            asked = [connection for connection in found if connection.getsockname() in doors]
            return finder.find(asked[0]).encode() if asked else b""

    child.serve(end, answer, FOR_EVER)
