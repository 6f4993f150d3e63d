"""One login at an IMAP server: what is said to it, and what its answers mean."""

from collections.abc import Sequence

import pytest

from pysaslauthd.model import Reason, Secret
from pysaslauthd.wire.imap import Login, No, Outcome, Unclear, Yes
from pysaslauthd.wire.imap_credentials import Credentials
from pysaslauthd.wire.imap_responses import MOST_BYTES, Unexpected

GREETING = b"* OK [CAPABILITY IMAP4rev1 LITERAL+] ready\r\n"
BARE_GREETING = b"* OK ready\r\n"
LOGIN = b'saslauthd LOGIN "joe" "pw"\r\n'
STARTTLS = b"saslauthd1 STARTTLS\r\n"
GO_AHEAD = b"saslauthd1 OK go ahead\r\n"
CAPABILITY = b"saslauthd2 CAPABILITY\r\n"
CAPABLE = b"* CAPABILITY IMAP4rev1\r\nsaslauthd2 OK done\r\n"
AUTHENTICATE = b"saslauthd AUTHENTICATE PLAIN\r\n"
PLAIN = b"AGpvZQBwdw==\r\n"
OK = b"saslauthd OK in\r\n"


def new_login(password: bytes = b"pw", *, starts_tls: bool = False) -> Login:
    return Login(Credentials("joe", Secret(password)), starts_tls=starts_tls)


def talk(login: Login, *said: bytes) -> list[bytes]:
    """Let the server say one thing after the other; return what is said to it after each."""
    return [login.receive(data) for data in said]


def outcome_of(answer: bytes) -> Outcome | None:
    """Return what *answer* to LOGIN means."""
    login = new_login()
    talk(login, GREETING, answer)
    return login.outcome


def reason_of(answer: bytes) -> Reason | None:
    """Return why *answer* to LOGIN refuses, None where it does not."""
    outcome = outcome_of(answer)
    return outcome.reason if isinstance(outcome, No) else None


def problem_of(*said: bytes) -> str | None:
    """Return why the outcome is unclear when the server says that, None where it is not."""
    login = new_login()
    talk(login, *said)
    return login.outcome.problem if isinstance(login.outcome, Unclear) else None


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(GREETING, id="capabilities"),
        pytest.param(GREETING + b"* CAPABILITY IMAP4rev1\r\n", id="and-more-of-them"),
        pytest.param(GREETING + b"* OK [ALERT] down at noon\r\n", id="and-a-note"),
        pytest.param(b"* ok [capability imap4rev1]\r\n", id="lower-case"),
        pytest.param(b"* OK [CAPABILITY IMAP4rev1]\n", id="bare-lf"),
        pytest.param(b"* OK [CAPABILITY] x\r\n", id="no-capability-at-all"),
    ],
)
def test_a_greeting_is_answered_with_login(greeting: bytes) -> None:
    assert talk(new_login(), greeting) == [LOGIN]


