"""The exchanges of tests/vectors/sasl, which other people's programs and the RFCs had."""

import re

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.sasl.client import ServerNotGenuine
from tests.helpers.sasl_dialogues import Dialogue, Fault, bad, good

every_dialogue = pytest.mark.parametrize("dialogue", good(), ids=lambda d: d.name)
every_mutual_one = pytest.mark.parametrize(
    "dialogue", [dialogue for dialogue in good() if dialogue.is_mutual], ids=lambda d: d.name
)
every_fault = pytest.mark.parametrize("fault", bad(), ids=lambda f: f.name)


@every_dialogue
def test_the_client_says_what_it_must(dialogue: Dialogue) -> None:
    exchange = dialogue.exchange()

    said = [exchange.initial, *map(exchange.respond, dialogue.server)]
    exchange.finish(None)

    assert said == dialogue.client


@every_dialogue
def test_empty_data_beside_a_success_are_none(dialogue: Dialogue) -> None:
    exchange = dialogue.exchange(after=len(dialogue.server))

    exchange.finish(b"")


@every_mutual_one
def test_a_server_may_prove_itself_together_with_its_success(dialogue: Dialogue) -> None:
    exchange = dialogue.exchange(after=len(dialogue.server) - 1)

    exchange.finish(dialogue.server[-1])


@every_mutual_one
@pytest.mark.parametrize("data", [None, b""], ids=["no-data", "empty-data"])
def test_a_success_without_a_proof_is_not_believed(dialogue: Dialogue, data: bytes | None) -> None:
    exchange = dialogue.exchange(after=len(dialogue.server) - 1)

    with pytest.raises(ServerNotGenuine, match="success before the exchange's end"):
        exchange.finish(data)


@pytest.mark.parametrize(
    "dialogue", [dialogue for dialogue in good() if dialogue.server], ids=lambda d: d.name
)
def test_a_success_before_the_first_challenge_is_not_believed(dialogue: Dialogue) -> None:
    exchange = dialogue.exchange()

    with pytest.raises(ServerNotGenuine):
        exchange.finish(None)


@pytest.mark.parametrize(
    "dialogue", [dialogue for dialogue in good() if dialogue.server], ids=lambda d: d.name
)
def test_a_challenge_beside_a_success_is_not_answered(dialogue: Dialogue) -> None:
    exchange = dialogue.exchange()

    with pytest.raises(ServerNotGenuine, match="success before the client's last message"):
        exchange.finish(dialogue.server[0])


@every_fault
def test_a_bad_challenge_is_refused(fault: Fault) -> None:
    exchange = fault.dialogue.exchange(fault.after)

    with pytest.raises(MalformedMessage, match=f"^{re.escape(fault.error)}$"):
        exchange.respond(fault.server)


@pytest.mark.parametrize("fault", [f for f in bad() if f.server], ids=lambda f: f.name)
def test_bad_data_beside_a_success_are_refused(fault: Fault) -> None:
    exchange = fault.dialogue.exchange(fault.after)

    with pytest.raises(MalformedMessage, match=f"^{re.escape(fault.error)}$"):
        exchange.finish(fault.server)


@every_fault
def test_after_a_bad_challenge_nothing_is_good(fault: Fault) -> None:
    exchange = fault.dialogue.exchange(fault.after)
    with pytest.raises(MalformedMessage):
        exchange.respond(fault.server)

    for challenge in fault.dialogue.server[fault.after :]:
        with pytest.raises(MalformedMessage, match=re.escape(fault.error)):
            exchange.respond(challenge)
    with pytest.raises(MalformedMessage, match=re.escape(fault.error)):
        exchange.finish(None)
