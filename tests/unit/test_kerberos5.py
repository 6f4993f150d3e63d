"""The kerberos5 backend as it runs in a worker, with real KDCs, false ones and broken ones."""

import ctypes
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from pysaslauthd.backends.kerberos5 import libkrb5, verifier
from pysaslauthd.backends.kerberos5.principals import NameRules
from pysaslauthd.backends.kerberos5.verifier import Kerberos5, Rules, check_prerequisites
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthRequest, AuthResult, Reason, Rejected, Unavailable
from tests.contract.verifier import request_for
from tests.helpers.kdc import (
    PASSWORD,
    SERVER,
    UTF8_PASSWORD,
    Kdc,
    error_reply,
    false_kdc,
    kdc,
    needs_kdc,
    scripted_kdc,
)
from tests.helpers.processes import short_directory
from tests.helpers.stores import as_nobody, only_root
from tests.helpers.workers import count_descriptors

pytestmark = needs_kdc

CALLS = 300  # of each kind
BYTES_PER_CALL = 32  # the least that malloc gives out
TRIES = 5


class Place(NamedTuple):
    """A KDC and the keytab by which it is known."""

    kdc: Kdc
    keytab: Path

    def rules(self, **others: object) -> Rules:
        return Rules(str(self.keytab), servername=SERVER)._replace(**others)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with short_directory("sd-") as directory, kdc(directory / "k") as made:
        yield Place(made, made.keytab("keytab"))


@pytest.fixture(scope="module")
def former(place: Place) -> Path:
    """The keys that another server had before."""
    return place.kdc.keytab("former", "host/other.example")


@pytest.fixture(scope="module")
def other(former: Path, place: Place) -> Path:
    """The keys that it has now."""
    assert former.exists()
    return place.kdc.keytab("other", "host/other.example")


