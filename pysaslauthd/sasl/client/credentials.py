"""What a client authenticates with, and what every mechanism demands of it."""

from typing import NamedTuple

from pysaslauthd.model import Secret


class UnusableCredentials(ValueError):
    """A mechanism cannot say these credentials to any server; the text is safe to log."""


class Credentials(NamedTuple):
    """Who authenticates, with what, as whom, and to whom.

    *authcid* and *password*: for all mechanisms but EXTERNAL. *authzid*: whom to
    act as, "" for oneself. *realm*: for DIGEST-MD5; None is the first that the
    server offers. *service* and *host*: the service by its registered name, such
    as `ldap`, and the server; for DIGEST-MD5.
    """

    authcid: str = ""
    password: Secret | None = None
    authzid: str = ""
    realm: str | None = None
    service: str = ""
    host: str = ""


def optional_name(name: str, what: str) -> str:
    """Return *name*, which may be empty, if it is Unicode without control characters."""
    if any(character < " " or character == "\x7f" for character in name):
        raise UnusableCredentials(f"the {what} has a control character")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UnusableCredentials(f"the {what} is not Unicode")
    return name


def required_name(name: str, what: str) -> str:
    """Return *name* if it is Unicode without control characters, and not empty."""
    if not name:
        raise UnusableCredentials(f"there is no {what}")
    return optional_name(name, what)


def no_name(name: str, what: str) -> None:
    """Refuse a *name* that the mechanism has no place for."""
    if name:
        raise UnusableCredentials(f"the mechanism has no place for an {what}")


def password_bytes(credentials: Credentials) -> bytes:
    """Return the password as it was given, if there is one and it is not empty."""
    if credentials.password is None or not credentials.password.reveal():
        raise UnusableCredentials("there is no password")
    return credentials.password.reveal()
