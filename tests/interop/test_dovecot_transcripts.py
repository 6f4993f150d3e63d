"""The same bytes to a real Dovecot's authentication server and to our door."""

from collections.abc import Iterator

import pytest

from tests.helpers.dovecot_auth import dovecot
from tests.helpers.dovecot_transcripts import TRANSCRIPTS, Transcript, all_answers, fits
from tests.helpers.processes import short_directory

MECHANISMS = "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 anonymous external"
USERS = {"joe": "{PLAIN}joepw", "ann": "{PLAIN}annpw"}

every_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)


def are(answers: list[bytes], expected: list[str]) -> bool:
    return len(answers) == len(expected) and all(map(fits, answers, expected))


@pytest.fixture(scope="module")
def by_dovecot(as_root: None) -> Iterator[dict[str, list[bytes]]]:
    with short_directory("da-") as directory, dovecot(directory, USERS, [], MECHANISMS) as path:
        yield all_answers(path, lambda transcript: transcript.hears)


@pytest.mark.interop("dovecot")
@every_transcript
def test_dovecot_answers_as_the_table_says(
    transcript: Transcript, by_dovecot: dict[str, list[bytes]]
) -> None:
    answers = by_dovecot[transcript.name]

    assert are(answers, transcript.hears), answers
