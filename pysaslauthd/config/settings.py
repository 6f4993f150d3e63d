"""Every setting of the daemon, its type, its default and its bounds.

Command-line flags and the configuration file fill the same model; flags win.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from pysaslauthd.config.tables import AbsolutePath, Httpform, Kerberos5, Ldap, Rimap, Seconds
from pysaslauthd.model import Deadlines

FieldBytes = Annotated[int, Meta(ge=1, le=0xFFFF)]  # a count on the wire has 16 bits
Count = Annotated[int, Meta(ge=0, le=0x7FFFFFFF)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the daemon is told; names as in the configuration file."""

    mechanism: str
    mechanism_option: str | None = None
    """`-O`: for sasldb the path of the database, for ldap, kerberos5 and httpform that of their
    file in the C daemon's form, for rimap the server."""

    run_directory: AbsolutePath = "/var/run/saslauthd"
    mux: tuple[AbsolutePath, ...] = ()
    """More sockets for the mux protocol, such as one inside Postfix's chroot."""
    dovecot: tuple[Annotated[str, Meta(pattern="^(/|inet:)")], ...] = ()
    """Where Dovecot's auth protocol is spoken: paths, or `inet:ADDRESS:PORT`."""
    dovecot_mechanisms: tuple[str, ...] | None = None
    """SASL mechanisms offered there. Unset: what the backend can complete, but nothing
    that names nobody or depends on certificates."""
    dovecot_secured_only: bool = False
    """Refuse mechanisms that show the password where the mail server does not say `secured`."""
    dovecot_allow: tuple[str, ...] = ()
    """Addresses and networks from which one may ask over TCP; none: this machine only."""
    failure_delay: Annotated[float, Meta(ge=0, le=8)] = 2.0
    """Seconds after a request before a refusal of it leaves there; Postfix gives up after 10."""
    socket_mode: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    """Unset: 0777 where the socket's directory keeps others out, else 0660."""
    socket_group: str | None = None
    socket_owner: str | None = None
    """Unset: who starts the daemon."""

    foreground: bool = False
    verbose: bool = False
    user: str | None = None
    """Who talks to clients when root starts the daemon; unset: pysaslauthd, else nobody."""

    combine_realm: bool = False
    """`-r`: backends without realms get `user@realm`."""
    local_domain: str | None = None
    """The realm of users who name none; unset: the host's name."""

    processes: Count = 0
    """`-n`: the most worker processes. 0: 16, or for backends that hash as many as cores."""
    worker_requests: Count = 1000
    """A worker is replaced after so many requests; 0: never."""
    worker_growth: Annotated[int, Meta(ge=0, le=65536)] = 32
    """A worker is replaced when it has grown by so many megabytes; 0: never."""

    cache: bool = False
    """`-c`: remember good answers of backends that have to ask elsewhere."""
    cache_kilobytes: Annotated[int, Meta(ge=1, le=0x3FFFFF)] | None = None
    """`-s`: the size of the cache; unset: the C daemon's, for 10,266 users."""
    cache_seconds: Annotated[float, Meta(gt=0, le=0xFFFFFFFF)] = 28800.0
    """`-t`: how long a good answer is remembered."""

    find_address: bool = True
    """Look for the client's address where the application does not send it."""

    allow_cleartext: tuple[str, ...] = ()
    """Hosts to which passwords may go unencrypted; to this machine itself they may."""

    on_outage: Literal["tempfail", "no"] = "tempfail"
    deadline: Seconds = 8.0
    """How long a backend may take; Postfix gives up after 10 seconds."""
    service_deadlines: dict[str, Seconds] = field(default_factory=dict)
    """The same for single services, such as one whose users confirm on a telephone."""
    idle_after: Seconds = 10.0
    """How long a client may be silent before its request is complete."""
    login_bytes: FieldBytes = 1024
    password_bytes: FieldBytes = 8192
    service_bytes: FieldBytes = 1024
    realm_bytes: FieldBytes = 1024

    ldap: Ldap | None = None
    rimap: Rimap | None = None
    kerberos5: Kerberos5 | None = None
    httpform: Httpform | None = None
    """Tables of the file; unset, and always where `-O` is given: as the C daemon has it."""

    @property
    def deadlines(self) -> Deadlines:
        """How long a backend may take, by service."""
        return Deadlines(self.deadline, self.service_deadlines)
