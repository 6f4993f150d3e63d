"""Which principal a request is about: login[/instance][@realm], and what an operator changes.

Facts: protocols/backends.md section 7; differences: docs/differences.md.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pysaslauthd.model import AuthRequest

LONGEST_NAME = 2047  # bytes, as in the C daemon


class NameRules(NamedTuple):
    """How principals are named: the settings of these names without `krb5_`.

    *instances* has, by service, the instance by which its users log in.
    """

    conv_krb4_instance: bool = False
    uppercase_realm: bool = False
    instances: Mapping[str, str] = MappingProxyType({})


class NoPrincipal(Exception):
    """The request can be about nobody."""


def principal_name(request: AuthRequest, rules: NameRules) -> bytes:
    """Return the name of the principal whose password *request* has, as krb5_parse_name takes it.

    What follows an `@` in the login is its realm: `-r` has put it there, or the
    user. With another realm beside it the name has two, and libkrb5 will take it
    for none.
    """
    name, at, own_realm = request.user.partition("@")
    if at and not own_realm:
        raise NoPrincipal
    if rules.conv_krb4_instance:
        name = name.replace(".", "/", 1)
    name = _with_instance(name, rules.instances.get(request.origin.service, ""))
    realms = [realm.encode() for realm in (own_realm, request.realm) if realm]
    if rules.uppercase_realm:
        realms = [realm.upper() for realm in realms]
    whole = b"@".join([name.encode(), *realms])
    if len(whole) > LONGEST_NAME or b"\0" in whole:
        raise NoPrincipal
    # Else it would be an escape, and joe could log in as `j\oe` too: a user has one name.
    return whole.replace(b"\\", b"\\\\")


def _with_instance(name: str, instance: str) -> str:
    _, slash, given = name.partition("/")
    if not instance or (slash and given == instance):
        return name
    if slash:
        raise NoPrincipal
    return f"{name}/{instance}"