def test_a_greeting_without_capabilities_is_answered_by_asking_for_them() -> None:
    said = talk(new_login(), BARE_GREETING, CAPABLE, OK)

    assert said == [CAPABILITY, LOGIN, b""]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"saslauthd2 OK\r\n", id="ok-without-any"),
        pytest.param(b"saslauthd2 OK [CAPABILITY X] done\r\n", id="in-the-answer"),
        pytest.param(b"saslauthd2 BAD what?\r\n", id="bad"),
        pytest.param(b"saslauthd2 NO\r\n", id="no"),
    ],
)
def test_capabilities_need_not_be_told(answer: bytes) -> None:
    assert talk(new_login(), BARE_GREETING, answer) == [CAPABILITY, LOGIN]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"saslauthd OK Logged in\r\n", id="text"),
        pytest.param(b"saslauthd OK\r\n", id="bare"),
        pytest.param(b"saslauthd OK\n", id="bare-lf"),
        pytest.param(b"saslauthd ok\r\n", id="lower-case"),
        pytest.param(b"saslauthd OK [CAPABILITY IMAP4rev1] x\r\n", id="capabilities"),
        pytest.param(b"saslauthd OK [ALERT] x\r\n", id="alert"),
        pytest.param(b"* CAPABILITY IMAP4rev1\r\nsaslauthd OK\r\n", id="after-capabilities"),
        pytest.param(b"* OK [X] x\r\n* NO x\r\n* BAD x\r\nsaslauthd OK\r\n", id="after-notes"),
        pytest.param(b"* X {16}\r\nsaslauthd NO x\r\n\r\nsaslauthd OK\r\n", id="after-a-literal"),
        pytest.param(OK + b"saslauthd NO\r\n", id="whatever-follows"),
    ],
)
def test_ok_lets_in(answer: bytes) -> None:
    assert outcome_of(answer) == Yes()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"saslauthd NO x\r\n", Reason.WRONG_PASSWORD, id="no-code"),
        pytest.param(b"saslauthd NO\r\n", Reason.WRONG_PASSWORD, id="bare"),
        pytest.param(b"saslauthd no\r\n", Reason.WRONG_PASSWORD, id="lower-case"),
        pytest.param(
            b"saslauthd NO [AUTHENTICATIONFAILED] x\r\n", Reason.WRONG_PASSWORD, id="failed"
        ),
        pytest.param(b"saslauthd NO [ALERT] x\r\n", Reason.WRONG_PASSWORD, id="alert"),
        pytest.param(b"saslauthd NO [X-NEW] x\r\n", Reason.WRONG_PASSWORD, id="unknown-code"),
        pytest.param(b"saslauthd NO [EXPIRED] x\r\n", Reason.PASSWORD_EXPIRED, id="expired"),
        pytest.param(b"saslauthd NO [expired] x\r\n", Reason.PASSWORD_EXPIRED, id="code-any-case"),
        pytest.param(b"saslauthd NO [AUTHORIZATIONFAILED]\r\n", Reason.DENIED, id="authorization"),
        pytest.param(b"saslauthd NO [CONTACTADMIN] x\r\n", Reason.DENIED, id="contact"),
        pytest.param(b"saslauthd NO [NOPERM] x\r\n", Reason.DENIED, id="permission"),
        pytest.param(b"* NO [UNAVAILABLE]\r\nsaslauthd NO\r\n", Reason.WRONG_PASSWORD, id="note"),
    ],
)
def test_no_refuses(answer: bytes, reason: Reason) -> None:
    assert reason_of(answer) is reason


@pytest.mark.parametrize(
    ("code", "is_alert"), [(b"[ALERT] ", True), (b"[EXPIRED] ", False), (b"", False)]
)
def test_a_refusal_says_whether_people_must_see_it(code: bytes, *, is_alert: bool) -> None:
    answer = b"saslauthd NO %bask the help desk" % code

    outcome = outcome_of(answer + b"\r\n")

    assert isinstance(outcome, No)
    assert outcome.said == answer
    assert outcome.is_alert == is_alert


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(b"saslauthd BAD x\r\n", "it answered BAD to LOGIN", id="bad"),
        pytest.param(
            b"saslauthd BAD [CLIENTBUG] x\r\n", "it answered BAD (CLIENTBUG) to LOGIN", id="our-bug"
        ),
        pytest.param(b"* BYE x\r\n", "it answered BYE to LOGIN", id="bye"),
        pytest.param(b"* BYE x\r\nsaslauthd OK\r\n", "it answered BYE to LOGIN", id="bye-first"),
        *(
            pytest.param(
                f"saslauthd NO [{code}] x\r\n".encode(),
                f"it answered NO ({code}) to LOGIN",
                id=code.lower(),
            )
            for code in ["UNAVAILABLE", "SERVERBUG", "LIMIT", "INUSE", "PRIVACYREQUIRED"]
        ),
        pytest.param(
            b"saslauthd NO [REFERRAL imap://b.example.org/] x\r\n",
            "it answered NO (REFERRAL) to LOGIN",
            id="referral",
        ),
    ],
)
def test_what_says_nothing_about_the_password_is_unclear(answer: bytes, problem: str) -> None:
    assert problem_of(GREETING, answer) == problem


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        pytest.param(b"* BYE overloaded\r\n", "it takes no connection now", id="bye"),
        pytest.param(b"* NO overloaded\r\n", "it takes no connection now", id="no"),
        pytest.param(
            b"* PREAUTH joe\r\n",
            "it takes us for somebody who has logged in (PREAUTH)",
            id="preauth",
        ),
        pytest.param(
            GREETING + b"* BYE on second thoughts\r\n",
            "it answered BYE to LOGIN",
            id="bye-after-ok",
        ),
    ],
)
def test_a_greeting_may_be_an_outage(greeting: bytes, problem: str) -> None:
    assert problem_of(greeting) == problem


