import base64

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.scram import (
    SHA_1,
    SHA_256,
    Scram,
    decode_base64,
    encode_base64,
    escape,
    exclusive_or,
    parse_attributes,
    unescape,
)

# The examples of RFC 5802 section 5 and RFC 7677 section 3, whose password is "pencil".
EXAMPLES = [
    pytest.param(
        SHA_1,
        "QSXCR+Q6sek8bf92",
        "1d96ee3a529b5a5f9e47c01f229a2cb8a6e15f7d",
        "6dlGYMOdZcOPutkcNY8U2g7vK9Y=",
        "D+CSWLOshSulAsxiupA+qs2/fTE=",
        id="rfc-5802",
    ),
    pytest.param(
        SHA_256,
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d",
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        id="rfc-7677",
    ),
]


@pytest.mark.parametrize(("scram", "salt", "salted", "stored_key", "server_key"), EXAMPLES)
def test_the_keys_are_those_of_the_rfcs_examples(
    scram: Scram, salt: str, salted: str, stored_key: str, server_key: str
) -> None:
    salted_password = scram.salted_password(b"pencil", base64.b64decode(salt), 4096)

    client_key = scram.client_key(salted_password)

    assert salted_password.hex() == salted
    assert encode_base64(scram.stored_key(client_key)) == stored_key
    assert encode_base64(scram.server_key(salted_password)) == server_key


def test_a_server_finds_the_client_key_in_a_right_proof() -> None:
    client_key = SHA_1.client_key(b"salted password")
    signature = SHA_1.signature(SHA_1.stored_key(client_key), b"what was said")

    proof = exclusive_or(client_key, signature)

    assert exclusive_or(proof, signature) == client_key


def test_a_message_is_its_attributes_in_order() -> None:
    attributes = parse_attributes("r=a=b,x=é,Y= ,r=2".encode())

    assert attributes == [("r", "a=b"), ("x", "é"), ("Y", " "), ("r", "2")]


def test_a_message_may_have_2048_bytes() -> None:
    assert parse_attributes(b"x=" + b"y" * 2046) == [("x", "y" * 2046)]


@pytest.mark.parametrize(
    ("name", "saslname"),
    [
        pytest.param("user", "user", id="plain"),
        pytest.param("a,b=c", "a=2Cb=3Dc", id="both"),
        pytest.param("=2C", "=3D2C", id="what-looks-escaped"),
        pytest.param("=3D,", "=3D3D=2C", id="what-looks-escaped-and-more"),
        pytest.param("zoë ,", "zoë =2C", id="beyond-ascii"),
    ],
)
def test_a_name_is_escaped_and_found_again(name: str, saslname: str) -> None:
    assert escape(name) == saslname
    assert unescape(saslname) == name


@pytest.mark.parametrize("saslname", ["=", "a=b", "=2c", "=3d", "=2", "=20", "a,b", "==3D"])
def test_a_saslname_with_an_unescaped_character_is_refused(saslname: str) -> None:
    with pytest.raises(MalformedMessage, match="unescaped"):
        unescape(saslname)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("QQ", id="no-padding"),
        pytest.param("QQ=", id="half-a-padding"),
        pytest.param("QQ===", id="too-much-padding"),
        pytest.param("QR==", id="stray-bits"),
        pytest.param("QU=J", id="padding-within"),
        pytest.param("QUJD\n", id="line-feed"),
        pytest.param("QU-_", id="another-alphabet"),
        pytest.param("é", id="beyond-ascii"),
    ],
)
def test_only_the_one_spelling_of_bytes_is_base64(text: str) -> None:
    with pytest.raises(MalformedMessage, match="not base64"):
        decode_base64(text)
