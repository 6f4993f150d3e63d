"""Values of userPassword: those that others have made, and those that nobody should have."""

import base64
import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pysaslauthd.errors import CannotCheck
from pysaslauthd.passwords import libcrypt
from pysaslauthd.passwords.schemes import CHECKS, any_fits, fits, rival_library
from tests.helpers.daemon import environment
from tests.helpers.processes import DEADLINE

VECTORS = tomllib.loads((Path(__file__).parents[1] / "vectors/userpassword.toml").read_text())
PASSWORD: bytes = VECTORS["password"].encode()
MADE = {made["by"]: made["value"].encode() for made in VECTORS["made"]}
SSHA = b"{SSHA}48EbGTABFvkICA15liCsBBcpm+TxjqGv"  # of the password `secret`
SHA = b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
PBKDF2 = b"{PBKDF2}10000$OGSnEpmp78Lh0MUnpi3yMQ$pLt6EJqnNUCKfeV4HLb8qFBPyc8"
ARGON2 = (
    b"{ARGON2}$argon2i$v=19$m=64,t=2,p=1"
    b"$Y7c1e0+I60YvMV/YarXxMw$2rSYB1h082iv42eVc8O37AIsFGpzOM0vVYj4+ZP972g"
)
BCRYPT = b"$2b$04$9VAmFTylHlmvWV1bvXKXFelKNDaNJmX9tH2p/g8TIXzejtg9mEn2K"
DES = b"Kxd.1.0KQjBDo"

each_made = pytest.mark.parametrize("value", MADE.values(), ids=MADE)


def fault_of(stored: bytes, password: bytes = b"secret") -> str:
    with pytest.raises(CannotCheck) as caught:
        fits(password, stored)
    return str(caught.value)


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def salted_sha1(salt: bytes) -> bytes:
    return b"{SSHA}" + base64.b64encode(sha1(b"secret" + salt) + salt)


@each_made
def test_a_value_fits_the_password_it_was_made_of(value: bytes) -> None:
    assert fits(PASSWORD, value)


@each_made
@pytest.mark.parametrize(
    "password", [b"", b"secret", PASSWORD[1:], b" " + PASSWORD, PASSWORD.upper()], ids=repr
)
def test_a_value_fits_no_other_password(value: bytes, password: bytes) -> None:
    assert not fits(password, value)


@each_made
def test_no_value_fits_itself(value: bytes) -> None:
    assert not fits(value, value)


@each_made
def test_a_scheme_is_known_in_any_case(value: bytes) -> None:
    scheme, brace, data = value.partition(b"}")

    assert fits(PASSWORD, scheme.lower() + brace + data)
    assert fits(PASSWORD, scheme.title() + brace + data)


def test_every_scheme_has_been_tried() -> None:
    tried = {value[1 : value.index(b"}")] for value in MADE.values()}

    assert set(CHECKS) - tried == {b"CLEARTEXT", b"UNIX", b"BCRYPT"}


@pytest.mark.parametrize("data", [BCRYPT, DES], ids=["bcrypt", "des"])
def test_unix_is_a_hash_of_crypt(data: bytes) -> None:
    assert fits(PASSWORD, b"{UNIX}" + data)
    assert not fits(b"secret", b"{UNIX}" + data)


def test_unix_with_a_users_name_is_a_fault() -> None:
    assert fault_of(b"{UNIX}joe") == "{UNIX}: the value is damaged, or asks too much"


def test_bcrypt_is_bcrypt_by_whatever_name() -> None:
    assert fits(PASSWORD, b"{BCRYPT}" + BCRYPT)
    assert fits(PASSWORD, b"{CRYPT}" + BCRYPT)
    assert not fits(b"secret", b"{BCRYPT}" + BCRYPT)


@pytest.mark.parametrize("data", [DES, b"", b"$6$salt$hash", b"*", BCRYPT[1:]], ids=repr)
def test_bcrypt_is_nothing_else(data: bytes) -> None:
    assert fault_of(b"{BCRYPT}" + data) == "{BCRYPT}: the value is damaged, or asks too much"


