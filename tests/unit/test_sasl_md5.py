import os
import subprocess
import sys
from pathlib import Path

import pytest

from pysaslauthd.sasl.md5 import hmac_md5, md5

ROOT = Path(__file__).parents[2]

# What a host in FIPS mode has, so that OpenSSL hands out approved algorithms only.
FIPS = """
openssl_conf = init
[init]
alg_section = algorithms
[algorithms]
default_properties = fips=yes
"""
FORBIDDEN = """
import hashlib
try:
    hashlib.md5(b"")
except ValueError:
    print("forbidden")
"""
BOTH = """
from pysaslauthd.sasl.md5 import hmac_md5, md5
print(md5(b"abc").hex(), hmac_md5(b"Jefe", b"what do ya want for nothing?").hex())
"""


def test_md5_is_that_of_rfc_1321() -> None:
    assert md5(b"abc").hex() == "900150983cd24fb0d6963f7d28e17f72"


@pytest.mark.parametrize(
    ("key", "message", "digest"),
    [
        (b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
        (b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
        (
            b"\xaa" * 80,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
        ),
    ],
    ids=["1", "2", "6"],
)
def test_hmac_md5_is_that_of_rfc_2202(key: bytes, message: bytes, digest: str) -> None:
    assert hmac_md5(key, message).hex() == digest


def test_both_work_where_md5_is_forbidden(tmp_path: Path) -> None:
    settings = tmp_path / "openssl.cnf"
    settings.write_text(FIPS)

    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN + BOTH],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
        cwd=ROOT,
        env={**os.environ, "OPENSSL_CONF": str(settings)},
    )

    assert done.stdout.split() == [
        "forbidden",
        "900150983cd24fb0d6963f7d28e17f72",
        "750c783e6ab0b503eaa86e310a5db738",
    ], done.stderr