@pytest.fixture
def realm(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The KDC whose client this process is."""
    monkeypatch.setenv("KRB5_CONFIG", str(place.kdc.config))
    return place


def asked(
    rules: Rules, user: str = "joe", password: str = PASSWORD, realm: str = "r"
) -> AuthResult:
    return Kerberos5(rules).check(request_for(user, password.encode(), realm))


def rejected(reason: Reason) -> Rejected:
    return Rejected(reason, "kerberos5", "krb5_get_init_creds_password failed")


class TestAnswers:
    @pytest.mark.parametrize(
        ("user", "password", "given_realm"),
        [
            pytest.param("joe", PASSWORD, "", id="of-the-default-realm"),
            pytest.param("joe", PASSWORD, "r", id="of-its-realm"),
            pytest.param("joe@r", PASSWORD, "", id="with-its-realm"),
            pytest.param("joe/mail", PASSWORD, "r", id="with-an-instance"),
            pytest.param("joe", PASSWORD, "OTHER.EXAMPLE", id="of-a-realm-that-is-trusted"),
            pytest.param("ann", UTF8_PASSWORD, "r", id="password-in-utf8"),
            pytest.param("open", PASSWORD, "r", id="without-preauthentication"),
            pytest.param("quick", PASSWORD, "r", id="with-rc4"),
        ],
    )
    def test_a_right_password_is_accepted(
        self, realm: Place, user: str, password: str, given_realm: str
    ) -> None:
        assert asked(realm.rules(), user, password, given_realm) == Accepted(user, "kerberos5")

    @pytest.mark.parametrize("user", ["joe", "open", "quick"])
    @pytest.mark.parametrize(
        "password", [b"wrong", b"p", b"pw ", b"", b"\xff", b"p" * 8192, b"pw\0", b"pw\0x"]
    )
    def test_a_wrong_password_is_refused(self, realm: Place, user: str, password: bytes) -> None:
        result = Kerberos5(realm.rules()).check(request_for(user, password))

        assert result == rejected(Reason.WRONG_PASSWORD)

    @pytest.mark.parametrize(
        ("user", "reason"),
        [
            ("nobody-here", Reason.NO_SUCH_USER),
            ("JOE", Reason.NO_SUCH_USER),
            ("joe/other", Reason.NO_SUCH_USER),
            ("j\\oe", Reason.NO_SUCH_USER),
            ("@r", Reason.NO_SUCH_USER),
            ("aged", Reason.PASSWORD_EXPIRED),
            ("fresh", Reason.PASSWORD_EXPIRED),
            ("gone", Reason.ACCOUNT_EXPIRED),
            ("locked", Reason.ACCOUNT_LOCKED),
            ("carded", Reason.DENIED),
        ],
    )
    def test_whoever_may_not_log_in_is_refused(
        self, realm: Place, user: str, reason: Reason
    ) -> None:
        assert asked(realm.rules(), user, realm="") == rejected(reason)

    @pytest.mark.parametrize(
        ("user", "given_realm", "text"),
        [
            ("joe@r", "r", "saslauthd internal error"),
            ("joe@r@r", "", "saslauthd internal error"),
            ("joe", "r@r", "saslauthd internal error"),
            ("joe", "r/x", "saslauthd internal error"),
            ("joe@", "", "saslauthd principal name error"),
            ("joe/other", "r", "saslauthd principal name error"),
        ],
    )
    def test_a_name_that_is_none_is_refused(
        self, realm: Place, user: str, given_realm: str, text: str
    ) -> None:
        rules = realm.rules(names=NameRules(instances={"imap": "mail"}))

        result = asked(rules, user, realm=given_realm)

        assert result == Rejected(Reason.NO_SUCH_USER, "kerberos5", text)

    def test_users_of_a_service_are_asked_about_by_its_instance(self, realm: Place) -> None:
        rules = realm.rules(names=NameRules(instances={"imap": "mail"}))

        assert isinstance(asked(rules, "joe"), Accepted)
        assert asked(rules, "ann") == rejected(Reason.NO_SUCH_USER)

    def test_a_realm_may_be_spelt_in_lower_case_where_that_is_wanted(self, realm: Place) -> None:
        upper = realm.rules(names=NameRules(uppercase_realm=True))

        assert isinstance(asked(upper, "eve", realm="other.example"), Accepted)
        assert isinstance(asked(realm.rules(), "eve", realm="other.example"), Unavailable)


class TestUnknownUsers:
    @pytest.fixture
    def takes(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Return what says how many milliseconds the next requests take."""

        def say(*milliseconds: int) -> None:
            moments = iter([moment / 1000 for end in milliseconds for moment in (0, end)])
            clock = SimpleNamespace(monotonic=lambda: next(moments))
            monkeypatch.setattr(verifier, "time", clock)

        return say

    def test_they_are_held_for_as_long_as_a_wrong_password_takes(
        self, realm: Place, takes: Callable[..., None]
    ) -> None:
        subject = Kerberos5(realm.rules())
        takes(20, 30, 5)

        subject.check(request_for("joe", b"pw"))
        subject.check(request_for("joe", b"wrong"))
        result = subject.check(request_for("nobody-here", b"pw"))

        assert result == rejected(Reason.NO_SUCH_USER)._replace(delay=0.025)

    def test_before_there_was_one_the_first_yes_is_the_measure(
        self, realm: Place, takes: Callable[..., None]
    ) -> None:
        subject = Kerberos5(realm.rules())
        takes(20, 5)

        subject.check(request_for("joe", b"pw"))
        result = subject.check(request_for("locked", b"pw"))

        assert result == rejected(Reason.ACCOUNT_LOCKED)._replace(delay=0.015)

    def test_who_is_later_than_that_is_not_held(
        self, realm: Place, takes: Callable[..., None]
    ) -> None:
        subject = Kerberos5(realm.rules())
        takes(20, 30)

        subject.check(request_for("joe", b"wrong"))
        result = subject.check(request_for("nobody-here", b"pw"))

        assert result == rejected(Reason.NO_SUCH_USER)

    def test_a_wrong_password_is_not_held(self, realm: Place) -> None:
        subject = Kerberos5(realm.rules())

        results = [subject.check(request_for(user, b"wrong")) for user in ("joe", "quick", "joe")]

        assert results == [rejected(Reason.WRONG_PASSWORD)] * 3


class TestKeytabs:
    def test_one_that_is_missing_is_an_outage(self, realm: Place) -> None:
        result = asked(realm.rules(keytab="/nonexistent/keytab"))

        assert isinstance(result, Unavailable)
        assert result.detail == (
            "krb5_verify_init_creds: Key table file '/nonexistent/keytab' not found (2);"
            " make FILE:/nonexistent/keytab: kadmin ktadd"
        )

    def test_one_that_is_none_is_an_outage(self, realm: Place, tmp_path: Path) -> None:
        (tmp_path / "keytab").write_bytes(b"nonsense")

        result = asked(realm.rules(keytab=str(tmp_path / "keytab")))

        assert result == Unavailable(
            "krb5_verify_init_creds: Unsupported key table format version number (-1765328171);"
            f" see FILE:{tmp_path}/keytab",
            "kerberos5",
        )

    def test_the_systems_is_used_where_none_is_named(
        self, realm: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KRB5_KTNAME", str(realm.keytab))

        assert isinstance(asked(realm.rules(keytab="")), Accepted)

    def test_one_of_an_unknown_kind_is_an_outage(self, realm: Place) -> None:
        result = asked(realm.rules(keytab="BAD:x"))

        assert result == Unavailable(
            "krb5_kt_resolve: Unknown Key table type (-1765328204)", "kerberos5"
        )

    def test_one_without_the_servers_key_is_an_outage(self, realm: Place, other: Path) -> None:
        result = asked(realm.rules(keytab=str(other)))

        assert isinstance(result, Unavailable)
        assert "No key table entry found for host/mail.example@r" in result.detail
        assert f"add it to FILE:{other} (kadmin ktadd)" in result.detail

    def test_another_key_serves_where_it_is_named(self, realm: Place, other: Path) -> None:
        assert isinstance(
            asked(realm.rules(keytab=str(other), servername="other.example")), Accepted
        )

    def test_this_machines_name_is_taken_where_none_is(self, realm: Place) -> None:
        result = asked(realm.rules(servername="", verify_principal="imap"))

        assert isinstance(result, Unavailable)
        assert f"imap/{os.uname().nodename.lower()}" in result.detail

    @pytest.mark.usefixtures("other")
    def test_keys_that_were_changed_since_are_an_outage(self, realm: Place, former: Path) -> None:
        result = asked(realm.rules(keytab=str(former), servername="other.example"))

        assert isinstance(result, Unavailable)
        assert f"the key in FILE:{former} is not the present one" in result.detail

    @only_root
    def test_one_that_may_not_be_read_is_an_outage(self, realm: Place) -> None:
        realm.keytab.chmod(0o600)

        with as_nobody():
            result = asked(realm.rules())

        assert isinstance(result, Unavailable)
        assert result.detail == (
            "krb5_verify_init_creds: Permission denied (13);"
            f" root must be able to read FILE:{realm.keytab}"
        )


class TestFalseKdc:
    @pytest.fixture
    def false(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kdc]:
        """A KDC that says it is the place's, and that this process reaches."""
        with false_kdc(tmp_path / "k") as made:
            monkeypatch.setenv("KRB5_CONFIG", str(made.config))
            yield made

    def test_it_calls_joes_password_right(self, place: Place, false: Kdc) -> None:
        own = false.keytab("own")

        assert isinstance(asked(place.rules(keytab=str(own))), Accepted)

    def test_it_is_unmasked_by_the_key(self, place: Place, false: Kdc) -> None:
        false.keytab("of-the-same-version")

        result = asked(place.rules())

        assert isinstance(result, Unavailable)
        assert "Cannot decrypt ticket for host/mail.example@r" in result.detail
        assert result.detail.endswith("or this KDC is a false one")

    def test_it_is_unmasked_by_the_keys_version(self, place: Place, false: Kdc) -> None:
        false.keytab("of-the-same-version")
        false.keytab("of-the-next")

        result = asked(place.rules())

        assert isinstance(result, Unavailable)
        assert "Cannot find key for host/mail.example@r kvno 3" in result.detail
        assert result.detail.endswith("or this KDC is a false one")

    def test_it_is_unmasked_where_it_does_not_know_the_server(
        self, place: Place, false: Kdc
    ) -> None:
        place.kdc.administer("r", "addprinc -randkey host/third.example")
        keytab = place.kdc.keytab("third", "host/third.example")

        result = asked(place.rules(keytab=str(keytab), servername="third.example"))

        assert isinstance(result, Unavailable)
        assert "Server host/third.example@r not found" in result.detail
        assert result.detail.endswith("or this KDC is a false one")


class TestFaults:
    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The krb5.conf of this process, which is not there yet."""
        monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
        return tmp_path / "krb5.conf"

    def test_a_kdc_that_does_not_run_is_an_outage_until_it_does(self, realm: Place) -> None:
        subject = Kerberos5(realm.rules())

        with realm.kdc.stopped():
            result = subject.check(request_for("joe", b"pw"))

        assert result == Unavailable(
            "krb5_get_init_creds_password: Cannot contact any KDC for realm 'r' (-1765328228);"
            " see section realms of krb5.conf, and whether a KDC runs there",
            "kerberos5",
        )
        assert isinstance(subject.check(request_for("joe", b"pw")), Accepted)

    def test_a_realm_that_nobody_knows_is_an_outage(self, realm: Place) -> None:
        result = asked(realm.rules(), realm="NOWHERE")

        assert isinstance(result, Unavailable)
        assert result.detail.endswith(
            "(-1765328230); name its KDC in section realms of krb5.conf; is it in capitals there?"
        )

    def test_a_krb5_conf_without_default_realm_is_an_outage(self, config: Path) -> None:
        config.write_text("[libdefaults]\n dns_lookup_realm = false\n")

        result = asked(Rules(), realm="")

        assert isinstance(result, Unavailable)
        assert result.detail.endswith("(-1765328160); set default_realm in krb5.conf")

    def test_a_krb5_conf_that_is_broken_is_an_outage(self, config: Path) -> None:
        config.write_text("[libdefaults\n")

        assert asked(Rules()) == Unavailable(
            "krb5_init_context: Improper format of Kerberos configuration file (-1765328248);"
            " mend krb5.conf",
            "kerberos5",
        )

    def test_a_krb5_conf_that_is_mended_counts_at_once(self, config: Path, tmp_path: Path) -> None:
        subject = Kerberos5(Rules())
        config.write_text("[libdefaults\n")
        subject.check(request_for("joe", b"pw"))

        with scripted_kdc(tmp_path, error_reply(24)) as mended:
            config.write_text(mended.read_text())
            result = subject.check(request_for("joe", b"pw"))

        assert result == rejected(Reason.WRONG_PASSWORD)


class TestWhatAKdcMaySay:
    @pytest.fixture(params=[b""])
    def result(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> AuthResult:
        """What is made of a KDC that answers with the parameter and nothing else."""
        with scripted_kdc(tmp_path, request.param) as config:
            monkeypatch.setenv("KRB5_CONFIG", str(config))
            return asked(Rules(), password="hunter2")

    @pytest.mark.parametrize(
        ("result", "reason"),
        [
            pytest.param(error_reply(1), Reason.ACCOUNT_EXPIRED, id="name-expired"),
            pytest.param(error_reply(6), Reason.NO_SUCH_USER, id="unknown"),
            pytest.param(error_reply(12), Reason.DENIED, id="policy"),
            pytest.param(error_reply(18), Reason.ACCOUNT_LOCKED, id="revoked"),
            pytest.param(error_reply(21), Reason.DENIED, id="not-yet"),
            pytest.param(error_reply(23), Reason.PASSWORD_EXPIRED, id="key-expired"),
            pytest.param(error_reply(24), Reason.WRONG_PASSWORD, id="preauthentication"),
            pytest.param(error_reply(31), Reason.WRONG_PASSWORD, id="integrity"),
        ],
        indirect=["result"],
    )
    def test_a_refusal_has_a_reason(self, result: AuthResult, reason: Reason) -> None:
        assert result == rejected(reason)

    @pytest.mark.parametrize(
        ("result", "end"),
        [
            pytest.param(error_reply(14), "krb5.conf must permit the old", id="encryption"),
            pytest.param(error_reply(37), "set the clocks of this machine and the KDC", id="clock"),
            pytest.param(error_reply(60, b"hunter2 \x1b[31m\n]"), "(-1765328324)", id="generic"),
            pytest.param(error_reply(68), "(-1765328316)", id="another-realm"),
            pytest.param(b"hunter2" * 1000, "(-1765328344)", id="garbage"),
            pytest.param(b"\x7e\x82\xff\xff", "(1859794437)", id="half-a-message"),
        ],
        indirect=["result"],
    )
    def test_anything_else_is_an_outage(self, result: AuthResult, end: str) -> None:
        assert isinstance(result, Unavailable)
        assert result.detail.endswith(end)
        assert "hunter2" not in result.detail


@pytest.mark.usefixtures("seen_logs")
class TestLog:
    def test_a_refusal_is_told_in_the_c_daemons_words(
        self, realm: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked(realm.rules(), password="hunter2")

        assert [(record.levelname, record.message) for record in caplog.records] == [
            (
                "ERROR",
                "auth_krb5: krb5_get_init_creds_password: Preauthentication failed (-1765328360)",
            )
        ]

    def test_a_name_that_cannot_be_is_told_in_the_c_daemons_words(
        self, realm: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked(realm.rules(), "joe@")

        assert caplog.messages == ["auth_krb5: form_principal_name"]

    def test_a_strangers_name_is_escaped_and_cut(
        self, realm: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked(realm.rules(), "\x1b[31m\n" + "j" * 1000)

        (message,) = caplog.messages
        assert "Client '\\x1b[31m\\n" in message
        assert len(message) < 300

    def test_a_yes_is_not_told(self, realm: Place, caplog: pytest.LogCaptureFixture) -> None:
        asked(realm.rules())

        assert caplog.messages == []

    def test_no_password_is_in_what_an_error_shows(self, realm: Place) -> None:
        with libkrb5.Session() as session, pytest.raises(libkrb5.KerberosError) as raised:
            session.ticket(session.principal(b"joe"), b"hunter2")

        assert "hunter2" not in repr(raised.value)


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated() -> int:
    """Return how many bytes the C library has given out in this process."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    return int(mallinfo().uordblks)


def growth(subject: Kerberos5, request: AuthRequest) -> int:
    """Return how many bytes more are allocated after so many calls."""
    before = allocated()
    for _ in range(CALLS):
        subject.check(request)
    return allocated() - before


class TestGrowth:
    @pytest.fixture(autouse=True)
    def _no_log(self) -> Iterator[None]:
        """Keep no log lines: pytest would."""
        logging.disable()
        yield
        logging.disable(logging.NOTSET)

    @pytest.mark.parametrize(
        ("user", "password", "changes"),
        [
            pytest.param("quick", PASSWORD, {}, id="yes"),
            pytest.param("quick", "wrong", {}, id="wrong-password"),
            pytest.param("nobody-here", PASSWORD, {}, id="unknown-user"),
            pytest.param("joe@r@r", PASSWORD, {}, id="no-name"),
            pytest.param("quick", PASSWORD, {"keytab": "/nonexistent"}, id="no-keytab"),
            pytest.param("quick", PASSWORD, {"keytab": "BAD:x"}, id="no-kind-of-keytab"),
            pytest.param("quick", PASSWORD, {"servername": "other.example"}, id="no-key"),
        ],
    )
    def test_nothing_is_kept_of_a_request(
        self, realm: Place, user: str, password: str, changes: dict[str, object]
    ) -> None:
        subject = Kerberos5(realm.rules(**changes))
        request = request_for(user, password.encode(), realm="")
        for _ in range(CALLS):
            subject.check(request)
        descriptors = count_descriptors()

        # What is kept of each shows every time; what other threads allocate meanwhile does not.
        assert any(growth(subject, request) < CALLS * BYTES_PER_CALL for _ in range(TRIES))
        assert count_descriptors() == descriptors


class TestPrerequisites:
    def refusal(self, keytab: str) -> tuple[str, ...]:
        with pytest.raises(StartupError) as refused:
            check_prerequisites(Rules(keytab))
        return refused.value.lines

    def test_a_keytab_with_a_key_will_do(self, realm: Place) -> None:
        check_prerequisites(realm.rules())

    def test_a_keytab_that_is_missing_is_named(self) -> None:
        problem, cure = self.refusal("/nonexistent/keytab")

        assert problem == (
            "-a kerberos5 tells the real KDC by a key, and cannot read any from"
            " FILE:/nonexistent/keytab: Key table file '/nonexistent/keytab' not found"
        )
        assert "kadmin -q 'ktadd host/NAME'" in cure
        assert "krb5_keytab" in cure

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            pytest.param(b"\5\2", "there is no key in it", id="none"),
            pytest.param(b"\5\2\0\0\0\x46\0\2", "there is no key in it", id="half-a-key"),
            pytest.param(b"", "Unsupported key table format version number", id="empty"),
            pytest.param(
                b"root:x:0", "Unsupported key table format version number", id="no-keytab"
            ),
        ],
    )
    def test_a_keytab_without_a_key_is_refused(
        self, tmp_path: Path, content: bytes, problem: str
    ) -> None:
        keytab = tmp_path / "keytab"
        keytab.write_bytes(content)

        assert self.refusal(str(keytab))[0].endswith(f"FILE:{keytab}: {problem}")

    @only_root
    def test_a_keytab_that_may_not_be_read_is_refused(self, realm: Place) -> None:
        realm.keytab.chmod(0o600)

        with as_nobody():
            problem, cure = self.refusal(str(realm.keytab))

        assert problem.endswith("Permission denied")
        assert cure == "start the daemon as root, or as a user who may read it"

    def test_a_kind_of_keytab_that_does_not_exist_is_refused(self) -> None:
        problem, cure = self.refusal("BAD:x")

        assert problem.startswith("-a kerberos5 cannot work with these settings: krb5_kt_resolve")
        assert "krb5_keytab" in cure

    def test_a_krb5_conf_that_is_broken_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "krb5.conf").write_text("[libdefaults\n")
        monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))

        problem, cure = self.refusal("")

        assert "Improper format of Kerberos configuration file" in problem
        assert "/etc/krb5.conf" in cure

    def test_a_machine_without_libkrb5_is_told_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(libkrb5, "LIBRARY", "libkrb5.so.none")
        libkrb5.load.cache_clear()

        problem, cure = self.refusal("")

        libkrb5.load.cache_clear()
        assert problem.startswith("kerberos5: cannot load libkrb5.so.none")
        assert cure.endswith("apt-get install libkrb5-3")
