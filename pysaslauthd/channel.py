"""What supervisor and front say to each other: a handful of words, over a socket pair.

Each word is one packet, so there is nothing to frame; a word is a name, and
for `reload` the new settings.
"""

import socket

import msgspec

from pysaslauthd.config.settings import Settings

LARGEST_PACKET = 65_536  # bytes; settings are far smaller

READY = b"ready"
ALIVE = b"alive"
RELOADED = b"reloaded"
STOP = b"stop"
RELOAD = b"reload "

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
    """Return the word that hands *settings* to the front."""
    return RELOAD + msgspec.json.encode(settings)


def decode_reload(word: bytes) -> Settings:
    """Return the settings that *word* carries."""
    return msgspec.json.decode(word[len(RELOAD) :], type=Settings)
