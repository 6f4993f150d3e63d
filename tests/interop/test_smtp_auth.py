"""AUTH as we offer and answer it, beside a real Postfix that asks a real Dovecot."""

import base64
import itertools
import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted, Reason, Rejected, Secret
from pysaslauthd.sasl.server.mechanism import (
    CheckPassword,
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
)
from pysaslauthd.sasl.server.plain import PLAIN
from pysaslauthd.sasl.server.registry import BY_NAME
from pysaslauthd.smtp.banner import Offer, in_order
from pysaslauthd.smtp.dialogue import Connection, Dialogue, Reply, Respond, Start, Tries
from pysaslauthd.smtp.options import KNOWN, Policy, SecurityOptions
from tests.helpers.certificates import Authority
from tests.helpers.dovecot_auth import dovecot
from tests.helpers.postfix import HOST_NAME, Postfix, postfix_directory, running_postfix
from tests.helpers.processes import DEADLINE, free_ports, short_directory
from tests.helpers.sasl_own_server import proceed

pytestmark = pytest.mark.interop("postfix", "dovecot")

MECHANISMS = (
    "plain login anonymous cram-md5 digest-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2"
    " external"
)
HERE = Surroundings(HOST_NAME, Secret(b"key"))
SERVICE = (
    "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_sasl_security_options={before}"
    " -o smtpd_sasl_tls_security_options={after} -o smtpd_tls_auth_only={only}"
    " -o broken_sasl_auth_clients={broken}\n"
)
TLS_SERVICE = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
SUBSETS = [
    ",".join(words)
    for number in range(len(KNOWN) + 1)
    for words in itertools.combinations(KNOWN, number)
]


class Case(NamedTuple):
    """What a Postfix's parameters are."""

    before: str
    after: str
    only: str = "no"
    broken: str = "yes"

    @property
    def policy(self) -> Policy:
        before, after = SecurityOptions.parse(self.before), SecurityOptions.parse(self.after)
        return Policy(before, after, only_with_tls=self.only == "yes")


CASES = [
    *(Case(words, words, only) for words in SUBSETS for only in ("no", "yes")),
    *(Case("noplaintext", "noanonymous", "no", broken) for broken in ("no", "yes")),
    Case("", "noplaintext", "yes", "no"),
]


class Seen(NamedTuple):
    """The lines of EHLO's reply that are about AUTH and STARTTLS; None where there was no reply."""

    before: list[str] | None
    after: list[str] | None


def ehlo(client: socket.socket, greeting: bool) -> list[str] | None:  # noqa: FBT001 (of the test)
    lines = client.makefile("rb")
    if greeting and not lines.readline().startswith(b"220"):
        return None
    client.sendall(b"EHLO client.test.example\r\n")
    said = []
    while (line := lines.readline())[3:4] == b"-":
        said.append(line[4:].decode().strip())
    if not line:
        return None
    return [one for one in [*said, line[4:].decode().strip()] if one.startswith(("AUTH", "STARTT"))]


def look(port: int) -> Seen:
    """Return what the Postfix at *port* offers before and after STARTTLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
        before = ehlo(client, greeting=True)
        if before is None:
            return Seen(None, None)
        client.sendall(b"STARTTLS\r\n")
        assert client.recv(100).startswith(b"220")
        with context.wrap_socket(client) as secured:
            return Seen(before, ehlo(secured, greeting=False))


def our_lines(case: Case, mechanisms: tuple[Mechanism, ...]) -> Seen:
    """Return what we offer; nothing at all where Postfix has nothing to offer, and gives up."""
    offer = Offer(mechanisms, case.policy, broken_clients=case.broken == "yes")
    before = offer.lines(offer.now(HERE, secured=False))
    after = offer.lines(offer.now(HERE, secured=True))
    if not before and case.only == "no":
        assert offer.warnings(HERE, HERE)
        return Seen(None, None)
    return Seen(in_order([*before, "STARTTLS"]), after or None)


def offered_by(path: Path) -> Iterator[Mechanism]:
    """Yield the mechanisms of the Dovecot at *path*, with the traits that it ascribes to them."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        for line in client.makefile():
            word, *fields = line.rstrip("\n").split("\t")
            if word == "DONE":
                return
            if word == "MECH":
                traits = {field.replace("-", "_") for field in fields[1:]} & set(Traits._fields)
                need = Need.EXTERNAL_IDENTITY if fields[0] == "EXTERNAL" else Need.NOTHING
                yield Mechanism(fields[0], need, Traits(**dict.fromkeys(traits, True)), PLAIN.start)


