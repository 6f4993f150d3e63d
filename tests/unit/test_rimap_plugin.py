"""`-a rimap`: how its server is named, and what is refused at the start."""

from pathlib import Path

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Rimap
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.plugins.rimap import parse_server
from pysaslauthd.remote.endpoint import Endpoint, Security
from tests.helpers.certificates import Authority
from tests.helpers.workers import serving

NONE, STARTTLS, TLS = Security


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        pytest.param("imap.example.org", Endpoint("imap.example.org", 143, NONE), id="host"),
        pytest.param("imap.example.org/1143", Endpoint("imap.example.org", 1143, NONE), id="port"),
        pytest.param("localhost/imap2", Endpoint("localhost", 143, NONE), id="service"),
        pytest.param("localhost/imaps", Endpoint("localhost", 993, NONE), id="imaps-is-a-port"),
        pytest.param("192.0.2.1/143", Endpoint("192.0.2.1", 143, NONE), id="ipv4"),
        pytest.param("::1", Endpoint("::1", 143, NONE), id="ipv6"),
        pytest.param("::1/1143", Endpoint("::1", 1143, NONE), id="ipv6-port"),
        pytest.param("imap://localhost", Endpoint("localhost", 143, NONE), id="url"),
        pytest.param("imap://localhost:1143", Endpoint("localhost", 1143, NONE), id="url-port"),
        pytest.param("imap://localhost/", Endpoint("localhost", 143, NONE), id="url-slash"),
        pytest.param("imap://localhost:", Endpoint("localhost", 143, NONE), id="url-colon"),
        pytest.param("IMAP://localhost", Endpoint("localhost", 143, NONE), id="url-upper-case"),
        pytest.param("imap://[::1]", Endpoint("::1", 143, NONE), id="url-ipv6"),
        pytest.param("imap://[::1]:1143", Endpoint("::1", 1143, NONE), id="url-ipv6-port"),
        pytest.param("imaps://localhost", Endpoint("localhost", 993, TLS), id="imaps"),
        pytest.param("imaps://localhost:1", Endpoint("localhost", 1, TLS), id="imaps-port"),
        pytest.param("imaps://[2001:db8::1]", Endpoint("2001:db8::1", 993, TLS), id="imaps-ipv6"),
        pytest.param(
            "imap+starttls://localhost", Endpoint("localhost", 143, STARTTLS), id="starttls"
        ),
        pytest.param(
            "imap+starttls://localhost:1", Endpoint("localhost", 1, STARTTLS), id="starttls-port"
        ),
    ],
)
def test_a_server_is_named_as_the_c_daemon_has_it_or_by_a_url(
    text: str, endpoint: Endpoint
) -> None:
    assert parse_server(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("/143", id="no-host"),
        pytest.param("localhost/", id="no-port"),
        pytest.param("localhost/nosuchservice", id="unknown-service"),
        pytest.param("localhost/0", id="port-zero"),
        pytest.param("localhost/99999", id="port-too-high"),
        pytest.param("localhost/143/x", id="two-slashes"),
        pytest.param("localhost:143", id="colon"),
        pytest.param("[::1]/143", id="brackets"),
        pytest.param("a b", id="space"),
        pytest.param("joe@localhost", id="user"),
        pytest.param("http://localhost", id="other-scheme"),
        pytest.param("imap://", id="url-without-host"),
        pytest.param("imap://:143", id="url-with-port-only"),
        pytest.param("imap://localhost:imap", id="url-with-service"),
        pytest.param("imap://localhost/INBOX", id="url-with-path"),
        pytest.param("imap://joe@localhost", id="url-with-user"),
        pytest.param("imap://[localhost", id="url-bracket"),
        pytest.param("imap://[local:host]", id="url-no-address"),
    ],
)
def test_anything_else_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not|no host) "):
        parse_server(text)


def configured(option: str | None = None, table: Rimap | None = None) -> Settings:
    """Return the settings of `-a rimap -O option`, completed."""
    settings = Settings(mechanism="rimap", mechanism_option=option, rimap=table)
    return find_mechanism(settings).configure(settings)


def server_of(settings: Settings) -> str:
    assert settings.rimap is not None
    return settings.rimap.server


def refusal_of(settings: Settings) -> StartupError:
    with pytest.raises(StartupError) as refused:
        find_mechanism(settings).check(settings)
    return refused.value


@pytest.mark.parametrize(
    ("option", "table", "server"),
    [
        pytest.param("localhost/imap2", None, "imap://localhost:143", id="option"),
        pytest.param(None, Rimap(server="imaps://a"), "imaps://a:993", id="table"),
        pytest.param("imaps://b", Rimap(server="imaps://a"), "imaps://b:993", id="option-wins"),
        pytest.param("::1/7", None, "imap://[::1]:7", id="ipv6"),
        pytest.param("imap+starttls://a", None, "imap+starttls://a:143", id="starttls"),
    ],
)
def test_the_server_ends_in_the_table_as_a_url(
    option: str | None, table: Rimap | None, server: str
) -> None:
    assert server_of(configured(option, table)) == server


