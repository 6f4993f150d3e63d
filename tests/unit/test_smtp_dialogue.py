import base64

import pytest

from pysaslauthd.model import Accepted, Reason, Rejected, Unavailable
from pysaslauthd.sasl.server.mechanism import Challenge, Finished
from pysaslauthd.sasl.server.plain import PLAIN
from pysaslauthd.smtp.dialogue import Connection, Dialogue, Reply, Respond, Start, Tries

OPEN = Connection()
PATIENT = Tries(most=3, first_delay=1.0, longest_delay=8.0)
JOE = Accepted("joe", "static")
SUCCESS = Reply(("235 2.7.0 Authentication successful",))


def dialogue(*, only_with_tls: bool = False, tries: Tries = PATIENT) -> Dialogue:
    return Dialogue("mail.test.example", tries, only_with_tls=only_with_tls)


def first_line(said: object) -> str:
    assert isinstance(said, Reply)
    return said.lines[0]


@pytest.mark.parametrize(
    ("argument", "initial"),
    [
        pytest.param(b"PLAIN", None, id="no-initial-response"),
        pytest.param(b"PLAIN =", b"", id="empty-initial-response"),
        pytest.param(b"PLAIN AGpvZQBwdw==", b"\0joe\0pw", id="initial-response"),
        pytest.param(b" plain\t= ", b"", id="any-case-and-white-space"),
        pytest.param(b"PLAIN " + b"A" * 12000, bytes(9000), id="long"),
    ],
)
def test_auth_starts_an_exchange(argument: bytes, initial: bytes | None) -> None:
    assert dialogue().begin(argument, OPEN, [PLAIN]) == Start(PLAIN, initial)


@pytest.mark.parametrize(
    ("argument", "connection", "reply"),
    [
        pytest.param(b"PLAIN", OPEN._replace(greeted=False), "503 5.5.1 Error: send", id="no-helo"),
        pytest.param(
            b"PLAIN", OPEN._replace(in_transaction=True), "503 5.5.1 Error: MAIL", id="transaction"
        ),
        pytest.param(b"", OPEN, "501 5.5.4 Syntax: AUTH mechanism", id="no-argument"),
        pytest.param(b"PLAIN a b", OPEN, "501 5.5.4 Syntax: AUTH mechanism", id="too-many"),
        pytest.param(
            b"FOO", OPEN, "535 5.7.8 Error: authentication failed: Invalid auth", id="foo"
        ),
        pytest.param(b"\xff =", OPEN, "535 5.7.8 Error: authentication failed: In", id="not-ascii"),
        pytest.param(b"PLAIN !", OPEN, "535 5.7.8 Error: authentication failed: In", id="base64"),
        pytest.param(b"PLAIN *", OPEN, "535 5.7.8 Error: authentication failed: In", id="star"),
        pytest.param(b"PLAIN AA=A", OPEN, "535 5.7.8 Error: authentication f", id="early-padding"),
        pytest.param(b"PLAIN AAAAA", OPEN, "535 5.7.8 Error: authentication f", id="no-padding"),
    ],
)
def test_an_auth_that_leads_nowhere_is_refused(
    argument: bytes, connection: Connection, reply: str
) -> None:
    said = dialogue().begin(argument, connection, [PLAIN])

    assert first_line(said).startswith(reply)


def test_auth_before_tls_is_refused_where_it_needs_tls() -> None:
    said = dialogue(only_with_tls=True).begin(b"PLAIN", OPEN, [])

    assert first_line(said).startswith("504 5.5.4 Encryption required")


def test_auth_within_tls_is_taken_where_it_needs_tls() -> None:
    said = dialogue(only_with_tls=True).begin(b"PLAIN", OPEN._replace(secured=True), [PLAIN])

    assert said == Start(PLAIN, None)


def test_auth_is_not_enabled_where_no_mechanism_is_left() -> None:
    said = dialogue().begin(b"PLAIN", OPEN, [])

    assert first_line(said) == "503 5.5.1 Error: authentication not enabled"


@pytest.mark.parametrize(
    ("data", "line"), [(b"", "334 "), (b"Username:", "334 VXNlcm5hbWU6")], ids=["empty", "prompt"]
)
def test_a_challenge_awaits_a_response(data: bytes, line: str) -> None:
    assert dialogue().tell(Challenge(data)) == Reply((line,), awaits_response=True)


