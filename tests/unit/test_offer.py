import ipaddress

import pytest

from pysaslauthd import offer
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.sasl.server import registry

PLACES = ("/a", "inet:127.0.0.1:1", "inet:[::1]:1")


def settings_with(mechanism: str = "sasldb", **values: object) -> Settings:
    return Settings(mechanism=mechanism, **values)  # type: ignore[arg-type]


def chosen(*names: str) -> list[str]:
    return list(offer.choose(settings_with(dovecot_mechanisms=names), registry.usable()))


def test_by_default_whatever_has_a_password_is_offered_strongest_first() -> None:
    assert list(offer.choose(settings_with(), registry.usable())) == [
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "DIGEST-MD5",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]


def test_what_is_named_is_offered_in_that_order_and_in_any_case() -> None:
    assert chosen("plain", "EXTERNAL", "Anonymous", "PLAIN") == ["PLAIN", "EXTERNAL", "ANONYMOUS"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["NONE"], "there is no mechanism NONE"),
        (["SCRAM-SHA-1-PLUS"], "SCRAM-SHA-1-PLUS is bound to TLS"),
        ([], "can complete none of them"),
    ],
    ids=str,
)
def test_a_list_that_makes_no_sense_is_refused(names: list[str], problem: str) -> None:
    with pytest.raises(StartupError, match=problem):
        offer.check(settings_with(dovecot_mechanisms=tuple(names)))


def test_a_backend_without_passwords_cannot_do_what_computes_with_them() -> None:
    with pytest.raises(StartupError, match="the backend pam can complete none of them"):
        offer.check(settings_with("pam", dovecot_mechanisms=("SCRAM-SHA-256", "CRAM-MD5")))


@pytest.mark.parametrize("place", PLACES)
def test_this_machine_may_ask(place: str) -> None:
    offer.check(settings_with(dovecot=(place,)))


@pytest.mark.parametrize("place", ["inet:0.0.0.0:1", "inet:192.0.2.1:1", "inet:[::]:1"])
def test_others_may_ask_when_they_are_named(place: str) -> None:
    offer.check(settings_with(dovecot=(place,), dovecot_allow=("192.0.2.0/24",)))

    with pytest.raises(StartupError, match="whoever reaches it may ask"):
        offer.check(settings_with(dovecot=(*PLACES, place)))


def test_who_may_ask_is_this_machine_or_who_is_named() -> None:
    here = ipaddress.ip_address("127.0.0.1")

    assert any(here in network for network in offer.allowed(settings_with()))
    assert offer.allowed(settings_with(dovecot_allow=("192.0.2.7",))) == [
        ipaddress.ip_network("192.0.2.7/32")
    ]


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(StartupError, match=r"dovecot_allow: .*mail\.example"):
        offer.check(settings_with(dovecot_allow=("mail.example",)))