def test_bcrypt_looks_at_72_bytes() -> None:
    made = libcrypt.crypt(b"p" * 72, b"$2b$04$abcdefghijklmnopqrstuu")
    assert made is not None
    stored = b"{BCRYPT}" + made

    assert fits(b"p" * 72, stored)
    assert fits(b"p" * 73, stored)
    assert not fits(b"p" * 71, stored)


@pytest.mark.parametrize("data", [b"", b"x", b"*", b"!", b"!" + DES, b"*LK*"], ids=repr)
def test_a_locked_account_has_no_password(data: bytes) -> None:
    assert not fits(b"secret", b"{CRYPT}" + data)
    assert not fits(data, b"{CRYPT}" + data)


class TestClearText:
    @pytest.mark.parametrize("scheme", [b"", b"{CLEARTEXT}", b"{cleartext}", b"{PLAIN}"], ids=repr)
    def test_it_fits_itself_only(self, scheme: bytes) -> None:
        assert fits(b"secret", scheme + b"secret")
        assert not fits(b"secre", scheme + b"secret")
        assert not fits(b"Secret", scheme + b"secret")
        assert not fits(b"", scheme + b"secret")

    @pytest.mark.parametrize("password", [b"\xff\xfe", b" ", b"{}secret", b"{secret", b"a{b}c"])
    def test_it_is_any_bytes(self, password: bytes) -> None:
        assert fits(password, password)

    @pytest.mark.parametrize("stored", [b"", b"{CLEARTEXT}", b"{PLAIN}"], ids=repr)
    def test_an_empty_one_fits_nothing(self, stored: bytes) -> None:
        assert not fits(b"", stored)
        assert not fits(b"secret", stored)


class TestDigests:
    @pytest.mark.parametrize("length", [1, 4, 16, 17, 64])
    def test_a_salt_may_have_any_length(self, length: int) -> None:
        assert fits(b"secret", salted_sha1(b"s" * length))

    def test_white_space_is_skipped_as_openldap_does(self) -> None:
        assert fits(b"secret", b"{SSHA} " + SSHA[6:20] + b"\n" + SSHA[20:] + b"\n")

    def test_a_password_may_be_long(self) -> None:
        digest = base64.b64encode(sha1(b"p" * 65535))

        assert fits(b"p" * 65535, b"{SHA}" + digest)

    @pytest.mark.parametrize(
        "stored",
        [
            pytest.param(salted_sha1(b""), id="no-salt"),
            pytest.param(SSHA.replace(b"SSHA", b"SHA"), id="salt-where-none-belongs"),
            pytest.param(SHA[:-1], id="no-padding"),
            pytest.param(SHA + b"=", id="more-padding"),
            pytest.param(SHA[:-5], id="cut"),
            pytest.param(SHA + b"x", id="more"),
            pytest.param(b"{SHA}", id="nothing"),
            pytest.param(b"{SSHA}", id="nothing-salted"),
            pytest.param(b"{SHA}!" + SHA[6:], id="other-characters"),
            pytest.param(b"{SHA}\xff" + SHA[6:], id="no-ascii"),
            pytest.param(SSHA[:12], id="less-than-a-digest"),
            pytest.param(b"{MD5}" + SHA[5:], id="another-digest"),
        ],
    )
    def test_a_damaged_one_is_a_fault_that_shows_nothing_of_it(self, stored: bytes) -> None:
        scheme = stored[: stored.index(b"}") + 1].decode()

        assert fault_of(stored) == f"{scheme}: the value is damaged, or asks too much"