def test_an_outage_has_what_the_server_said() -> None:
    login = new_login()

    talk(login, b"* BYE overloaded\r\n")

    assert login.outcome == Unclear("it takes no connection now", b"* BYE overloaded")


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(CAPABLE, id="a-second-one"),
        pytest.param(GO_AHEAD, id="to-starttls"),
    ],
)
def test_an_answer_to_what_was_asked_before_is_none_to_login(late: bytes) -> None:
    login = new_login(starts_tls=True)
    talk(login, BARE_GREETING, GO_AHEAD)
    login.go_on()
    talk(login, CAPABLE)

    with pytest.raises(Unexpected, match="an answer to something else than LOGIN"):
        login.receive(late)


@pytest.mark.parametrize("answer", [b"* BYE x\r\n", b"+\r\n"], ids=["bye", "continuation"])
def test_an_odd_answer_to_capability_is_an_outage(answer: bytes) -> None:
    problem = problem_of(BARE_GREETING, answer)

    assert problem is not None
    assert problem.endswith(" to CAPABILITY")


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"+OK POP3 ready\r\n", id="pop3"),
        pytest.param(b"220 mail.example.org ESMTP\r\n", id="smtp"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="http"),
        pytest.param(b"saslauthd OK\r\n", id="tagged"),
        pytest.param(b"* BAD x\r\n", id="bad"),
        pytest.param(b"* CAPABILITY IMAP4rev1\r\n", id="data"),
        pytest.param(b"* OKAY\r\n", id="no-status"),
        pytest.param(b"* \0\xff\r\n", id="garbage"),
        pytest.param(b"+ OK\r\n", id="continuation"),
    ],
)
def test_what_does_not_greet_is_no_imap_server(greeting: bytes) -> None:
    with pytest.raises(Unexpected, match="does not greet as an IMAP server") as caught:
        talk(new_login(), greeting)

    assert caught.value.said == greeting.rstrip()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"saslauthd OKAY\r\n", id="no-status"),
        pytest.param(b"saslauthd BYE\r\n", id="tagged-bye"),
        pytest.param(b"saslauthd PREAUTH\r\n", id="tagged-preauth"),
        pytest.param(b"saslauthd\r\n", id="tag-only"),
        pytest.param(b"a1 OK\r\n", id="other-tag"),
        pytest.param(b"SASLAUTHD OK\r\n", id="tag-in-other-case"),
        pytest.param(b"saslauthdOK\r\n", id="no-space"),
        pytest.param(b"+ go on\r\n", id="continuation"),
        pytest.param(b"\r\n", id="empty-line"),
        pytest.param(b"\0\0\0\n", id="garbage"),
        pytest.param(b"x" * MOST_BYTES * 2, id="endless"),
    ],
)
def test_what_is_no_answer_ends_it(answer: bytes) -> None:
    login = new_login()
    talk(login, GREETING)

    with pytest.raises(Unexpected):
        login.receive(answer)

    assert login.outcome is None


def test_an_error_stays() -> None:
    login = new_login()
    talk(login, GREETING)
    with pytest.raises(Unexpected):
        login.receive(b"what?\r\n")

    with pytest.raises(Unexpected, match="something else than LOGIN"):
        login.receive(OK)

    assert login.outcome is None


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([GREETING + OK], id="with-the-greeting"),
        pytest.param([BARE_GREETING + OK + OK], id="with-the-greeting-twice"),
        pytest.param([BARE_GREETING, CAPABLE + OK], id="with-the-answer-before"),
        pytest.param([BARE_GREETING, CAPABLE + b"* X\r\n" + OK], id="after-data"),
        pytest.param([GREETING + OK[:9], OK[9:]], id="begun-with-the-greeting"),
    ],
)
def test_an_answer_to_what_was_not_asked_yet_is_none(said: Sequence[bytes]) -> None:
    login = new_login()

    with pytest.raises(Unexpected, match="before it was asked"):
        talk(login, *said)

    assert login.outcome is None