@pytest.fixture(scope="module")
def peers() -> Iterator[tuple[Postfix, Path, dict[Case, int]]]:
    """Return a Postfix, the socket of the Dovecot that it asks, and a port for each case."""
    ports = dict(zip(CASES, free_ports(len(CASES)), strict=True))
    services = TLS_SERVICE + "".join(
        SERVICE.format(port=port, **case._asdict()) for case, port in ports.items()
    )
    with (
        short_directory("da-") as own,
        dovecot(own, {"joe": "{PLAIN}joepw"}, [], MECHANISMS) as path,
        postfix_directory() as directory,
    ):
        path.chmod(0o666)
        certificate = Authority(own).issue()
        main = {
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": path,
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": certificate.certificate,
            "smtpd_tls_key_file": certificate.key,
            "smtpd_tls_loglevel": "0",
            "smtpd_hard_error_limit": "100",
            "max_use": "1",
        }
        with running_postfix(directory, {}, main, services=services) as postfix:
            yield postfix, path, ports


@pytest.fixture(scope="module")
def mechanisms(peers: tuple[Postfix, Path, dict[Case, int]]) -> tuple[Mechanism, ...]:
    return tuple(offered_by(peers[1]))


@pytest.fixture(scope="module")
def seen(peers: tuple[Postfix, Path, dict[Case, int]]) -> dict[Case, Seen]:
    """Return what Postfix offers in each case; all are asked at once, for each takes its time."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(CASES, pool.map(look, peers[2].values()), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case).replace(",", "+"))
def test_the_same_options_offer_the_same_mechanisms(
    case: Case, seen: dict[Case, Seen], mechanisms: tuple[Mechanism, ...]
) -> None:
    assert our_lines(case, mechanisms) == seen[case]


def test_our_mechanisms_are_what_dovecot_takes_them_for(
    mechanisms: tuple[Mechanism, ...],
) -> None:
    theirs = {one.name: one.traits for one in mechanisms}
    ours = {name: one.traits for name, one in BY_NAME.items() if name in theirs}

    assert ours == {name: traits for name, traits in theirs.items() if name in ours}
    assert {"PLAIN", "ANONYMOUS", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256"} <= set(ours)


def test_ehlo_has_the_lines_in_postfixs_order(
    peers: tuple[Postfix, Path, dict[Case, int]],
) -> None:
    postfix = peers[0]
    with socket.create_connection(("127.0.0.1", postfix.port), timeout=DEADLINE) as client:
        client.sendall(b"EHLO client.test.example\r\n")
        lines = client.makefile()
        said = [lines.readline() for _ in range(12)][2:]
    said = [line[4:].strip() for line in said]

    assert in_order(reversed(said)) == said


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


REASON = re.compile("authentication failure|bad protocol / cancel")
RIGHT, WRONG = b64(b"\0joe\0joepw"), b64(b"\0joe\0wrong")


def postfix_says(port: int, lines: list[bytes]) -> list[str]:
    """Return the last lines of Postfix's replies to *lines*, after EHLO."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
        replies = client.makefile("rb")
        said: list[str] = []
        for line in [b"", b"EHLO client.test.example", *lines]:
            client.sendall(line + b"\r\n" if line or said else b"")
            while (reply := replies.readline())[3:4] == b"-":
                pass
            said.append(reply.decode().rstrip("\r\n"))
    return said[2:]


def we_say(lines: list[bytes]) -> list[str]:
    """Return our replies to the same, where MAIL is always taken."""
    dialogue = Dialogue(HOST_NAME, Tries(most=100))
    said: list[str] = []
    awaits, exchange, mail = False, None, False
    for line in lines:
        if line.startswith(b"MAIL"):
            mail = True
            said.append("250 2.1.0 Ok")
            continue
        if awaits:
            step: Start | Respond | Reply = dialogue.hear(line)
        else:
            connection = Connection(in_transaction=mail)
            step = dialogue.begin(line[4:], connection, [PLAIN])
        if isinstance(step, Start):
            exchange = step.mechanism.start(HERE, step.initial)
            step = go_on(dialogue, exchange, None)
        elif isinstance(step, Respond):
            assert exchange is not None
            step = go_on(dialogue, exchange, step.response)
        awaits = step.awaits_response
        said += step.lines
    return said


