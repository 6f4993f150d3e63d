"""The settings of single backends: the tables of the configuration file.

Names are those of the C daemon's files without their prefix (`ldap_servers` is
`servers` in table `ldap`), defaults are the C daemon's; facts: protocols/backends.md.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from pysaslauthd.model import Secret

AbsolutePath = Annotated[str, Meta(pattern="^/")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Connections = Annotated[int, Meta(ge=1, le=10_000)]
Port = Annotated[int, Meta(ge=1, le=0xFFFF)]
Scope = Literal["sub", "one", "base"]


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server's certificate is checked, and what is shown to a server that asks for ours."""

    tls_check_peer: bool = True
    tls_cacert_file: AbsolutePath | None = None
    """Authorities in PEM; unset, with no directory either: the system's."""
    tls_cacert_dir: AbsolutePath | None = None
    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    tls_ciphers: str | None = None
    """For TLS 1.2, as ciphers(1) has them."""
    tls_cert: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    tls_identity: Secret | None = None
    """Certificate and key themselves, in PEM; read from the two files where those are given."""


class Ldap(Tls, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The directory of `-a ldap`."""

    servers: tuple[str, ...] = ("ldap://localhost/",)
    bind_dn: str = ""
    password: Secret | None = None
    auth_method: Literal["bind", "custom", "fastbind"] = "bind"
    search_base: str = ""
    filter: str = "(uid=%u)"
    scope: Scope = "sub"
    password_attr: str = "userPassword"  # noqa: S105 (an attribute's name)
    default_realm: str = ""
    group_dn: str = ""
    group_attr: str = "uniqueMember"
    group_match_method: Literal["attr", "filter"] = "attr"
    group_filter: str = ""
    group_search_base: str = ""
    group_scope: Scope = "sub"
    deref: Literal["never", "search", "find", "always"] = "never"
    size_limit: Annotated[int, Meta(ge=0, le=0x7FFFFFFF)] = 1
    time_limit: Annotated[int, Meta(ge=0, le=0x7FFFFFFF)] = 5
    timeout: Seconds = 5.0
    connections: Connections = 64
    """The most connections to one server on which passwords are checked."""
    start_tls: bool = False
    use_sasl: bool = False
    mech: str = ""
    id: str = ""
    authz_id: str = ""
    realm: str = ""


class Rimap(Tls, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The IMAP server of `-a rimap`."""

    server: str = ""
    timeout: Seconds = 5.0
    connections: Connections = 256


class Kerberos5(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keytab and principals of `-a kerberos5`."""

    keytab: str = ""
    verify_principal: str = "host"
    servername: str = ""
    conv_krb4_instance: bool = False
    uppercase_realm: bool = False
    instances: dict[str, str] = field(default_factory=dict)
    """By service: the instance that its users log in by."""


class Httpform(Tls, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server and the form of `-a httpform`."""

    host: str = "localhost"
    port: Port | None = None
    """Unset: 80, with TLS 443."""
    uri: str = ""
    data: str = ""
    tls: bool = False
    timeout: Seconds = 5.0
    connections: Connections = 64
