"""What servers' answers to a bind mean, in the words of OpenLDAP, Active Directory and 389-ds."""

import pytest

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import ServerFailed
from pysaslauthd.backends.ldap.results import explain
from pysaslauthd.backends.ldap.verdicts import CannotTell, refusal
from pysaslauthd.model import Reason, Rejected, Secret
from pysaslauthd.wire.ldap import BIND_RESPONSE, Result

PASSWORD = Secret(b"right horse")
NAME = "ldap://a/"


def answer(code: int, diagnostic: str = "", policy_error: int | None = None) -> Result:
    return Result(BIND_RESPONSE, code, diagnostic, policy_error=policy_error)


def active_directory(sub_code: str) -> Result:
    return answer(
        49,
        "80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error,"
        f" data {sub_code}, v2580\0",
    )


def reason_of(result: Result) -> Reason:
    verdict = refusal(result, PASSWORD, NAME)
    assert isinstance(verdict, Rejected)
    return verdict.reason


@pytest.mark.parametrize(
    ("code", "number"),
    [
        # RFC 4511 appendix A.1
        (results.SUCCESS, 0),
        (results.TIME_LIMIT_EXCEEDED, 3),
        (results.SIZE_LIMIT_EXCEEDED, 4),
        (results.COMPARE_FALSE, 5),
        (results.COMPARE_TRUE, 6),
        (results.NO_SUCH_ATTRIBUTE, 16),
    ],
)
def test_codes_are_those_of_the_rfc(code: int, number: int) -> None:
    assert code == number


def test_success_is_no_refusal() -> None:
    assert refusal(answer(0), PASSWORD, NAME) is None


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        pytest.param(answer(49), Reason.WRONG_PASSWORD, id="invalid-credentials"),
        pytest.param(answer(32), Reason.NO_SUCH_USER, id="no-such-object"),
        pytest.param(answer(34), Reason.NO_SUCH_USER, id="invalid-dn-syntax"),
        pytest.param(answer(48), Reason.WRONG_PASSWORD, id="no-password"),
        pytest.param(answer(49, policy_error=0), Reason.PASSWORD_EXPIRED, id="policy-expired"),
        pytest.param(answer(49, policy_error=1), Reason.ACCOUNT_LOCKED, id="policy-locked"),
        pytest.param(answer(0, policy_error=2), Reason.PASSWORD_MUST_CHANGE, id="policy-reset"),
        pytest.param(answer(0, policy_error=0), Reason.PASSWORD_EXPIRED, id="policy-over-success"),
        pytest.param(answer(49, policy_error=8), Reason.WRONG_PASSWORD, id="policy-of-changes"),
        pytest.param(active_directory("525"), Reason.NO_SUCH_USER, id="ad-525"),
        pytest.param(active_directory("52e"), Reason.WRONG_PASSWORD, id="ad-52e"),
        pytest.param(active_directory("52E"), Reason.WRONG_PASSWORD, id="ad-52E"),
        pytest.param(active_directory("52f"), Reason.DENIED, id="ad-52f"),
        pytest.param(active_directory("530"), Reason.DENIED, id="ad-530"),
        pytest.param(active_directory("531"), Reason.DENIED, id="ad-531"),
        pytest.param(active_directory("532"), Reason.PASSWORD_EXPIRED, id="ad-532"),
        pytest.param(active_directory("533"), Reason.DENIED, id="ad-533"),
        pytest.param(active_directory("534"), Reason.DENIED, id="ad-534"),
        pytest.param(active_directory("569"), Reason.DENIED, id="ad-569"),
        pytest.param(active_directory("701"), Reason.ACCOUNT_EXPIRED, id="ad-701"),
        pytest.param(active_directory("773"), Reason.PASSWORD_MUST_CHANGE, id="ad-773"),
        pytest.param(active_directory("775"), Reason.ACCOUNT_LOCKED, id="ad-775"),
        pytest.param(
            answer(53, "Account inactivated. Contact system administrator."),
            Reason.DENIED,
            id="389-inactivated",
        ),
        pytest.param(
            answer(19, "Exceed password retry limit. Please try later."),
            Reason.ACCOUNT_LOCKED,
            id="389-locked",
        ),
        pytest.param(answer(49, "password expired!"), Reason.PASSWORD_EXPIRED, id="389-expired"),
        pytest.param(answer(32, "data 775, v2580"), Reason.NO_SUCH_USER, id="sub-code-of-another"),
    ],
)
def test_a_refusal_has_a_reason(result: Result, reason: Reason) -> None:
    assert reason_of(result) is reason