class TestLiterals:
    """A password that does not print, at a server that wants to be asked."""

    GREETING = b"* OK [CAPABILITY IMAP4rev1] ready\r\n"
    FIRST = b'saslauthd LOGIN "joe" {4}\r\n'
    PASSWORD = b"p\r\nw"

    def test_it_is_sent_when_the_server_agrees(self) -> None:
        login = new_login(self.PASSWORD)

        said = talk(login, self.GREETING, b"* OK\r\n+ ready\r\n", OK)

        assert said == [self.FIRST, b"p\r\nw\r\n", b""]
        assert login.outcome == Yes()

    @pytest.mark.parametrize("word", [b"NO", b"BAD", b"OK"])
    def test_an_answer_before_it_is_no_verdict(self, word: bytes) -> None:
        login = new_login(self.PASSWORD)

        talk(login, self.GREETING, b"saslauthd %b too big\r\n" % word)

        assert isinstance(login.outcome, Unclear)
        assert login.outcome.problem == f"it answered {word.decode()} to LOGIN"

    def test_the_server_cannot_agree_in_advance(self) -> None:
        login = Login(Credentials("zoë", Secret(b"\xff")), starts_tls=False)
        talk(login, self.GREETING)

        with pytest.raises(Unexpected, match="before it was asked"):
            login.receive(b"+ ok\r\n+ ok\r\n")

    def test_the_server_knows_all_with_the_last_piece_only(self) -> None:
        login = new_login(self.PASSWORD)

        talk(login, self.GREETING)
        before = login.has_asked
        talk(login, b"+\r\n")

        assert not before
        assert login.has_asked


class TestAuthenticate:
    """A server that takes no LOGIN."""

    GREETING = b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN] ready\r\n"
    AT_ONCE = GREETING.replace(b"]", b" SASL-IR]")

    def test_the_message_is_sent_when_the_server_agrees(self) -> None:
        login = new_login()

        said = talk(login, self.GREETING, b"+ \r\n", OK)

        assert said == [AUTHENTICATE, PLAIN, b""]
        assert login.outcome == Yes()

    def test_the_message_is_sent_at_once_where_the_server_lets_it(self) -> None:
        login = new_login()

        said = talk(login, self.AT_ONCE, OK)

        assert said == [AUTHENTICATE[:-2] + b" " + PLAIN, b""]
        assert login.outcome == Yes()

    def test_no_refuses(self) -> None:
        login = new_login()

        talk(login, self.AT_ONCE, b"saslauthd NO [EXPIRED]\r\n")

        assert isinstance(login.outcome, No)
        assert login.outcome.reason is Reason.PASSWORD_EXPIRED

    def test_no_before_the_message_is_no_verdict(self) -> None:
        problem = problem_of(self.GREETING, b"saslauthd NO not now\r\n")

        assert problem == "it answered NO to AUTHENTICATE PLAIN"

    def test_a_server_that_wants_still_more_is_given_up(self) -> None:
        login = new_login()
        talk(login, self.AT_ONCE)

        with pytest.raises(Unexpected, match="more than user and password"):
            login.receive(b"+ \r\n")

    def test_without_plain_there_is_no_way(self) -> None:
        problem = problem_of(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED STARTTLS] ready\r\n")

        assert problem is not None
        assert "LOGINDISABLED" in problem
        assert "imap+starttls://" in problem


