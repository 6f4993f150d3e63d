"""What a worker process is: it gives up what it does not need, then answers the front."""

import logging
import os
import resource
import socket

from pysaslauthd import logs, privileges
from pysaslauthd.config.settings import Settings
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.workers import child

log = logging.getLogger(__name__)

VERIFIER, ADDRESSES = "verifier", "addresses"  # the kinds
LOOKING = frozenset({privileges.CAP_DAC_READ_SEARCH, privileges.CAP_SYS_PTRACE})
NICE = 5  # who answers from memory goes before who hashes
DESCRIPTORS = 1024  # PAM modules close all that there may be, one by one
MEGABYTE = 1_000_000
FOR_EVER = child.Term(0, 0)


def work(settings: Settings, kind: str, end: socket.socket, supervisor: int) -> None:
    """Be a worker of *kind* until the front lets it go; *supervisor* is our parent's id."""
    os.setsid()  # a terminal's signals are not for us
    logs.reconnect()
    privileges.close_all_but([end.fileno()])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    privileges.set_name(f"saslauthd-{settings.mechanism.lower() if kind == VERIFIER else kind}")
    if kind == VERIFIER:
        _verify(settings, end, supervisor)
    else:
        _find_addresses(end, supervisor)


def _verify(settings: Settings, end: socket.socket, supervisor: int) -> None:
    mechanism = find_mechanism(settings)
    if mechanism.work is None:
        return
    if mechanism.capabilities is not None:
        privileges.keep_capabilities(mechanism.capabilities)
    privileges.die_with(supervisor)
    os.nice(NICE)
    verifier = mechanism.work(settings)
    term = child.Term(settings.worker_requests, settings.worker_growth * MEGABYTE)
    child.serve(end, child.checking(verifier.check, settings.mechanism.lower()), term)


def _find_addresses(end: socket.socket, supervisor: int) -> None:
    from pysaslauthd.workers.addresses import AddressFinder

    privileges.keep_capabilities(LOOKING)
    privileges.die_with(supervisor)
    finder = AddressFinder()

    def answer(_question: bytes, descriptors: list[int]) -> bytes:
        (descriptor,) = descriptors
        with socket.socket(fileno=descriptor) as connection:
            return finder.find(connection).encode()

    child.serve(end, answer, FOR_EVER)