class TestPasslib:
    @pytest.mark.parametrize(
        "stored",
        [
            *(b"{PBKDF2}", b"{PBKDF2}10000", b"{PBKDF2}10000$OGSnEpmp78Lh0MUnpi3yMQ"),
            *(PBKDF2[:-1], PBKDF2 + b"\n", PBKDF2 + b"\xff", PBKDF2.replace(b"10000", b"0")),
            *(PBKDF2.replace(b"10000", b"x"), PBKDF2.replace(b"10000", b"99999999999")),
            PBKDF2.replace(b"}", b"-SHA256}"),
            *(b"{ARGON2}", b"{ARGON2}x", ARGON2[:-1], ARGON2.replace(b"argon2i", b"argon2x")),
            ARGON2.replace(b"m=64", b"m=4294967295"),
        ],
        ids=repr,
    )
    def test_a_damaged_one_is_a_fault_that_shows_nothing_of_it(self, stored: bytes) -> None:
        scheme = stored[: stored.index(b"}") + 1].decode()

        assert fault_of(stored) == f"{scheme}: the value is damaged, or asks too much"

    @pytest.mark.parametrize("stored", [PBKDF2, ARGON2], ids=["pbkdf2", "argon2"])
    def test_a_password_that_is_too_long_for_it_is_a_fault(self, stored: bytes) -> None:
        assert fault_of(stored, b"p" * 4097).endswith(": so long a password is not checked")

    def test_without_argon2_cffi_its_hashes_are_a_fault(self) -> None:
        script = f"""
import sys
sys.modules["argon2"] = None
from pysaslauthd.passwords.schemes import CannotCheck, fits
try:
    fits(b"secret", {ARGON2!r})
except CannotCheck as fault:
    print(fault)
"""

        assert run(script) == "{ARGON2}: argon2-cffi, which it needs, is not installed\n"

    def test_it_is_imported_when_it_is_needed(self) -> None:
        script = f"""
import sys
from pysaslauthd.passwords.schemes import fits
fits(b"secret", {SSHA!r})
print("passlib" in sys.modules)
fits(b"secret", {PBKDF2!r})
print(*sorted(name for name in sys.modules if name.startswith("passlib.handlers.")))
"""

        assert run(script) == "False\npasslib.handlers.pbkdf2\n"


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
        env=environment(),
    )
    return done.stdout


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b"{SASL}joe@example.org", "{SASL}"),
        (b"{SSHA224}c2VjcmV0", "{SSHA224}"),
        (b"{sha512-crypt}$6$x$y", "{SHA512-CRYPT}"),
        (b"{FOO}secret", "{FOO}"),
        (b"{x} secret", "{X}"),
        (b"{not a name}secret", "a scheme"),
        (b"{\xff}secret", "a scheme"),
        (b"{" + b"x" * 33 + b"}secret", "a scheme"),
    ],
    ids=repr,
)
def test_an_unknown_scheme_is_a_fault_and_no_password(stored: bytes, shown: str) -> None:
    assert fault_of(stored) == f"{shown}: not known here"
    assert fault_of(stored, stored) == f"{shown}: not known here"


def test_a_hash_that_libcrypt_does_not_know_is_a_fault() -> None:
    fault = fault_of(b"{CRYPT}$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$hash")

    assert fault == "{CRYPT}: libcrypt cannot check $argon2id$ hashes"


@pytest.mark.parametrize("scheme", CHECKS, ids=bytes.decode)
def test_no_value_fits_a_password_with_a_nul(scheme: bytes) -> None:
    assert not fits(b"secret\0", b"{" + scheme + b"}secret\0")


class TestSeveralValues:
    @pytest.mark.parametrize("order", [1, -1])
    def test_one_that_fits_is_enough(self, order: int) -> None:
        assert any_fits(b"secret", [b"other", SSHA, b"{FOO}x"][::order])

    def test_none_that_fits_is_a_no(self) -> None:
        assert not any_fits(b"other", [SSHA, SHA, b"secret"])

    def test_none_at_all_is_a_no(self) -> None:
        assert not any_fits(b"secret", [])

    def test_where_none_fits_the_first_fault_counts(self) -> None:
        with pytest.raises(CannotCheck, match=r"\{FOO\}"):
            any_fits(b"other", [SSHA, b"{FOO}x", b"{BAR}x", SHA])


class TestTheRival:
    def test_libpass_alone_is_as_it_should_be(self) -> None:
        assert rival_library() is None

    def test_the_passlib_of_old_is_named_with_the_cure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed = tmp_path / "passlib-1.7.4.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: passlib\nVersion: 1.7.4\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

        assert rival_library() == (
            "passlib 1.7.4 is installed, and takes the place of libpass, its successor:"
            " pip uninstall passlib libpass, then pip install libpass"
        )
