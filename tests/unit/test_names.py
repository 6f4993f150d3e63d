import pytest

from pysaslauthd.backends.base import Naming
from pysaslauthd.engine.names import Names
from pysaslauthd.model import AuthRequest, Origin, Secret


def request(user: str, realm: str) -> AuthRequest:
    return AuthRequest(user, Secret(b"pw"), realm, Origin("smtp"), 0.0)


def test_a_backend_without_realms_gets_the_joined_name_under_r() -> None:
    asked = Names(combine=True, default_realm="host").for_backend(
        request("ann", "example.org"), Naming.JOINED
    )

    assert (asked.user, asked.realm) == ("ann@example.org", "")


def test_a_backend_without_realms_gets_the_pair_otherwise() -> None:
    asked = Names(combine=False, default_realm="host").for_backend(
        request("ann", "example.org"), Naming.JOINED
    )

    assert (asked.user, asked.realm) == ("ann", "example.org")


def test_a_backend_that_wants_both_gets_the_realm_beside_the_joined_name() -> None:
    asked = Names(combine=True, default_realm="host").for_backend(
        request("ann", "example.org"), Naming.BOTH
    )

    assert (asked.user, asked.realm) == ("ann@example.org", "example.org")


@pytest.mark.parametrize(
    ("realm", "naming", "asked"),
    [
        pytest.param("evil.example", Naming.JOINED, ("ann@evil.example", ""), id="without-realms"),
        pytest.param("evil.example", Naming.BOTH, ("ann@evil.example", "evil.example"), id="both"),
        pytest.param("evil.example", Naming.PAIR, ("ann", "evil.example"), id="with-realms"),
        pytest.param("Example.org", Naming.JOINED, ("ann", "Example.org"), id="default"),
        pytest.param("", Naming.JOINED, ("ann", ""), id="none"),
    ],
)
def test_a_realm_that_a_client_names_is_not_overlooked(
    realm: str, naming: Naming, asked: tuple[str, str]
) -> None:
    names = Names(combine=False, default_realm="example.org", trusts_realms=False)

    said = names.for_backend(request("ann", realm), naming)

    assert (said.user, said.realm) == asked


def test_an_empty_realm_is_never_joined() -> None:
    asked = Names(combine=True, default_realm="host").for_backend(request("ann", ""), Naming.JOINED)

    assert (asked.user, asked.realm) == ("ann", "")


def test_a_backend_with_realms_keeps_the_pair_under_r() -> None:
    asked = Names(combine=True, default_realm="host").for_backend(
        request("ann", "example.org"), Naming.PAIR
    )

    assert (asked.user, asked.realm) == ("ann", "example.org")


def test_an_empty_realm_becomes_the_default_where_realms_are_kept() -> None:
    asked = Names(combine=False, default_realm="mail.example.org").for_backend(
        request("ann", ""), Naming.PAIR
    )

    assert (asked.user, asked.realm) == ("ann", "mail.example.org")


def test_a_name_with_an_at_sign_is_not_split() -> None:
    asked = Names(combine=False, default_realm="host").for_backend(
        request("ann@example.org", ""), Naming.PAIR
    )

    assert (asked.user, asked.realm) == ("ann@example.org", "host")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("joe", ("joe", "")),
        ("joe@example.com", ("joe", "example.com")),
        ("joe@home@example.com", ("joe@home", "example.com")),
        ("joe@", ("joe@", "")),
        ("@example.com", ("", "example.com")),
    ],
)
def test_a_name_is_split_at_its_last_at_sign(name: str, parts: tuple[str, str]) -> None:
    assert Names(combine=False, default_realm="host").split(name) == parts


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("joe", "joe", True),
        ("joe", "joe@host", True),
        ("joe", "joe@example.com", False),
        ("joe", "JOE", False),
        ("joe", "joe@", False),
    ],
)
def test_two_names_are_of_one_user_if_they_differ_in_the_default_realm_only(
    one: str, other: str, *, same: bool
) -> None:
    assert Names(combine=False, default_realm="host").are_same(one, other) is same
