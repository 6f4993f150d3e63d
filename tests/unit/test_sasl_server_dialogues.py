"""The exchanges of tests/vectors/sasl, seen from the server; and clients that say wrong things."""

import pytest

from pysaslauthd.sasl.digest_md5 import CHALLENGE_BOUND, parse_directives
from tests.helpers.sasl_dialogues import Dialogue, good
from tests.helpers.sasl_own_server import WRONG_PASSWORD, OwnServer
from tests.helpers.sasl_server_dialogues import ClientFault, bad_clients, mechanism_of, server_of
from tests.helpers.sasl_servers import REFUSAL, Reply

with_password = pytest.mark.parametrize(
    "dialogue", [d for d in good() if d.mechanism != "EXTERNAL"], ids=lambda d: d.name
)


def talk(server: OwnServer, dialogue: Dialogue, messages: list[bytes | None]) -> list[Reply]:
    """Return what *server* says to each of *messages*, until it has nothing to say to one."""
    replies = [server.start(mechanism_of(dialogue), messages[0])]
    for message in messages[1:]:
        if replies[-1] == REFUSAL:
            break
        replies.append(server.answer(message or b""))
    return replies


@pytest.mark.parametrize("dialogue", good(), ids=lambda d: d.name)
def test_the_server_lets_in_who_the_dialogue_is_about(dialogue: Dialogue) -> None:
    server = server_of(dialogue)

    replies = talk(server, dialogue, dialogue.client)

    credentials = dialogue.credentials
    user = credentials.authcid or "joe"
    assert (replies[-1].is_success, replies[-1].user) == (True, user)
    assert server.named == (user, credentials.authzid)


@pytest.mark.parametrize(
    "dialogue", [d for d in good() if d.mechanism != "DIGEST-MD5"], ids=lambda d: d.name
)
def test_the_server_says_what_the_dialogue_has(dialogue: Dialogue) -> None:
    replies = talk(server_of(dialogue), dialogue, dialogue.client)

    assert [reply.data for reply in replies if reply.data is not None] == dialogue.server


@pytest.mark.parametrize(
    "dialogue", [d for d in good() if d.mechanism == "DIGEST-MD5"], ids=lambda d: d.name
)
def test_a_digest_md5_server_says_the_same_in_whatever_order(dialogue: Dialogue) -> None:
    replies = talk(server_of(dialogue), dialogue, dialogue.client)

    said = [parse_directives(reply.data, CHALLENGE_BOUND) for reply in replies if reply.data]
    assert said == [parse_directives(message, CHALLENGE_BOUND) for message in dialogue.server]


@with_password
def test_another_password_is_refused_at_the_end(dialogue: Dialogue) -> None:
    server = server_of(dialogue)
    users = {dialogue.credentials.authcid: "another"}
    other = OwnServer(users, server.surroundings)

    talk(other, dialogue, dialogue.client)

    assert other.finished is not None
    assert other.finished.result == WRONG_PASSWORD
    assert other.finished.data is None


@with_password
def test_a_user_is_asked_about_once(dialogue: Dialogue) -> None:
    server = server_of(dialogue)

    talk(server, dialogue, dialogue.client)

    assert [step.authcid for step in server.asked] == [dialogue.credentials.authcid]


@pytest.mark.parametrize("fault", bad_clients(), ids=lambda f: f.name)
def test_a_bad_message_is_refused(fault: ClientFault) -> None:
    server = server_of(fault.dialogue)
    messages = [*fault.dialogue.client[: fault.at], fault.client]

    talk(server, fault.dialogue, messages)

    assert (server.malformed, server.finished) == (fault.error, None)
    assert server.asked == []