def test_what_is_completed_stays_as_it_is() -> None:
    settings = configured(None, Rimap(server="imap+starttls://[::1]:7"))

    assert find_mechanism(settings).configure(settings) == settings


def test_the_option_replaces_the_server_and_nothing_else() -> None:
    settings = configured("imaps://b", Rimap(server="imaps://a", timeout=2.5, connections=3))

    assert settings.rimap == Rimap(server="imaps://b:993", timeout=2.5, connections=3)


@pytest.mark.parametrize(
    ("option", "table"), [(None, None), ("", None), (None, Rimap()), ("", Rimap(server="a"))]
)
def test_without_a_server_it_does_not_start(option: str | None, table: Rimap | None) -> None:
    with pytest.raises(StartupError) as refused:
        configured(option, table)

    assert refused.value.lines[0] == "rimap_init: no hostname specified"
    assert "-O imaps://" in refused.value.lines[1]


@pytest.mark.parametrize(
    ("option", "table", "text"),
    [
        ("a:b", None, "-O: not a host: 'a:b'; host/143, or a URL such as imaps://host, is"),
        ("localhost/x", None, "-O: not a port: 'x'"),
        (
            None,
            Rimap(server="a:b"),
            "server in table [rimap]: not a host: 'a:b'; host/143, or a URL such as imaps://host,"
            " is",
        ),
    ],
)
def test_what_names_no_server_is_refused_by_the_setting(
    option: str | None, table: Rimap | None, text: str
) -> None:
    with pytest.raises(StartupError) as refused:
        configured(option, table)

    assert refused.value.lines == (text,)


@pytest.mark.parametrize(
    "option",
    ["localhost", "127.0.0.1/1143", "::1", "imaps://imap.example.org", "imap+starttls://192.0.2.1"],
)
def test_what_nobody_reads_on_the_way_may_start(option: str) -> None:
    settings = configured(option)

    find_mechanism(settings).check(settings)


def test_a_name_that_does_not_resolve_may_start() -> None:
    settings = configured("imaps://nowhere.invalid")

    find_mechanism(settings).check(settings)


@pytest.mark.parametrize(
    ("option", "host"),
    [
        ("imap.example.org", "imap.example.org"),
        ("imap.example.org/993", "imap.example.org"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("imap://192.0.2.1", "192.0.2.1"),
    ],
)
def test_passwords_in_clear_to_elsewhere_are_refused_with_the_cure(option: str, host: str) -> None:
    refusal = refusal_of(configured(option))

    assert refusal.lines[0].startswith("-O: passwords would go unencrypted to ")
    assert f"use imaps://{host} or imap+starttls://{host}" in refusal.lines[1]
    assert "--allow-cleartext" in refusal.lines[1]


def test_the_refusal_names_the_table_where_that_says_so() -> None:
    refusal = refusal_of(configured(None, Rimap(server="imap.example.org")))

    assert refusal.lines[0].startswith("server in table [rimap]: passwords would go")


def test_passwords_in_clear_may_be_allowed() -> None:
    settings = Settings(
        mechanism="rimap", mechanism_option="192.0.2.1", allow_cleartext=("192.0.2.1",)
    )
    mechanism = find_mechanism(settings)

    mechanism.check(mechanism.configure(settings))


@pytest.mark.parametrize("option", ["imaps://localhost", "imap+starttls://localhost"])
def test_what_makes_no_tls_is_refused(option: str) -> None:
    refusal = refusal_of(configured(option, Rimap(tls_cacert_file="/nowhere.pem")))

    assert refusal.lines[0].startswith("rimap: /nowhere.pem: ")


def test_without_tls_its_settings_do_not_matter() -> None:
    settings = configured("localhost", Rimap(tls_cacert_file="/nowhere.pem"))

    find_mechanism(settings).check(settings)


def test_the_own_certificate_is_read_while_root_is_there(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue()
    table = Rimap(
        server="imaps://localhost",
        tls_cert=str(certificate.certificate),
        tls_key=str(certificate.key),
    )

    settings = configured(None, table)
    certificate.key.unlink()

    find_mechanism(settings).check(settings)


@pytest.mark.parametrize("option", ["localhost", "imaps://localhost", "imap+starttls://localhost"])
async def test_it_can_be_made(option: str) -> None:
    settings = configured(option)

    backend = find_mechanism(settings).make(settings, serving())

    await backend.open()
    backend.retire()
    await backend.close()
    assert backend.name == "rimap"


def test_it_has_no_workers_and_needs_no_root() -> None:
    mechanism = find_mechanism(Settings(mechanism="rimap"))

    assert mechanism.work is None
    assert not mechanism.needs_root
    assert mechanism.groups == ()