def test_a_refusal_is_told_with_what_the_server_says() -> None:
    verdict = refusal(answer(49, "go away"), PASSWORD, NAME)

    assert verdict == Rejected(
        Reason.WRONG_PASSWORD,
        "ldap",
        detail="wrong password: invalid credentials (49): go away",
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        pytest.param(answer(1), "operations error (1)", id="operations-error"),
        pytest.param(answer(2), "protocol error (2)", id="protocol-error"),
        pytest.param(answer(7), "authentication method not supported (7)", id="method"),
        pytest.param(answer(8), "stronger authentication required (8)", id="stronger"),
        pytest.param(answer(10), "referral (10)", id="referral"),
        pytest.param(answer(11), "administrative limit exceeded (11)", id="limit"),
        pytest.param(answer(13, "TLS first"), "confidentiality required (13): TLS first", id="tls"),
        pytest.param(answer(14), "SASL bind in progress (14)", id="sasl-in-progress"),
        pytest.param(answer(17), "undefined attribute type (17)", id="undefined"),
        pytest.param(answer(18), "inappropriate matching (18)", id="matching"),
        pytest.param(answer(19), "constraint violation (19)", id="constraint"),
        pytest.param(answer(50), "insufficient access rights (50)", id="rights"),
        pytest.param(answer(53), "unwilling to perform (53)", id="unwilling"),
        pytest.param(answer(80, "no luck"), "other (80): no luck", id="other"),
        pytest.param(answer(123), "result (123)", id="unknown"),
        pytest.param(answer(-1), "result (-1)", id="negative"),
        # Channel bindings are wanted; no domain controller can be reached; what nobody knows.
        pytest.param(active_directory("80090346"), "data 80090346, v2580", id="ad-80090346"),
        pytest.param(active_directory("51f"), "data 51f, v2580", id="ad-51f"),
        pytest.param(active_directory("fffffff"), "data fffffff, v2580", id="ad-unknown"),
    ],
)
def test_what_is_no_judgement_is_neither_yes_nor_no(result: Result, said: str) -> None:
    with pytest.raises(CannotTell) as told:
        refusal(result, PASSWORD, NAME)

    assert str(told.value).startswith("ldap://a/: it does not judge the password: ")
    assert str(told.value).endswith(said)


@pytest.mark.parametrize(
    ("code", "said"), [(51, "busy (51): wait"), (52, "unavailable (52): wait")]
)
def test_another_server_may_know_what_a_busy_one_does_not(code: int, said: str) -> None:
    with pytest.raises(ServerFailed) as told:
        refusal(answer(code, "wait"), PASSWORD, NAME)

    assert str(told.value) == f"ldap://a/: it does not judge the password: {said}"


def test_a_busy_server_has_not_refused_whatever_it_says() -> None:
    with pytest.raises(ServerFailed):
        refusal(answer(51, "too many whose password expired: wait"), PASSWORD, NAME)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        pytest.param(b"right horse", b"bind(cn=a, right horse): no", id="in-the-middle"),
        pytest.param(b"right horse", b"x" * 195 + b"right horse", id="where-it-would-be-cut"),
        pytest.param("pässword".encode(), "no: pässword".encode(), id="utf-8"),
        pytest.param(b"p\xe4ssword", b"no: p\xe4ssword", id="latin-1"),
        pytest.param(b"\xa4ssword", b"no: \xc3\xa4ssword", id="half-a-character"),
        pytest.param(b"a\0b", b"no: a\0b", id="nul"),
    ],
)
class TestADiagnosticThatRepeatsThePassword:
    def result(self, code: int, said: bytes) -> Result:
        return answer(code, said.decode(errors="surrogateescape"))

    def test_it_is_not_shown_with_a_refusal(self, password: bytes, said: bytes) -> None:
        verdict = refusal(self.result(49, said), Secret(password), NAME)

        assert verdict == Rejected(
            Reason.WRONG_PASSWORD, "ldap", detail="wrong password: invalid credentials (49)"
        )

    def test_it_is_not_shown_with_a_fault(self, password: bytes, said: bytes) -> None:
        with pytest.raises(CannotTell) as told:
            refusal(self.result(80, said), Secret(password), NAME)

        assert str(told.value) == "ldap://a/: it does not judge the password: other (80)"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param("", "success (0)", id="nothing"),
        pytest.param("\0\r\n ", "success (0)", id="nothing-to-see"),
        pytest.param("well\0", "success (0): well", id="nul-at-the-end"),
        pytest.param("a\nb\x1b[1mc\x00d", "success (0): a?b?[1mc?d", id="control-characters"),
        pytest.param("a\udcffb", "success (0): a?b", id="no-utf-8"),
        pytest.param("a\u2028b", "success (0): a?b", id="another-end-of-line"),
        pytest.param("zoë", "success (0): zoë", id="letters"),
        pytest.param("x" * 1000, "success (0): " + "x" * 200, id="long"),
    ],
)
def test_what_a_server_says_is_made_fit_for_a_line(said: str, shown: str) -> None:
    assert explain(answer(0, said)) == shown