@pytest.mark.parametrize(
    ("line", "response"), [(b"", b""), (b"AGpvZQBwdw==", b"\0joe\0pw")], ids=["empty", "some"]
)
def test_a_response_is_for_the_exchange(line: bytes, response: bytes) -> None:
    assert dialogue().hear(line) == Respond(response)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        pytest.param(b"*", "501 5.7.0 Authentication aborted", id="cancelled"),
        pytest.param(b"=", "535 5.7.8 Error: authentication failed: Invalid base64", id="equals"),
        pytest.param(
            b"* ", "535 5.7.8 Error: authentication failed: Invalid base", id="star-space"
        ),
        pytest.param(b" AAAA", "535 5.7.8 Error: authentication failed: Invalid bas", id="space"),
        pytest.param(b"AAAA\n", "535 5.7.8 Error: authentication failed: Invalid b", id="newline"),
        pytest.param(b"A" * 12289, "500 5.5.6 SASL response limit exceeded", id="too-long"),
    ],
)
def test_a_line_that_is_no_response_ends_it(line: bytes, reply: str) -> None:
    assert first_line(dialogue().hear(line)).startswith(reply)


def test_a_response_at_the_limit_is_taken() -> None:
    assert dialogue().hear(b"A" * 12288) == Respond(bytes(9216))


def test_accepted_is_235() -> None:
    subject = dialogue()

    said = subject.tell(Finished(JOE, "joe"))

    assert said == SUCCESS
    assert subject.accepted == Finished(JOE, "joe")


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        pytest.param(
            Rejected(Reason.WRONG_PASSWORD, "static"),
            "535 5.7.8 Error: authentication failed: authentication failure",
            id="wrong",
        ),
        pytest.param(
            Rejected(Reason.NO_SUCH_USER, "static", "who?"),
            "535 5.7.8 Error: authentication failed: authentication failure",
            id="nobody",
        ),
        pytest.param(
            Rejected(Reason.MALFORMED, "PLAIN"),
            "535 5.7.8 Error: authentication failed: bad protocol / cancel",
            id="malformed",
        ),
        pytest.param(
            Unavailable("down", "ldap"),
            "454 4.7.0 Temporary authentication failure: generic failure",
            id="outage",
        ),
    ],
)
def test_any_other_verdict_is_no_success(result: Rejected | Unavailable, reply: str) -> None:
    subject = dialogue()

    said = subject.tell(Finished(result, "joe"))

    assert first_line(said) == reply
    assert subject.accepted is None


def test_the_servers_last_word_is_a_challenge_that_wants_an_empty_answer() -> None:
    subject = dialogue()

    said = subject.tell(Finished(JOE, "joe", data=b"v=x"))

    assert said == Reply((f"334 {base64.b64encode(b'v=x').decode()}",), awaits_response=True)
    assert subject.accepted is None
    assert subject.hear(b"") == SUCCESS
    assert subject.accepted is not None


@pytest.mark.parametrize(
    "line", [b"AAAA", b"*", b"?", b"A" * 20000], ids=["more", "*", "?", "long"]
)
def test_whoever_does_not_take_the_servers_last_word_is_not_in(line: bytes) -> None:
    subject = dialogue()
    subject.tell(Finished(JOE, "joe", data=b"v=x"))

    said = subject.hear(line)

    assert first_line(said)[:1] == "5"
    assert subject.accepted is None


def test_a_success_that_was_not_taken_is_not_owed_to_the_next_try() -> None:
    subject = dialogue()
    subject.tell(Finished(JOE, "joe", data=b"v=x"))
    subject.hear(b"*")
    subject.begin(b"PLAIN", OPEN, [PLAIN])

    assert subject.hear(b"") == Respond(b"")


def test_there_is_one_success() -> None:
    subject = dialogue()
    subject.tell(Finished(JOE, "joe"))

    said = subject.begin(b"PLAIN", OPEN, [PLAIN])

    assert first_line(said) == "503 5.5.1 Error: already authenticated"


def test_starttls_forgets_who_the_client_is() -> None:
    subject = dialogue()
    subject.tell(Finished(JOE, "joe"))

    subject.restart()

    assert subject.accepted is None
    assert subject.begin(b"PLAIN", OPEN, [PLAIN]) == Start(PLAIN, None)


def test_refusals_are_held_longer_each_time() -> None:
    subject = dialogue(tries=Tries(most=6, first_delay=0.5, longest_delay=3.0))

    said = [subject.begin(b"FOO", OPEN, [PLAIN]) for _ in range(5)]

    assert [one.delay for one in said if isinstance(one, Reply)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_last_try_ends_the_connection() -> None:
    subject = dialogue()
    subject.begin(b"FOO", OPEN, [PLAIN])
    subject.restart()
    subject.hear(b"?")

    said = subject.tell(Finished(Rejected(Reason.WRONG_PASSWORD, "static"), "joe"))

    assert isinstance(said, Reply)
    assert said.closes
    assert said.lines[1] == "421 4.7.0 mail.test.example Error: too many errors"


def test_an_outage_is_no_failure_of_the_clients() -> None:
    subject = dialogue()

    said = [subject.tell(Finished(Unavailable("down", "ldap"), "joe")) for _ in range(9)]

    assert not any(one.closes or one.delay for one in said)
