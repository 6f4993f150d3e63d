import pickle

import pytest

from pysaslauthd.model import AuthRequest, Origin, Secret


def test_a_secret_never_prints() -> None:
    secret = Secret(b"hunter2")
    request = AuthRequest("joe", secret, "r", Origin("imap"), 0.0)

    printed = f"{secret} {secret!r} {[secret]} {request}"

    assert "hunter2" not in printed


def test_a_secret_matches_the_same_bytes_only() -> None:
    assert Secret(b"pw").matches(b"pw")
    assert not Secret(b"pw").matches(b"pW")
    assert not Secret(b"pw").matches(b"p")
    assert not Secret(b"pw").matches(b"")


def test_secrets_are_equal_when_their_bytes_are() -> None:
    assert Secret(b"pw") == Secret(b"pw")
    assert Secret(b"pw") != Secret(b"other")
    assert Secret(b"pw") != b"pw"


def test_a_secret_cannot_be_a_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret(b"pw"))


def test_a_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(b"pw"))
