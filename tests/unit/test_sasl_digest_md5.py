import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.digest_md5 import (
    Said,
    client_proof,
    hashed_form,
    parse_directives,
    quote,
    secret_hash,
    server_proof,
)

EXAMPLE = {
    "realm": [b"elwood.innosoft.com"],
    "nonce": [b"OA6MG9tEQGm2hh"],
    "qop": [b"auth"],
    "algorithm": [b"md5-sess"],
    "charset": [b"utf-8"],
}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(
            b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",'
            b"algorithm=md5-sess,charset=utf-8",
            id="rfc-2831",
        ),
        pytest.param(
            b'realm="elwood.innosoft.com", nonce="OA6MG9tEQGm2hh", qop="auth", '
            b"algorithm=md5-sess, charset=utf-8",
            id="with-spaces-as-gsasl-has-it",
        ),
        pytest.param(
            b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",'
            b'charset="utf-8",algorithm="md5-sess"',
            id="all-quoted-as-dovecot-has-it",
        ),
        pytest.param(
            b"realm=elwood.innosoft.com,nonce=OA6MG9tEQGm2hh,qop=auth,"
            b"algorithm=md5-sess,charset=utf-8",
            id="all-tokens",
        ),
        pytest.param(
            b'REALM="elwood.innosoft.com",Nonce="OA6MG9tEQGm2hh",qOp="auth",'
            b"ALGORITHM=md5-sess,Charset=utf-8",
            id="keys-in-any-case",
        ),
        pytest.param(
            b' ,,\t, realm = "elwood.innosoft.com" ,nonce\t=\r\n "OA6MG9tEQGm2hh",,\t,'
            b'qop= "auth", algorithm =md5-sess,charset=utf-8 , ,\r\n',
            id="spaces-and-empty-elements",
        ),
        pytest.param(
            rb'realm="\e\lwood.innosoft.com",nonce="OA6MG9tEQGm2h\h",qop="aut\h",'
            rb"algorithm=md5-sess,charset=utf-8",
            id="needless-backslashes",
        ),
    ],
)
def test_directives_are_read_as_clients_and_servers_write_them(message: bytes) -> None:
    assert parse_directives(message, 2048) == EXAMPLE


@pytest.mark.parametrize(
    ("message", "values"),
    [
        pytest.param(b'x=""', [b""], id="empty"),
        pytest.param(rb'x="\"\\"', [b'"\\'], id="escaped"),
        pytest.param(b'x="a,b=c d"', [b"a,b=c d"], id="separators-in-quotes"),
        pytest.param('x="zoë"'.encode(), ["zoë".encode()], id="utf8"),
        pytest.param(b'x="caf\xe9"', [b"caf\xe9"], id="latin-1"),
        pytest.param(b'x="a",X=b,x="a"', [b"a", b"b", b"a"], id="several"),
    ],
)
def test_the_values_of_a_key_are_in_order(message: bytes, values: list[bytes]) -> None:
    assert parse_directives(message, 2048) == {"x": values}


def test_a_message_of_fewer_bytes_than_the_bound_is_read() -> None:
    assert parse_directives(b"x=12", 5) == {"x": [b"12"]}


def test_a_message_of_as_many_bytes_as_the_bound_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="of 5 bytes or more"):
        parse_directives(b"x=123", 5)


def test_a_value_in_quotes_is_found_again() -> None:
    value = b'a "quoted" \\ value, with = and \xe9'

    assert parse_directives(b"x=" + quote(value), 2048) == {"x": [value]}


@pytest.mark.parametrize(
    ("value", "hashed"),
    [
        pytest.param(b"chris", b"chris", id="ascii"),
        pytest.param("zoë".encode(), b"zo\xeb", id="latin-1"),
        pytest.param("ÿ".encode(), b"\xff", id="last-of-latin-1"),
        pytest.param("Ā".encode(), "Ā".encode(), id="first-beyond-latin-1"),
        pytest.param("zoë €".encode(), "zoë €".encode(), id="one-beyond-latin-1"),
        pytest.param(b"caf\xe9", b"caf\xe9", id="no-utf8"),
    ],
)
def test_what_iso_8859_1_has_is_hashed_in_it(value: bytes, hashed: bytes) -> None:
    assert hashed_form(value) == hashed


# The exchanges of RFC 2831 section 4, with what is computed on the way.
EXAMPLES = [
    pytest.param(
        Said(b"OA6MG9tEQGm2hh", b"OA6MHXh6VqTrRk", b"imap/elwood.innosoft.com"),
        b"d388dad90d4bbd760a152321f2143af7",
        b"ea40f60335c427b5527b84dbabcdfffd",
        id="imap",
    ),
    pytest.param(
        Said(b"OA9BSXrbuRhWay", b"OA9BSuZWMSpW8m", b"acap/elwood.innosoft.com"),
        b"6084c6db3fede7352c551284490fd0fc",
        b"2f0b3d7c3c2e486600ef710726aa2eae",
        id="acap",
    ),
]


@pytest.mark.parametrize(("said", "client", "server"), EXAMPLES)
def test_the_proofs_are_those_of_the_rfcs_examples(
    said: Said, client: bytes, server: bytes
) -> None:
    secret = secret_hash(b"chris", b"elwood.innosoft.com", b"secret")

    assert secret.hex() == "eb5a750053e4d2c34aa84bbc9b0b6ee7"
    assert client_proof(secret, said) == client
    assert server_proof(secret, said) == server


def test_an_authzid_changes_the_proofs() -> None:
    said = Said(b"nonce", b"cnonce", b"ldap/host")
    secret = secret_hash(b"joe", b"", b"right")

    for proof in (client_proof, server_proof):
        assert proof(secret, said) != proof(secret, said._replace(authzid=b"boss"))
