"""What must hold for any password and any value whatever."""

import base64
import hashlib

from hypothesis import example, given
from hypothesis import strategies as st

from pysaslauthd.errors import CannotCheck
from pysaslauthd.model import Accepted, Rejected, Unavailable
from pysaslauthd.passwords.schemes import CHECKS, any_fits, fits
from pysaslauthd.workers.frames import decode_answer, encode
from pysaslauthd.workers.hashes import checking_hashes

DIGESTS = {
    *(("MD5", "md5"), ("SHA", "sha1"), ("SHA256", "sha256"), ("SHA384", "sha384")),
    ("SHA512", "sha512"),
}

passwords = st.binary(max_size=40).filter(lambda password: b"\0" not in password)
# Random bytes hardly ever are a value: most have a scheme that is known.
schemes = st.sampled_from(sorted(CHECKS)) | st.binary(min_size=1, max_size=9)
datas = st.binary(max_size=40) | st.binary(max_size=80).map(base64.b64encode)
values = datas | st.builds(lambda scheme, data: b"{" + scheme + b"}" + data, schemes, datas)
packets = st.binary(max_size=100) | st.lists(st.binary(max_size=9), max_size=20).map(encode)


def attempt(password: bytes, stored: bytes) -> bool | str:
    """Return whether it fits, or what is said of why nobody knows."""
    try:
        return fits(password, stored)
    except CannotCheck as fault:
        return str(fault)


@given(passwords, st.sampled_from(sorted(DIGESTS)), st.binary(max_size=40), passwords)
def test_a_digest_fits_the_password_it_is_of_and_no_other(
    password: bytes, digest: tuple[str, str], salt: bytes, other: bytes
) -> None:
    scheme, name = digest
    raw = hashlib.new(name, password + salt).digest() + salt
    shown = f"{{{'S' if salt else ''}{scheme}}}".encode()
    stored = shown + base64.b64encode(raw)

    assert fits(password, stored)
    assert fits(other, stored) == (other == password)


@given(passwords, values)
@example(b"secret", b"{crypt}$6$rounds=x$abc$def")
@example(b"secret", b"{PBKDF2}1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAA")
def test_there_is_an_answer_or_a_fault_and_nothing_else(password: bytes, stored: bytes) -> None:
    attempt(password, stored)


@given(schemes, st.text("0123456789+/=", min_size=8, max_size=40))
def test_a_fault_shows_nothing_of_the_value(scheme: bytes, data: str) -> None:
    said = attempt(b"secret", b"{" + scheme + b"}" + data.encode())

    assert data not in str(said)


@given(values)
def test_what_has_a_scheme_that_hashes_does_not_fit_itself(stored: bytes) -> None:
    has_scheme = stored.startswith(b"{") and stored.find(b"}") > 1

    assert not has_scheme or attempt(stored, stored) is not True


@given(passwords, st.lists(values, max_size=4))
def test_several_values_fit_as_one_of_them_does(password: bytes, stored: list[bytes]) -> None:
    alone = [attempt(password, value) for value in stored]
    try:
        together: bool | str = any_fits(password, stored)
    except CannotCheck as fault:
        together = str(fault)

    faults = [said for said in alone if isinstance(said, str)]
    assert together == (True in alone or (faults[0] if faults else False))


@given(packets)
def test_a_worker_answers_any_question_with_a_verdict(packet: bytes) -> None:
    answer = checking_hashes(lambda password, values: password in values, "ldap")(packet, [])

    assert isinstance(decode_answer(answer, "", "ldap"), Accepted | Rejected | Unavailable)
