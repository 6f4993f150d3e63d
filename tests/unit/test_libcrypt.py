import ctypes
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pysaslauthd.errors import StartupError
from pysaslauthd.passwords import libcrypt
from tests.helpers.accounts import count_hashes

PASSWORD = b"correct horse"
# The MD5 and SHA ones are openssl's, the one of scrypt is hashlib.scrypt's.
KNOWN = {
    "yescrypt": b"$y$j75$abcdefgh$Jakf0CHhzdQOivqISxvBXCIRIaxY0Fs1wJGsJSurry/",
    "gost-yescrypt": b"$gy$j75$abcdefgh$E.8/7w02Y2Ed.Uc2CpVIdgpGTbWIWVYm/SoufLuoKA2",
    "scrypt": b"$7$86..../....abcdefgh$8WgONPMHDGjrIGnOJfRpHLGXQwePeiwwhEANcKR8r3A",
    "bcrypt": b"$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
    "sha512": b"$6$ab.cd/ef$52kN44P6lqdNZPL.yQuNtSEZSVFpD3cyMQZT15zsuEe9GhwV7vryx42F1YEwVcjG"
    b"lZB1vQ.ALx5zEZGxVjQQi.",
    "sha256": b"$5$ab.cd/ef$NkRjWMOJHKd6DyEUCDLTHEDMf8YRVEDBSME1JZ208D6",
    "md5": b"$1$ab.cd/ef$C12xT4.7HgEtmGIMStvqJ1",
    "des": b"abhfCpXqd4GrI",
}
PREFIXES = [b"$y$", b"$gy$", b"$7$", b"$2b$", b"$6$", b"$5$", b"$1$", b"$sha1$", b"_", b""]
ARGON2 = b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAECAwQFBgcICQoLDA0ODw"

each_known = pytest.mark.parametrize("stored", KNOWN.values(), ids=KNOWN)


def made_here(prefix: bytes | None) -> bytes:
    """Return a hash of PASSWORD; salt, cost and, for None, the scheme are libcrypt's choice."""
    shared = ctypes.CDLL("libcrypt.so.1")
    shared.crypt_gensalt_rn.restype = ctypes.c_char_p
    output = ctypes.create_string_buffer(192)
    setting = shared.crypt_gensalt_rn(prefix, ctypes.c_ulong(0), None, 0, output, 192)
    made = libcrypt.crypt(PASSWORD, setting)
    assert made is not None
    return made


