"""What a sasldb holds, whichever library wrote it: protocols/sasldb.md section 1."""

Records = dict[bytes, bytes]
"""Raw key (user NUL realm NUL property) to raw value."""

PASSWORD = b"userPassword"
KEY_PARTS = 3


class Damaged(Exception):
    """These bytes are not a whole database of this kind; the text says why and holds no content."""


def key(user: bytes, realm: bytes, prop: bytes = PASSWORD) -> bytes:
    """Return the key under which *prop* of *user* in *realm* is kept."""
    return b"%b\0%b\0%b" % (user, realm, prop)


def split_key(raw: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return user, realm and property; None for a key that is not three parts."""
    parts = raw.split(b"\0")
    return (parts[0], parts[1], parts[2]) if len(parts) == KEY_PARTS else None