class TestStartTls:
    """Nothing that was said before TLS counts after it."""

    OFFER = b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n"

    @pytest.mark.parametrize("greeting", [OFFER, BARE_GREETING], ids=["offered", "not-told"])
    def test_it_comes_first(self, greeting: bytes) -> None:
        login = new_login(starts_tls=True)

        said = talk(login, greeting, GO_AHEAD)

        assert said == [STARTTLS, b""]
        assert login.wants_tls
        assert not login.has_asked

    def test_capabilities_are_asked_for_anew(self) -> None:
        login = new_login(starts_tls=True)
        talk(login, self.OFFER, b"saslauthd1 OK [CAPABILITY IMAP4rev1 LITERAL+] go ahead\r\n")

        first = login.go_on()
        said = talk(login, CAPABLE, OK)

        assert [first, *said] == [CAPABILITY, LOGIN, b""]
        assert login.outcome == Yes()

    def test_login_may_be_disabled_after_it_too(self) -> None:
        login = new_login(starts_tls=True)
        talk(login, BARE_GREETING, GO_AHEAD)
        login.go_on()

        talk(login, b"* CAPABILITY LOGINDISABLED\r\nsaslauthd2 OK\r\n")

        assert isinstance(login.outcome, Unclear)

    @pytest.mark.parametrize("more", [b"* CAPABILITY IMAP4rev1\r\n", OK, b"x", b"\r\n"], ids=repr)
    def test_what_follows_the_answer_in_clear_is_refused(self, more: bytes) -> None:
        login = new_login(starts_tls=True)
        talk(login, self.OFFER)

        with pytest.raises(Unexpected, match="went on unencrypted"):
            login.receive(GO_AHEAD + more)

    def test_what_follows_it_later_in_clear_is_refused(self) -> None:
        login = new_login(starts_tls=True)
        talk(login, self.OFFER, GO_AHEAD)

        with pytest.raises(Unexpected, match="went on unencrypted"):
            login.receive(b"* CAPABILITY IMAP4rev1\r\n")

    @pytest.mark.parametrize(
        ("answer", "word"),
        [
            pytest.param(b"saslauthd1 NO x\r\n", "NO", id="no"),
            pytest.param(b"saslauthd1 BAD x\r\n", "BAD", id="bad"),
            pytest.param(b"* BYE x\r\n", "BYE", id="bye"),
            pytest.param(b"+\r\n", "+", id="continuation"),
        ],
    )
    def test_without_it_there_is_no_login(self, answer: bytes, word: str) -> None:
        login = new_login(starts_tls=True)

        said = talk(login, self.OFFER, answer)

        assert said == [STARTTLS, b""]
        assert login.outcome == Unclear(f"it answered {word} to STARTTLS", answer.rstrip())

    def test_who_has_logged_us_in_gets_no_password(self) -> None:
        login = new_login(starts_tls=True)

        said = talk(login, b"* PREAUTH joe\r\n")

        assert said == [b""]
        assert isinstance(login.outcome, Unclear)


@pytest.mark.parametrize(
    ("said", "awaited", "awaited_of_it"),
    [
        pytest.param([], "greeting", "greeting of imap:143", id="greeting"),
        pytest.param(
            [BARE_GREETING],
            "answer to CAPABILITY",
            "answer of imap:143 to CAPABILITY",
            id="capability",
        ),
        pytest.param([GREETING], "answer to LOGIN", "answer of imap:143 to LOGIN", id="login"),
    ],
)
def test_it_tells_what_is_awaited(said: Sequence[bytes], awaited: str, awaited_of_it: str) -> None:
    login = new_login()

    talk(login, *said)

    assert login.awaited() == awaited
    assert login.awaited("imap:143") == awaited_of_it


def test_after_the_outcome_nothing_counts() -> None:
    login = new_login()

    said = talk(login, GREETING, OK, b"\r\n", b"x" * MOST_BYTES * 2)

    assert said == [LOGIN, b"", b"", b""]
    assert login.outcome == Yes()


DIALOGUES = [
    pytest.param(b"pw", [GREETING, b"* X {2}\r\nOK\r\n" + OK], [LOGIN, b""], id="login"),
    pytest.param(
        b"p\tw",
        [BARE_GREETING, b"* CAPABILITY X\r\nsaslauthd2 OK\r\n", b"+ ready\r\n", OK],
        [CAPABILITY, b'saslauthd LOGIN "joe" {3}\r\n', b"p\tw\r\n", b""],
        id="literal",
    ),
    pytest.param(
        b"pw", [TestAuthenticate.GREETING, b"+\r\n", OK], [AUTHENTICATE, PLAIN, b""], id="sasl"
    ),
]


@pytest.mark.parametrize(("password", "said", "heard"), DIALOGUES)
def test_single_bytes_change_nothing(
    password: bytes, said: Sequence[bytes], heard: Sequence[bytes]
) -> None:
    login = new_login(password)

    replies = [b"".join(talk(login, *(bytes([byte]) for byte in data))) for data in said]

    assert replies == heard
    assert login.outcome == Yes()


@pytest.mark.parametrize(("password", "said", "heard"), DIALOGUES)
def test_a_cut_anywhere_changes_nothing(
    password: bytes, said: Sequence[bytes], heard: Sequence[bytes]
) -> None:
    for cut in range(max(map(len, said))):
        login = new_login(password)

        replies = [b"".join(talk(login, data[:cut], data[cut:])) for data in said]

        assert replies == heard
        assert login.outcome == Yes()
