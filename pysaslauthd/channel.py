"""What supervisor and front say to each other: a handful of words, over a socket pair.

Each word is one packet, so there is nothing to frame. The front says READY,
ALIVE, RELOADED, and asks for workers to be started and killed; the supervisor
sends workers and new settings, and says STOP; the end of its side means the
same, which is what its death looks like. The supervisor takes the front for a
stranger: what it does not know it does not do.
"""

import base64
import re
import socket
from typing import NamedTuple

import msgspec

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret

LARGEST_PACKET = 65_536  # bytes; settings are far smaller

READY = b"ready"
ALIVE = b"alive"
RELOADED = b"reloaded"  # or not, and the log says why: the reload is over
STOP = b"stop"

SECONDS_BETWEEN_HEARTBEATS = 2.0

START = re.compile(rb"start ([a-z]{1,16}) ([0-9]{1,9}) ([0-9]{1,9})")
KILL = re.compile(rb"kill ([0-9]{1,9})")
WORKER = re.compile(rb"worker ([0-9]{1,9}) ([0-9]{1,9})")
NO_WORKER = re.compile(rb"none ([0-9]{1,9})")
RELOAD = re.compile(rb"reload ([0-9]{1,9}) (\{.*\})", re.DOTALL)


class Word(NamedTuple):
    """A packet and the descriptor that came with it, if any."""

    text: bytes
    descriptor: int | None = None


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends; neither blocks."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(0)
    return ends


def receive(end: socket.socket) -> bytes | None:
    """Return the next word, b"" once the other side is gone, None while there is none.

    Descriptors that a front might send are closed by the kernel: none is taken.
    """
    try:
        return end.recv(LARGEST_PACKET)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def receive_word(end: socket.socket) -> Word | None:
    """Do the same as `receive` for the front, whose words may bring a worker's channel."""
    try:
        text, descriptors, _, _ = socket.recv_fds(end, LARGEST_PACKET, 1)
    except BlockingIOError:
        return None
    except OSError:
        return Word(b"")
    return Word(text, *descriptors)


def ask_start(kind: str, generation: int, wish: int) -> bytes:
    """Return the word that asks for a worker of *kind*, by the settings of *generation*.

    The answer names *wish*, which is the front's to choose.
    """
    return f"start {kind} {generation} {wish}".encode()


def ask_kill(number: int) -> bytes:
    """Return the word that asks for the end of worker *number*."""
    return b"kill %d" % number


def grant(wish: int, number: int) -> bytes:
    """Return the word that grants *wish* by worker *number*; its channel goes with it."""
    return b"worker %d %d" % (wish, number)


def refuse(wish: int) -> bytes:
    """Return the word that says that there is no worker for *wish*."""
    return b"none %d" % wish


def encode_reload(settings: Settings, generation: int) -> bytes:
    """Return the word that tells the front to reload: *settings* themselves.

    StartupError where a value has no form in UTF-8 or 64 bits, or all are too much.
    """
    try:
        word = b"reload %d " % generation + msgspec.json.encode(settings, enc_hook=_encode_secret)
    except (UnicodeEncodeError, OverflowError) as error:
        raise StartupError(f"a setting has a value that cannot be used: {error}") from None
    if len(word) > LARGEST_PACKET:
        raise StartupError(f"the settings are too long: at most {LARGEST_PACKET} bytes in all")
    return word


def decode_settings(text: bytes) -> Settings:
    """Return the settings that a reload carries."""
    return msgspec.json.decode(text, type=Settings, dec_hook=_decode_secret)


def _encode_secret(value: Secret) -> str:
    """Return what stands for a secret, which may be any bytes; no other value has no JSON."""
    return base64.b64encode(value.reveal()).decode()


def _decode_secret(_kind: type, value: str) -> Secret:
    return Secret(base64.b64decode(value))
