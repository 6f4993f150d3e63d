"""The same bytes to a real Dovecot's authentication server and to our door."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.dovecot_auth import dovecot
from tests.helpers.dovecot_client import DovecotClient
from tests.helpers.dovecot_door import Door, dovecot_door
from tests.helpers.dovecot_transcripts import TRANSCRIPTS, Transcript, all_answers, fits
from tests.helpers.processes import short_directory

USERS = {"joe": "joepw", "ann": "annpw"}
MECHANISMS = [
    *("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"),
    *("ANONYMOUS", "EXTERNAL"),
]
SETTINGS = f"dovecot_mechanisms = {MECHANISMS}\nfailure_delay = "
HANDSHAKE = b"VERSION\t1\t2\nCPID\t77\n"
WRONG = b"AUTH\t1\tPLAIN\tservice=smtp\tresp=AGpvZQB3cm9uZw==\n"
RIGHT = b"AUTH\t2\tPLAIN\tservice=smtp\tresp=AGpvZQBqb2Vwdw==\n"

every_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)


def here(transcript: Transcript) -> list[str]:
    return transcript.hears if transcript.here is None else transcript.here


def are(answers: list[bytes], expected: list[str]) -> bool:
    return len(answers) == len(expected) and all(map(fits, answers, expected))


@pytest.fixture(scope="module")
def their_socket(as_root: None) -> Iterator[Path]:
    users = {user: f"{{PLAIN}}{password}" for user, password in USERS.items()}
    mechanisms = " ".join(MECHANISMS).lower()
    with short_directory("da-") as directory, dovecot(directory, users, [], mechanisms) as path:
        yield path


@pytest.fixture(scope="module")
def our_door(directory: Path) -> Iterator[Door]:
    with dovecot_door(directory, USERS, settings=f"{SETTINGS} 0.0\n") as door:
        yield door


@pytest.fixture(scope="module")
def their_answers(their_socket: Path) -> dict[str, list[bytes]]:
    return all_answers(their_socket, lambda transcript: transcript.hears)


@pytest.fixture(scope="module")
def our_answers(our_door: Door) -> dict[str, list[bytes]]:
    return all_answers(our_door.path, here)


@pytest.mark.interop("dovecot")
@every_transcript
def test_dovecot_answers_as_the_table_says(
    transcript: Transcript, their_answers: dict[str, list[bytes]]
) -> None:
    answers = their_answers[transcript.name]

    assert are(answers, transcript.hears), answers


@every_transcript
def test_we_answer_the_same_but_where_the_table_says_why_not(
    transcript: Transcript, our_answers: dict[str, list[bytes]]
) -> None:
    answers = our_answers[transcript.name]

    assert are(answers, here(transcript)), answers


@pytest.mark.usefixtures("our_answers")
@pytest.mark.parametrize("word", ["Traceback", "Warning", "joepw", "am9lcHc", "b2Vwdw"])
def test_the_log_tells_of_no_fault_and_no_password(word: str, our_door: Door) -> None:
    assert word not in our_door.daemon.log()


@every_transcript
def test_a_difference_has_its_reason(transcript: Transcript) -> None:
    assert (transcript.here is None) == (transcript.because == "")


@pytest.mark.interop("dovecot")
def test_the_greeting_is_dovecots(their_socket: Path, our_door: Door) -> None:
    with DovecotClient(their_socket) as them, DovecotClient(our_door.path) as us:
        their_words = [line.split(b"\t")[0] for line in them.greeting]
        their_mechanisms = sorted(line for line in them.greeting if line.startswith(b"MECH"))
        our_words = [line.split(b"\t")[0] for line in us.greeting]
        our_mechanisms = sorted(line for line in us.greeting if line.startswith(b"MECH"))

    assert us.greeting[0] == them.greeting[0]
    assert our_words == their_words
    assert our_mechanisms == their_mechanisms


class TestDelay:
    """A refusal is held; what else the client asks is answered meanwhile."""

    @pytest.mark.interop("dovecot")
    def test_a_success_overtakes_a_refusal_in_dovecot(self, their_socket: Path) -> None:
        with DovecotClient(their_socket) as client:
            client.say(HANDSHAKE + WRONG + RIGHT)

            assert [client.hear(), client.hear()] == [b"OK\t2\tuser=joe", b"FAIL\t1\tuser=joe"]

    def test_a_success_overtakes_a_refusal_here(self, as_root: None) -> None:
        with (
            short_directory("sd-") as directory,
            dovecot_door(directory, USERS, settings=f"{SETTINGS} 3.0\n") as door,
            DovecotClient(door.path) as client,
        ):
            client.say(HANDSHAKE + WRONG + RIGHT)

            assert [client.hear(), client.hear()] == [b"OK\t2\tuser=joe", b"FAIL\t1\tuser=joe"]
