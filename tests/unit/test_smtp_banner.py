import pytest

from pysaslauthd.model import Secret
from pysaslauthd.sasl.server.mechanism import (
    ChannelBinding,
    Mechanism,
    Need,
    Surroundings,
    Traits,
)
from pysaslauthd.sasl.server.plain import PLAIN
from pysaslauthd.smtp.banner import Offer, in_order
from pysaslauthd.smtp.options import Policy, SecurityOptions

HERE = Surroundings("mail.test.example", Secret(b"key"))
SCRAM = Mechanism("SCRAM-SHA-256", Need.STORED_PASSWORD, Traits(mutual_auth=True), PLAIN.start)
PLUS = SCRAM._replace(name="SCRAM-SHA-256-PLUS", need=Need.CHANNEL_BINDING)
EXTERNAL = Mechanism("EXTERNAL", Need.EXTERNAL_IDENTITY, Traits(), PLAIN.start)
CRAM = Mechanism("CRAM-MD5", Need.STORED_PASSWORD, Traits(active=True), PLAIN.start)
ALL = (PLUS, SCRAM, CRAM, PLAIN, EXTERNAL)


def options(text: str) -> SecurityOptions:
    return SecurityOptions.parse(text)


def test_what_the_connection_lacks_is_not_offered() -> None:
    assert Offer(ALL).now(HERE, secured=False) == (SCRAM, CRAM, PLAIN)


def test_what_the_connection_has_is_offered() -> None:
    bound = HERE._replace(channel_binding=ChannelBinding("tls-unique", b"x"), external="joe")

    assert Offer(ALL).now(bound, secured=True) == ALL


def test_what_the_policy_forbids_is_not_offered() -> None:
    offer = Offer(ALL, Policy(options("noplaintext"), options("noactive")))

    assert offer.now(HERE, secured=False) == (SCRAM, CRAM)
    assert offer.now(HERE, secured=True) == (SCRAM, PLAIN)


def test_mechanisms_make_one_line() -> None:
    assert Offer(ALL).lines([SCRAM, PLAIN]) == ["AUTH SCRAM-SHA-256 PLAIN"]


def test_broken_clients_get_a_line_of_their_own_after_it() -> None:
    offer = Offer(ALL, broken_clients=True)

    assert offer.lines([SCRAM, PLAIN]) == ["AUTH SCRAM-SHA-256 PLAIN", "AUTH=SCRAM-SHA-256 PLAIN"]


@pytest.mark.parametrize("broken", [True, False])
def test_no_mechanism_makes_no_line(*, broken: bool) -> None:
    assert Offer(ALL, broken_clients=broken).lines([]) == []


def test_the_lines_of_ehlo_are_in_postfixs_order() -> None:
    ours = ["8BITMIME", "HELP", "AUTH PLAIN", "AUTH=PLAIN", "SMTPUTF8", "STARTTLS", "SIZE 1"]

    assert in_order(ours) == [
        *("SIZE 1", "STARTTLS", "AUTH PLAIN", "AUTH=PLAIN", "8BITMIME", "SMTPUTF8", "HELP"),
    ]


@pytest.mark.parametrize(
    ("policy", "has_tls", "beginnings"),
    [
        pytest.param(Policy(), True, [], id="all-is-well"),
        pytest.param(
            Policy(options("forward_secrecy")), True, ["nobody can log in before TLS"], id="before"
        ),
        pytest.param(
            Policy(options("forward_secrecy")), False, ["nobody can log in without"], id="never"
        ),
        pytest.param(
            Policy(after_tls=options("forward_secrecy")),
            True,
            ["nobody can log in within TLS"],
            id="after",
        ),
        pytest.param(
            Policy(after_tls=options("forward_secrecy")), False, [], id="after-what-never-comes"
        ),
        pytest.param(Policy(only_with_tls=True), True, [], id="tls-only"),
        pytest.param(
            Policy(only_with_tls=True), False, ["nobody can log in: AUTH is"], id="tls-missing"
        ),
        pytest.param(
            Policy(options("noplain"), options("noplain")),
            True,
            ["security option noplain"],
            id="alias-once",
        ),
    ],
)
def test_the_start_tells_what_will_not_work(
    *, policy: Policy, has_tls: bool, beginnings: list[str]
) -> None:
    warnings = Offer(ALL, policy).warnings(HERE, HERE if has_tls else None)

    assert len(warnings) == len(beginnings)
    assert all(map(str.startswith, warnings, beginnings))
