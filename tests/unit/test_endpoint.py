import pytest

from pysaslauthd.remote.endpoint import Endpoint, Security, is_loopback, parse_port, split_port

HERE = ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"]
ELSEWHERE = [
    *("mail.example.org", "localhost.example.org", "127.0.0.1.example.org"),
    *("192.0.2.1", "0.0.0.0", "::", "2001:db8::1", "127.1", ""),  # noqa: S104 (nobody binds)
]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("mail.example.org", "mail.example.org:993"),
        ("192.0.2.1", "192.0.2.1:993"),
        ("2001:db8::1", "[2001:db8::1]:993"),
    ],
)
def test_it_is_shown_as_it_is_written(host: str, shown: str) -> None:
    assert str(Endpoint(host, 993, Security.TLS)) == shown


def test_a_unix_socket_is_shown_as_its_path() -> None:
    assert str(Endpoint("localhost", 0, Security.NONE, "/run/ldapi")) == "/run/ldapi"


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_here_and_private(host: str) -> None:
    endpoint = Endpoint(host, 143, Security.NONE)

    assert endpoint.is_here
    assert endpoint.is_private


def test_a_unix_socket_is_here_and_private() -> None:
    endpoint = Endpoint("mail.example.org", 0, Security.NONE, "/run/ldapi")

    assert endpoint.is_here
    assert endpoint.is_private


@pytest.mark.parametrize("host", ELSEWHERE)
def test_others_are_private_by_tls_only(host: str) -> None:
    privacy = {security: Endpoint(host, 143, security).is_private for security in Security}

    assert not Endpoint(host, 143, Security.TLS).is_here
    assert privacy == {Security.NONE: False, Security.STARTTLS: True, Security.TLS: True}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(("127.0.0.1", True), ("127.255.255.254", True), ("::1", True), ("::1%lo", True)),
        *(("128.0.0.1", False), ("::2", False), ("localhost", False), ("", False)),
    ],
)
def test_what_is_a_loopback_address(address: str, expected: bool) -> None:  # noqa: FBT001 (a row)
    assert is_loopback(address) == expected


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.example.org", "mail.example.org", 143),
        ("mail.example.org:1143", "mail.example.org", 1143),
        ("mail.example.org:", "mail.example.org", 143),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]", "2001:db8::1", 143),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[2001:db8::1]:", "2001:db8::1", 143),
        ("2001:db8::1", "2001:db8::1", 143),
        ("fe80::1%eth0", "fe80::1%eth0", 143),
        ("[fe80::1%eth0]:25", "fe80::1%eth0", 25),
    ],
)
def test_host_and_port_are_split(text: str, host: str, port: int) -> None:
    assert split_port(text, 143) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":143", "[]", "[]:143", "[::1", "[::1]143", "[::1]x", "host:x", "host:0"]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|port"):
        split_port(text, 143)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("65535", 65535), ("00025", 25)])
def test_a_port_is_a_number(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "00000", "65536", "99999", "0065535999", "-1", "+1", "1.0", " 1", "1 ", "1_0"),
        *("imap", "\u0661", "9" * 5000),
    ],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a port"):
        parse_port(text)
