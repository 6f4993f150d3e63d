"""Every setting of the daemon, its type, its default and its bounds.

Command-line flags and the configuration file fill the same model; flags win.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

FieldBytes = Annotated[int, Meta(ge=1, le=0xFFFF)]  # a count on the wire has 16 bits
AbsolutePath = Annotated[str, Meta(pattern="^/")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the daemon is told; names as in the configuration file."""

    mechanism: str
    mechanism_option: str | None = None
    """`-O`: for sasldb the path of the database."""

    run_directory: AbsolutePath = "/var/run/saslauthd"
    mux: tuple[AbsolutePath, ...] = ()
    """More sockets for the mux protocol, such as one inside Postfix's chroot."""
    socket_mode: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    """Unset: 0777 where the socket's directory keeps others out, else 0660."""
    socket_group: str | None = None

    foreground: bool = False
    verbose: bool = False

    combine_realm: bool = False
    """`-r`: backends without realms get `user@realm`."""
    local_domain: str | None = None
    """The realm of users who name none; unset: the host's name."""
    processes: Annotated[int, Meta(ge=0, le=0x7FFFFFFF)] = 5
    """`-n`: bounds the worker processes of backends that need them; sasldb needs none."""

    on_outage: Literal["tempfail", "no"] = "tempfail"
    deadline: Seconds = 8.0
    """How long a backend may take; Postfix gives up after 10 seconds."""
    idle_after: Seconds = 10.0
    """How long a client may be silent before its request is complete."""
    login_bytes: FieldBytes = 1024
    password_bytes: FieldBytes = 8192
    service_bytes: FieldBytes = 1024
    realm_bytes: FieldBytes = 1024