@contextmanager
def short_memory() -> Iterator[None]:
    """Let this process take no more than 8 MiB on top; yescrypt's default wants 16."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def anew() -> Iterator[None]:
    """Let libcrypt be loaded anew by the test, and again after it."""
    libcrypt._library.cache_clear()  # noqa: SLF001 (a process loads it once)
    yield
    libcrypt._library.cache_clear()  # noqa: SLF001 (the same)


@each_known
def test_it_accepts_the_password_of_a_known_hash(stored: bytes) -> None:
    assert libcrypt.matches(PASSWORD, stored)


@each_known
@pytest.mark.parametrize("password", [b"", b"correct", b"Correct horse", b"\xff"], ids=repr)
def test_it_refuses_another_password(stored: bytes, password: bytes) -> None:
    assert not libcrypt.matches(password, stored)


@each_known
def test_it_refuses_a_hash_that_is_cut(stored: bytes) -> None:
    assert not libcrypt.matches(PASSWORD, stored[:-1])


@pytest.mark.parametrize("prefix", PREFIXES, ids=repr)
def test_it_accepts_a_hash_with_a_fresh_salt(prefix: bytes) -> None:
    assert libcrypt.matches(PASSWORD, made_here(prefix))


@pytest.mark.interop("openssl")
@pytest.mark.parametrize("scheme", ["-1", "-5", "-6", "-apr1"])
def test_it_agrees_with_openssl_where_it_knows_the_scheme(scheme: str) -> None:
    made = subprocess.run(
        ["openssl", "passwd", scheme, "-stdin"], input=PASSWORD, capture_output=True, check=True
    ).stdout.strip()

    if scheme == "-apr1":
        with pytest.raises(libcrypt.CannotHash):
            libcrypt.matches(PASSWORD, made)
    else:
        assert libcrypt.matches(PASSWORD, made)


@pytest.mark.parametrize(
    "stored", [b"", b"*", b"!", b"!!", b"*NP*", b"!*", b"!" + KNOWN["sha512"]], ids=repr
)
def test_a_locked_account_has_no_password(stored: bytes) -> None:
    assert libcrypt.is_locked(stored)
    assert not libcrypt.matches(PASSWORD, stored)
    assert not libcrypt.matches(stored, stored)


@pytest.mark.parametrize("stored", [b"x", b"xx", b"NP", b"LOCKED", b"$", b"$$", b"$6", b"\xff"])
def test_what_is_no_hash_fits_no_password(stored: bytes) -> None:
    assert not libcrypt.is_locked(stored)
    assert not libcrypt.matches(PASSWORD, stored)
    assert not libcrypt.matches(stored, stored)


def test_a_password_of_the_greatest_length_is_checked() -> None:
    longest = b"p" * libcrypt.LONGEST_PASSWORD
    stored = libcrypt.crypt(longest, b"$6$abc")
    assert stored is not None

    assert libcrypt.matches(longest, stored)
    assert not libcrypt.matches(longest[:-1], stored)


def test_a_longer_password_fits_nothing() -> None:
    assert libcrypt.crypt(b"p" * (libcrypt.LONGEST_PASSWORD + 1), b"$6$abc") is None
    assert not libcrypt.matches(b"p" * (libcrypt.LONGEST_PASSWORD + 1), KNOWN["sha512"])


def test_a_password_is_not_cut_at_a_nul() -> None:
    assert not libcrypt.matches(PASSWORD + b"\0more", KNOWN["sha512"])


@pytest.mark.parametrize(
    ("stored", "scheme"),
    [
        pytest.param(ARGON2, "$argon2id$", id="argon2"),
        pytest.param(b"$md5,rounds=x$abc$secret", "$md5$", id="damaged-parameters"),
        pytest.param(b"$2b$04$secret", "$2b$", id="cut-off"),
        pytest.param(b"$y$!secret", "$y$", id="damaged-salt"),
    ],
)
def test_a_hash_that_cannot_be_checked_is_no_refusal(stored: bytes, scheme: str) -> None:
    with pytest.raises(libcrypt.CannotHash) as raised:
        libcrypt.matches(PASSWORD, stored)

    assert str(raised.value) == f"libcrypt cannot check {scheme} hashes"


def test_want_of_memory_is_no_refusal() -> None:
    stored = made_here(b"$y$")

    with short_memory(), pytest.raises(libcrypt.CannotHash):
        libcrypt.matches(PASSWORD, stored)


@pytest.mark.parametrize(
    ("password", "stored"),
    [
        pytest.param(b"wrong", KNOWN["sha512"], id="wrong-password"),
        pytest.param(PASSWORD, b"", id="empty"),
        pytest.param(PASSWORD, b"!" + KNOWN["sha512"], id="locked"),
        pytest.param(PASSWORD, b"x", id="no-hash"),
        pytest.param(b"p" * 512, KNOWN["sha512"], id="too-long"),
        pytest.param(b"p\0", KNOWN["sha512"], id="nul"),
    ],
)
def test_a_refusal_costs_one_hash(
    monkeypatch: pytest.MonkeyPatch, password: bytes, stored: bytes
) -> None:
    computed = count_hashes(monkeypatch)

    libcrypt.matches(password, stored)

    assert len(computed) == 1


@pytest.mark.parametrize("password", [b"", b"pw", b"p" * 8192, b"p\0w"], ids=len)
def test_a_decoy_costs_one_hash(monkeypatch: pytest.MonkeyPatch, password: bytes) -> None:
    computed = count_hashes(monkeypatch)

    libcrypt.decoy(password)

    assert len(computed) == 1


@pytest.mark.usefixtures("anew")
def test_a_first_decoy_is_of_the_scheme_new_passwords_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = made_here(None)[:3]
    computed = count_hashes(monkeypatch)

    libcrypt.decoy(b"wrong")

    assert [setting[:3] for setting in computed] == [default]


@pytest.mark.usefixtures("anew")
def test_a_decoy_costs_what_the_last_hash_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    libcrypt.matches(PASSWORD, KNOWN["sha512"])
    computed = count_hashes(monkeypatch)

    libcrypt.decoy(b"wrong")

    assert computed == [KNOWN["sha512"]]


@pytest.mark.usefixtures("anew")
def test_it_is_found_by_the_loaders_list_where_both_names_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libcrypt, "SONAMES", ("libnowhere.so.1",))

    assert libcrypt.matches(PASSWORD, KNOWN["sha512"])


@pytest.mark.usefixtures("anew")
def test_a_machine_without_libcrypt_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libcrypt, "SONAMES", ())
    monkeypatch.setattr(libcrypt, "NAME", "nowhere")

    with pytest.raises(StartupError, match=r"cannot load libcrypt[^$]*libcrypt1"):
        libcrypt.load()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(("part", "broken"), [("GENSALT", "nowhere"), ("SETTING_BYTES", 1)])
def test_a_libcrypt_that_makes_no_salts_gets_a_decoy_of_sha512(
    monkeypatch: pytest.MonkeyPatch, part: str, broken: object
) -> None:
    monkeypatch.setattr(libcrypt, part, broken)
    computed = count_hashes(monkeypatch)

    libcrypt.decoy(b"pw")

    assert computed == [libcrypt.SHA512_SETTING]
