"""What supervisor and front say to each other: a handful of words, over a socket pair.

Each word is one packet, so there is nothing to frame. The front says READY,
ALIVE, RELOADED; the supervisor sends new settings, and says "stop" by closing
its side, which cannot be lost and is also what its death looks like.
"""

import socket

import msgspec

from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError

LARGEST_PACKET = 65_536  # bytes; settings are far smaller

READY = b"ready"
ALIVE = b"alive"
RELOADED = b"reloaded"  # or not, and the log says why: the reload is over

SECONDS_BETWEEN_HEARTBEATS = 2.0


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends; neither blocks."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(0)
    return ends


def receive(end: socket.socket) -> bytes | None:
    """Return the next word, b"" once the other side is gone, None while there is none."""
    try:
        return end.recv(LARGEST_PACKET)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def encode_reload(settings: Settings) -> bytes:
    """Return the word that tells the front to reload: *settings* themselves.

    StartupError where a value has no form in UTF-8 or 64 bits.
    """
    try:
        return msgspec.json.encode(settings)
    except (UnicodeEncodeError, OverflowError) as error:
        raise StartupError(f"a setting has a value that cannot be used: {error}") from None


def decode_reload(word: bytes) -> Settings:
    """Return the settings that *word* carries."""
    return msgspec.json.decode(word, type=Settings)