def go_on(dialogue: Dialogue, exchange: Script, response: bytes | None) -> Reply:
    try:
        step = proceed(exchange, response)
    except MalformedMessage as error:
        return dialogue.tell(Finished(Rejected(Reason.MALFORMED, "PLAIN", str(error)), ""))
    if isinstance(step, CheckPassword):
        is_right = (step.authcid, step.password) == ("joe", Secret(b"joepw"))
        no = Rejected(Reason.WRONG_PASSWORD, "test")
        step = proceed(exchange, Accepted("joe", "test") if is_right else no)
    assert not isinstance(step, CheckPassword)
    return dialogue.tell(step)  # type: ignore[arg-type]  # PLAIN fetches no password


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"AUTH"], id="no-argument"),
        pytest.param([b"AUTH PLAIN a b"], id="too-many-arguments"),
        pytest.param([b"AUTH FOO"], id="unknown-mechanism"),
        pytest.param([b"AUTH FOO ="], id="unknown-mechanism-with-response"),
        pytest.param([b"AUTH PLAIN *"], id="star-at-once"),
        pytest.param([b"AUTH PLAIN !!!"], id="no-base64-at-once"),
        pytest.param([b"AUTH PLAIN AG"], id="base64-without-padding"),
        pytest.param([b"AUTH PLAIN AA=A"], id="base64-with-early-padding"),
        pytest.param([b"AUTH PLAIN AAAA===="], id="base64-with-too-much-padding"),
        pytest.param([b"AUTH PLAIN", b"*"], id="cancelled"),
        pytest.param([b"AUTH PLAIN", b" *"], id="cancelled-after-a-space"),
        pytest.param([b"AUTH PLAIN", b"* "], id="cancelled-before-a-space"),
        pytest.param([b"AUTH PLAIN", b"!!"], id="no-base64"),
        pytest.param([b"AUTH PLAIN", b"="], id="equals-sign-later"),
        pytest.param([b"AUTH PLAIN", b" " + RIGHT], id="space-before"),
        pytest.param([b"AUTH PLAIN", RIGHT + b" "], id="space-after"),
        pytest.param([b"AUTH PLAIN", b"A" * 12289], id="too-long"),
        pytest.param([b"AUTH PLAIN", b"A" * 13000, b"AUTH"], id="much-too-long"),
        pytest.param([b"AUTH PLAIN", RIGHT], id="right"),
        pytest.param([b"AUTH PLAIN " + RIGHT], id="right-at-once"),
        pytest.param([b"auth  pLaIn\t" + RIGHT + b" "], id="any-case-and-white-space"),
        pytest.param([b"AUTH PLAIN " + RIGHT, b"AUTH PLAIN", b"AUTH"], id="twice"),
        pytest.param([b"AUTH PLAIN " + RIGHT, b"MAIL FROM:<a@b.c>", b"AUTH"], id="transaction"),
        pytest.param([b"MAIL FROM:<a@b.c>", b"AUTH PLAIN", b"AUTH FOO"], id="transaction-first"),
        pytest.param([b"AUTH <PLAIN> ="], id="in-brackets"),
    ],
)
def test_what_is_malformed_gets_the_same_reply(
    lines: list[bytes], peers: tuple[Postfix, Path, dict[Case, int]]
) -> None:
    assert we_say(lines) == postfix_says(peers[0].port, lines)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"AUTH PLAIN " + WRONG, b"AUTH PLAIN"], id="wrong"),
        pytest.param([b"AUTH PLAIN ="], id="empty-at-once"),
        pytest.param([b"AUTH PLAIN", b""], id="empty"),
        pytest.param([b"AUTH PLAIN " + b64(b"\0joe")], id="no-password"),
        pytest.param([b"AUTH PLAIN " + b64(b"\0joe\0joepw\0")], id="too-many-parts"),
    ],
)
def test_what_is_refused_gets_the_same_reply_but_for_the_reason(
    lines: list[bytes], peers: tuple[Postfix, Path, dict[Case, int]]
) -> None:
    expected = postfix_says(peers[0].port, lines)

    said = we_say(lines)

    # Dovecot gives no reason; Cyrus SASL says what we say.
    assert [REASON.sub("(reason unavailable)", line) for line in said] == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param([b"AUTH PLAIN " + b64(b"x" * 2000)], id="initial-response-over-2048"),
        pytest.param([b"AUTH PLAIN", b64(b"x" * 9216)], id="response-at-the-limit-of-the-rfc"),
    ],
)
def test_what_rfc_4954_allows_and_postfix_cuts_is_heard(
    line: list[bytes], peers: tuple[Postfix, Path, dict[Case, int]]
) -> None:
    theirs = postfix_says(peers[0].port, line)[-1]

    assert we_say(line)[-1].endswith("bad protocol / cancel")  # PLAIN's own word: no such message
    assert "Invalid base64" in theirs or "limit exceeded" in theirs
