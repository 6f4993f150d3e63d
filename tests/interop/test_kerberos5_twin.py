"""The C daemon's kerberos5 beside ours: one file, one KDC, one keytab, the same questions."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from pysaslauthd.config.settings import Settings
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Origin, Rejected, Secret
from pysaslauthd.plugins import MECHANISMS
from pysaslauthd.workers.child import Answer
from pysaslauthd.workers.frames import decode_answer, encode_question
from tests.helpers.cyrus import Cyrus, cyrus
from tests.helpers.kdc import (
    OTHER_REALM,
    PASSWORD,
    SERVER,
    UTF8_PASSWORD,
    Kdc,
    certifying_kdc,
    error_reply,
    false_kdc,
    kdc,
    needs_kdc,
    scripted_kdc,
)
from tests.helpers.own_log import own_log

pytestmark = [needs_kdc, pytest.mark.interop("saslauthd")]

OK = "OK"
NO_TICKET = "NO krb5_get_init_creds_password failed"
NOT_VERIFIED = "NO krb5_verify_init_creds failed"
INTERNAL_ERROR = "NO saslauthd internal error"
NAME_ERROR = "NO saslauthd principal name error"
OUTAGE = "outage"

PLAIN = f"krb5_servername: {SERVER}\n"
NAMING = PLAIN + "krb5_conv_krb4_instance: yes\nkrb5_imap_instance: mail\n"


class Pair(NamedTuple):
    """A C daemon, and what answers in our workers by the same file.

    Both read *krb5_conf* and *keytab* at each question, so that a test may
    replace them; `mended` puts them back.
    """

    theirs: Cyrus
    ours: Answer
    krb5_conf: Path
    keytab: Path

    def ask(
        self, user: str, password: str | bytes = PASSWORD, realm: str = "", service: str = "imap"
    ) -> tuple[str, str]:
        """Return what the C daemon replies and what ours would."""
        secret = password if isinstance(password, bytes) else password.encode()
        request = AuthRequest(user, Secret(secret), realm, Origin(service), 0.0)
        answer = self.ours(encode_question(request), [])
        theirs = self.theirs.ask(user, secret, realm, service).decode()
        return theirs, as_reply(decode_answer(answer, user, "kerberos5"))


def as_reply(result: AuthResult) -> str:
    match result:
        case Accepted():
            return OK
        case Rejected():
            return f"NO {result.text}"
    return OUTAGE


@contextmanager
def pair(directory: Path, true_kdc: Kdc, file: str, within: Sequence[str] = ()) -> Iterator[Pair]:
    """Run the C daemon by *file* while the block runs, by the command *within* if there is one."""
    directory.mkdir()
    directory.chmod(0o755)
    krb5_conf, keytab = directory / "krb5.conf", directory / "keytab"
    shutil.copy(true_kdc.config, krb5_conf)
    option = directory / "saslauthd.conf"
    option.write_text(f"{file}krb5_keytab: {keytab}\n")
    settings = Settings(mechanism="kerberos5", mechanism_option=str(option))
    mechanism = MECHANISMS["kerberos5"]
    assert mechanism.work is not None
    environment = {**os.environ, "KRB5_CONFIG": str(krb5_conf)}
    flags = ("-O", str(option))
    with cyrus("kerberos5", *flags, environment=environment, within=within) as theirs:
        yield Pair(theirs, mechanism.work(mechanism.configure(settings)), krb5_conf, keytab)


@pytest.fixture(scope="module")
def true_kdc(directory: Path) -> Iterator[Kdc]:
    with kdc(directory / "true") as made:
        yield made


@pytest.fixture(scope="module")
def keytab(true_kdc: Kdc) -> Path:
    return true_kdc.keytab("keytab")


@pytest.fixture(scope="module")
def running_plain(directory: Path, true_kdc: Kdc) -> Iterator[Pair]:
    with pair(directory / "plain", true_kdc, PLAIN) as made:
        yield made


@pytest.fixture(scope="module")
def running_naming(directory: Path, true_kdc: Kdc) -> Iterator[Pair]:
    with pair(directory / "naming", true_kdc, NAMING) as made:
        yield made


@pytest.fixture
def plain(
    running_plain: Pair, true_kdc: Kdc, keytab: Path, monkeypatch: pytest.MonkeyPatch
) -> Pair:
    """The pair as it is when nothing is amiss."""
    return mended(running_plain, true_kdc, keytab, monkeypatch)


@pytest.fixture
def naming(
    running_naming: Pair, true_kdc: Kdc, keytab: Path, monkeypatch: pytest.MonkeyPatch
) -> Pair:
    """One that changes names."""
    return mended(running_naming, true_kdc, keytab, monkeypatch)


def mended(found: Pair, true_kdc: Kdc, keytab: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setenv("KRB5_CONFIG", str(found.krb5_conf))
    shutil.copy(true_kdc.config, found.krb5_conf)
    shutil.copy(keytab, found.keytab)
    return found


@pytest.mark.parametrize(
    ("user", "password", "realm", "reply"),
    [
        pytest.param("joe", PASSWORD, "", OK, id="default-realm"),
        pytest.param("joe", PASSWORD, "r", OK, id="realm"),
        pytest.param("joe@r", PASSWORD, "", OK, id="realm-in-the-login"),
        pytest.param("joe", PASSWORD, OTHER_REALM, OK, id="trusted-realm"),
        pytest.param("joe/mail", PASSWORD, "r", OK, id="instance"),
        pytest.param("ann", UTF8_PASSWORD, "", OK, id="utf8"),
        pytest.param("open", PASSWORD, "", OK, id="without-preauthentication"),
        pytest.param("quick", PASSWORD, "", OK, id="rc4"),
        pytest.param("joe", "wrong", "", NO_TICKET, id="wrong-password"),
        pytest.param("open", "wrong", "", NO_TICKET, id="wrong-without-preauthentication"),
        pytest.param("quick", b"\xff", "", NO_TICKET, id="not-utf8-with-rc4"),
        pytest.param("joe", b"\xff", "", NO_TICKET, id="not-utf8"),
        pytest.param("nobody-here", PASSWORD, "", NO_TICKET, id="unknown"),
        pytest.param("JOE", PASSWORD, "", NO_TICKET, id="upper-case"),
        pytest.param("joe ", PASSWORD, "", NO_TICKET, id="blank"),
        pytest.param("@r", PASSWORD, "", NO_TICKET, id="nobody-of-a-realm"),
        pytest.param("/", PASSWORD, "", NO_TICKET, id="two-empty-parts"),
        pytest.param("aged", PASSWORD, "", NO_TICKET, id="password-expired"),
        pytest.param("fresh", PASSWORD, "", NO_TICKET, id="must-be-changed"),
        pytest.param("gone", PASSWORD, "", NO_TICKET, id="expired"),
        pytest.param("locked", PASSWORD, "", NO_TICKET, id="locked"),
        pytest.param("carded", PASSWORD, "", NO_TICKET, id="needs-more-than-a-password"),
        pytest.param("joe@r", PASSWORD, "r", INTERNAL_ERROR, id="two-realms"),
        pytest.param("joe@r@r", PASSWORD, "", INTERNAL_ERROR, id="two-realms-in-the-login"),
        pytest.param("joe", PASSWORD, "r/x", INTERNAL_ERROR, id="slash-in-the-realm"),
        pytest.param("joe.mail", PASSWORD, "", NO_TICKET, id="dot"),
    ],
)
def test_they_answer_alike(
    plain: Pair, user: str, password: str | bytes, realm: str, reply: str
) -> None:
    assert plain.ask(user, password, realm) == (reply, reply)


@pytest.mark.parametrize(
    ("user", "service", "realm", "reply"),
    [
        pytest.param("joe", "imap", "", OK, id="forced"),
        pytest.param("joe", "imap", "r", OK, id="forced-with-a-realm"),
        pytest.param("joe/mail", "imap", "", OK, id="there-already"),
        pytest.param("joe.mail", "imap", "r", OK, id="there-by-a-dot"),
        pytest.param("joe/other", "imap", "", NAME_ERROR, id="another"),
        pytest.param("joe.other", "imap", "", NAME_ERROR, id="another-by-a-dot"),
        pytest.param("joe/", "imap", "", NAME_ERROR, id="an-empty-one"),
        pytest.param("ann", "imap", "", NO_TICKET, id="forced-on-who-has-none"),
        pytest.param("joe", "smtp", "", OK, id="not-forced"),
        pytest.param("joe.mail", "smtp", "", OK, id="by-a-dot-and-not-forced"),
        pytest.param("joe", "IMAP", "", OK, id="not-forced-in-upper-case"),
    ],
)
def test_they_make_the_same_of_instances(
    naming: Pair, user: str, service: str, realm: str, reply: str
) -> None:
    assert naming.ask(user, PASSWORD, realm, service) == (reply, reply)


@pytest.mark.parametrize(
    ("user", "realm", "theirs", "ours"),
    [
        pytest.param("j\\oe", "", OK, NO_TICKET, id="an-escape"),
        pytest.param("joe\\", "", INTERNAL_ERROR, NO_TICKET, id="half-an-escape"),
        pytest.param("joe@", "", NO_TICKET, NAME_ERROR, id="an-empty-realm"),
        pytest.param("joe", "NOWHERE", NO_TICKET, OUTAGE, id="a-realm-that-nobody-knows"),
        pytest.param("joe", "R", NO_TICKET, OUTAGE, id="a-realm-in-another-case"),
        pytest.param("joe", "DEAD", NO_TICKET, OUTAGE, id="a-realm-without-kdc"),
    ],
)
def test_they_differ_on_purpose_in_names(
    plain: Pair, user: str, realm: str, theirs: str, ours: str
) -> None:
    assert plain.ask(user, PASSWORD, realm) == (theirs, ours)


def test_an_instance_is_forced_before_the_realm_of_a_login_on_purpose(naming: Pair) -> None:
    assert naming.ask("joe@r") == (INTERNAL_ERROR, OK)


def test_a_dot_of_the_realm_in_a_login_is_kept_on_purpose(naming: Pair) -> None:
    theirs, ours = naming.ask("joe@OTHER.EXAMPLE", service="smtp")

    assert (theirs, ours) == (INTERNAL_ERROR, OK)


def test_a_realm_is_written_in_upper_case_on_purpose(
    directory: Path, true_kdc: Kdc, keytab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair(directory / "upper", true_kdc, f"{PLAIN}krb5_uppercase_realm: yes\n") as made:
        mended(made, true_kdc, keytab, monkeypatch)

        assert made.ask("joe", realm="other.example") == (NO_TICKET, OK)


def test_only_a_password_gets_a_ticket_on_purpose(
    directory: Path, lacking: Callable[[str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        certifying_kdc(directory / "certifying", lacking) as certifying,
        pair(directory / "certified", certifying, PLAIN) as made,
    ):
        mended(made, certifying, certifying.keytab("keytab"), monkeypatch)

        assert made.ask("WELLKNOWN/ANONYMOUS", "wrong") == (OK, NO_TICKET)
        assert made.ask(f"host/{SERVER}", "wrong") == (OK, NO_TICKET)  # it is in its certificate
        assert made.ask("joe") == (NO_TICKET, OK)  # who is not


class TestFaults:
    """All of them are outages here, and a NO there."""

    def test_no_keytab(self, plain: Pair) -> None:
        plain.keytab.unlink()

        assert plain.ask("joe") == (NOT_VERIFIED, OUTAGE)

    def test_a_keytab_that_is_none(self, plain: Pair) -> None:
        plain.keytab.write_bytes(b"nonsense")

        assert plain.ask("joe") == (NOT_VERIFIED, OUTAGE)

    def test_another_principals_keytab(self, plain: Pair, true_kdc: Kdc) -> None:
        shutil.copy(true_kdc.keytab("other", "host/other.example"), plain.keytab)

        assert plain.ask("joe") == (NOT_VERIFIED, OUTAGE)

    def test_another_key(self, plain: Pair, tmp_path: Path) -> None:
        with false_kdc(tmp_path / "k") as stranger:
            shutil.copy(stranger.keytab("keytab"), plain.keytab)

            assert plain.ask("joe") == (NOT_VERIFIED, OUTAGE)

    def test_a_false_kdc(self, plain: Pair, tmp_path: Path) -> None:
        with false_kdc(tmp_path / "k") as false:
            false.keytab("of-the-same-version")
            shutil.copy(false.config, plain.krb5_conf)

            assert plain.ask("joe") == (NOT_VERIFIED, OUTAGE)
            assert plain.ask("joe", "wrong") == (NO_TICKET, NO_TICKET)

    def test_a_kdc_that_does_not_run(self, plain: Pair, true_kdc: Kdc) -> None:
        with true_kdc.stopped():
            assert plain.ask("joe") == (NO_TICKET, OUTAGE)

        assert plain.ask("joe") == (OK, OK)

    def test_a_broken_krb5_conf(self, plain: Pair) -> None:
        plain.krb5_conf.write_text("[libdefaults\n")

        assert plain.ask("joe") == (INTERNAL_ERROR, OUTAGE)

    def test_no_default_realm(self, plain: Pair) -> None:
        plain.krb5_conf.write_text("[libdefaults]\n dns_lookup_realm = false\n")

        assert plain.ask("joe") == (INTERNAL_ERROR, OUTAGE)

    @pytest.mark.parametrize("reply", [error_reply(37), error_reply(60), b"nonsense"])
    def test_a_kdc_that_is_no_help(self, plain: Pair, tmp_path: Path, reply: bytes) -> None:
        with scripted_kdc(tmp_path, reply) as config:
            shutil.copy(config, plain.krb5_conf)

            assert plain.ask("joe") == (NO_TICKET, OUTAGE)


@pytest.mark.usefixtures("seen_logs")
def test_they_log_alike(
    directory: Path,
    true_kdc: Kdc,
    keytab: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lacking: Callable[[str], NoReturn],
) -> None:
    users = ["nobody-here", "joe", "open", "aged", "gone", "locked", "carded", "joe@r@r", "joe/x"]
    forced = f"{PLAIN}krb5_imap_instance: mail\n"

    with (
        own_log(lacking) as log,
        pair(directory / "logging", true_kdc, forced, log.within) as made,
    ):
        mended(made, true_kdc, keytab, monkeypatch)
        told = (line for line in log.lines() if "auth_krb5" in line)
        theirs = []
        for user in users:
            made.ask(user, "wrong", service="imap" if "/" in user else "smtp")
            theirs.append(next(told).partition("]: ")[2].rstrip("\n"))

    assert caplog.messages == theirs
