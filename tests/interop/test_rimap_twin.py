"""The C daemon's rimap and ours, side by side, with the same IMAP servers."""

from collections.abc import Iterator

import pytest

from pysaslauthd.backends.rimap import Rimap
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError
from pysaslauthd.model import (
    AuthRequest,
    AuthResult,
    Origin,
    Secret,
    Unavailable,
)
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.remote.connect import Connector
from pysaslauthd.remote.endpoint import Endpoint, Security
from pysaslauthd.wire.mux import decode_reply, encode_result
from tests.helpers.cyrus import Cyrus, cyrus, refuses_to_start
from tests.helpers.dovecot import Dovecot, dovecot
from tests.helpers.imap_server import HANG_UP, HEAR, RESET, Act, ImapServer, imap_server
from tests.helpers.processes import DEADLINE

pytestmark = [pytest.mark.interop("saslauthd", "dovecot"), pytest.mark.usefixtures("as_root")]

HERE = "127.0.0.1"
GREETING = b"* OK [CAPABILITY IMAP4rev1 LITERAL+] ready\r\n"
OK, NO = b"saslauthd OK in\r\n", b"saslauthd NO out\r\n"
YES_REPLY = b"OK remote authentication successful"
NO_REPLY = b"NO remote server rejected your credentials"
UNEXPECTED = b"NO [ALERT] Unexpected response from remote authentication server"
NOT_NOW = b"NO [ALERT] The remote authentication server is currently unavailable"
NO_CONTACT = b"NO [ALERT] Couldn't contact remote authentication server"
NOT_IN_STEP = b"NO [ALERT] error synchronizing with remote authentication server"
INTERNAL = b"NO [ALERT] saslauthd internal error"

USERS = {
    "joe": b"pw",
    "ann lee": b" two words ",
    "zoë": "pässwörd €".encode(),
    "quotes": b'"\\"',
    "latin": b"caf\xe9",
    "braces": b"{3}",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[ImapServer]:
    """Return a server that follows the script of the test."""
    with imap_server() as server:
        yield server


@pytest.fixture(scope="module")
def twin(stage: ImapServer) -> Iterator[Cyrus]:
    with cyrus("rimap", "-O", f"{HERE}/{stage.port}") as running:
        yield running


async def ask_ours(port: int, user: str = "joe", password: bytes = b"pw") -> AuthResult:
    made = Rimap(Connector(Endpoint(HERE, port, Security.NONE), None, DEADLINE), DEADLINE, 4)
    result = await made.verify(AuthRequest(user, Secret(password), "", Origin("imap"), 0.0))
    await made.close()
    return result


def reply(result: AuthResult) -> bytes | None:
    """Return what the mux door says for a verdict; None for an outage."""
    return decode_reply(encode_result(result, b"\0\0")) or None


class TestTheSame:
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            pytest.param(OK, YES_REPLY, id="yes"),
            pytest.param(NO, NO_REPLY, id="no"),
            pytest.param(b"saslauthd OK\r\n", YES_REPLY, id="bare-yes"),
            pytest.param(b"saslauthd NO\r\n", NO_REPLY, id="bare-no"),
            pytest.param(b"saslauthd OK\n", YES_REPLY, id="bare-lf"),
            pytest.param(b"* CAPABILITY IMAP4rev1\r\n" + OK, YES_REPLY, id="capabilities"),
            pytest.param(b"* CAPABILITY A\r\n* CAPABILITY B\r\n" + NO, NO_REPLY, id="two-of-them"),
            pytest.param(b"saslauthd NO [AUTHENTICATIONFAILED] x\r\n", NO_REPLY, id="failed"),
            pytest.param(b"saslauthd NO [EXPIRED] x\r\n", NO_REPLY, id="expired"),
            pytest.param(b"saslauthd NO [AUTHORIZATIONFAILED] x\r\n", NO_REPLY, id="authorization"),
            pytest.param(b"saslauthd NO [CONTACTADMIN] x\r\n", NO_REPLY, id="contact"),
            pytest.param(b"saslauthd NO [ALERT] x\r\n", NO_REPLY, id="alert"),
            pytest.param(b"saslauthd OK [ALERT] x\r\n", YES_REPLY, id="alert-yes"),
            pytest.param(b"saslauthd NO [X-NEW] x\r\n", NO_REPLY, id="unknown-code"),
        ],
    )
    async def test_an_answer(
        self, stage: ImapServer, twin: Cyrus, answer: bytes, text: bytes
    ) -> None:
        stage.script = [GREETING, HEAR, answer]

        ours = await ask_ours(stage.port)

        assert reply(ours) == twin.ask("joe", b"pw") == text

    @pytest.mark.parametrize(
        "greeting",
        [
            pytest.param(b"* OK [CAPABILITY IMAP4rev1]\n", id="bare-lf"),
            pytest.param(GREETING + b"* OK note\r\n", id="and-more"),
            pytest.param(GREETING + b"* CAPABILITY IMAP4rev1\r\n", id="and-capabilities"),
        ],
    )
    async def test_a_greeting(self, stage: ImapServer, twin: Cyrus, greeting: bytes) -> None:
        stage.script = [greeting, HEAR, OK]

        ours = await ask_ours(stage.port)

        assert reply(ours) == twin.ask("joe", b"pw") == YES_REPLY

    @pytest.mark.parametrize(
        ("user", "password"),
        [("joe", b"pw"), ("ann lee", b" two words "), ('quo"te\\', b'"\\"'), ("joe@r", b"{3}~")],
    )
    async def test_what_is_sent(
        self, stage: ImapServer, twin: Cyrus, user: str, password: bytes
    ) -> None:
        stage.script = [GREETING, HEAR, OK]
        await stage.all_heard()

        await ask_ours(stage.port, user, password)
        twin.ask(user, password)

        ours, theirs = (await stage.all_heard())[-2:]
        assert ours == theirs


class TestOutagesWhereTheirsSaysNo:
    @pytest.mark.parametrize(
        ("script", "theirs"),
        [
            pytest.param([HANG_UP], UNEXPECTED, id="hangs-up"),
            pytest.param([b"* BYE x\r\n"], NOT_NOW, id="bye"),
            pytest.param([b"* NO x\r\n"], NOT_NOW, id="no"),
            pytest.param([b"* PREAUTH x\r\n"], UNEXPECTED, id="preauth"),
            pytest.param([b"\0\1 * \n"], UNEXPECTED, id="garbage"),
            pytest.param([b"x" * 9000 + b"\n"], NOT_IN_STEP, id="long-greeting"),
            pytest.param([GREETING, HEAR, HANG_UP], UNEXPECTED, id="hangs-up-later"),
            pytest.param([GREETING, HEAR, RESET], INTERNAL, id="reset"),
            pytest.param([GREETING, HEAR, b"saslauthd OK", HANG_UP], UNEXPECTED, id="half"),
            pytest.param([GREETING, HEAR, b"saslauthd BAD x\r\n"], UNEXPECTED, id="bad"),
            pytest.param([GREETING, HEAR, b"a1 OK\r\n", HANG_UP], UNEXPECTED, id="other-tag"),
            pytest.param([GREETING, HEAR, b"* BYE x\r\n" + NO], UNEXPECTED, id="bye-later"),
            pytest.param([GREETING, HEAR, b"saslauthd OKAY\r\n"], YES_REPLY, id="okay"),
            pytest.param([GREETING, HEAR, b"saslauthd NOPE\r\n"], NO_REPLY, id="nope"),
            pytest.param([GREETING + OK, HEAR, NO], NO_REPLY, id="early"),
            *(
                pytest.param(
                    [GREETING, HEAR, b"saslauthd NO [%b] x\r\n" % code], NO_REPLY, id=code.decode()
                )
                for code in [b"UNAVAILABLE", b"SERVERBUG", b"LIMIT", b"INUSE", b"PRIVACYREQUIRED"]
            ),
        ],
    )
    async def test_a_server(
        self, stage: ImapServer, twin: Cyrus, script: list[Act], theirs: bytes
    ) -> None:
        stage.script = script

        ours = await ask_ours(stage.port)

        assert twin.ask("joe", b"pw") == theirs
        assert isinstance(ours, Unavailable)

    async def test_login_that_is_disabled(self, stage: ImapServer, twin: Cyrus) -> None:
        stage.script = [b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] x\r\n", HEAR, NO]

        ours = await ask_ours(stage.port)

        assert isinstance(ours, Unavailable)
        assert (await stage.all_heard())[-1] == b"saslauthd LOGOUT\r\n"
        assert twin.ask("joe", b"pw") == NO_REPLY
        assert (await stage.all_heard())[-1].startswith(b'saslauthd LOGIN "joe" "pw"')


class TestAnswersWhereTheirsIsAnError:
    @pytest.mark.parametrize(
        ("answer", "theirs", "ours"),
        [
            pytest.param(b"* OK note\r\n" + OK, UNEXPECTED, YES_REPLY, id="note"),
            pytest.param(b"* X {2}\r\n\r\n\r\n" + NO, UNEXPECTED, NO_REPLY, id="data"),
            pytest.param(b"saslauthd ok\r\n", UNEXPECTED, YES_REPLY, id="lower-case"),
            pytest.param(OK[:-2].ljust(1500) + b"\r\n", INTERNAL, YES_REPLY, id="long"),
        ],
    )
    async def test_an_answer(
        self, stage: ImapServer, twin: Cyrus, answer: bytes, theirs: bytes, ours: bytes
    ) -> None:
        stage.script = [GREETING, HEAR, answer]

        found = await ask_ours(stage.port)

        assert twin.ask("joe", b"pw") == theirs
        assert reply(found) == ours

    async def test_what_does_not_print_is_a_literal_where_theirs_is_quoted(
        self, stage: ImapServer, twin: Cyrus
    ) -> None:
        stage.script = [GREETING, HEAR, OK]
        await stage.all_heard()

        await ask_ours(stage.port, password=b"p\r\na LOGOUT")
        twin.ask("joe", b"p\r\na LOGOUT")

        ours, theirs = (await stage.all_heard())[-2:]
        assert ours.startswith(b'saslauthd LOGIN "joe" {11+}\r\np\r\na LOGOUT\r\n')
        assert theirs.startswith(b'saslauthd LOGIN "joe" "p\r\na LOGOUT"\r\n')


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with dovecot(USERS) as running:
        yield running


@pytest.fixture(scope="module")
def twin_of(server: Dovecot) -> Iterator[Cyrus]:
    """Return a C daemon that asks the same Dovecot."""
    with cyrus("rimap", "-O", f"{HERE}/{server.port}") as running:
        yield running


class TestWithDovecot:
    @pytest.mark.parametrize("user", USERS)
    async def test_a_right_password(self, server: Dovecot, twin_of: Cyrus, user: str) -> None:
        ours = await ask_ours(server.port, user, USERS[user])

        assert reply(ours) == twin_of.ask(user, USERS[user]) == YES_REPLY

    @pytest.mark.parametrize(
        ("user", "password"),
        [("joe", b"PW"), ("joe", b"pw "), ("JOE", b"pw"), ("nobody-here", b"pw")],
    )
    async def test_a_wrong_one(
        self, server: Dovecot, twin_of: Cyrus, user: str, password: bytes
    ) -> None:
        ours = await ask_ours(server.port, user, password)

        assert reply(ours) == twin_of.ask(user, password) == NO_REPLY

    async def test_a_server_that_is_gone(self) -> None:
        with dovecot(USERS) as server, cyrus("rimap", "-O", f"{HERE}/{server.port}") as c:
            server.stop()

            assert c.ask("joe", b"pw") == NO_CONTACT
            assert isinstance(await ask_ours(server.port), Unavailable)


class TestTheStart:
    @pytest.mark.parametrize(
        "option", ["", "/143", "127.0.0.1/nosuchservice", "127.0.0.1/143/x", "[::1]/143", "a:143"]
    )
    def test_both_refuse_what_names_no_server(self, option: str) -> None:
        settings = Settings(mechanism="rimap", mechanism_option=option)

        assert refuses_to_start("rimap", "-O", option)
        with pytest.raises(StartupError):
            find_mechanism(settings).configure(settings)

    def test_both_refuse_to_start_without_a_server(self) -> None:
        settings = Settings(mechanism="rimap")

        assert refuses_to_start("rimap")
        with pytest.raises(StartupError, match="rimap_init: no hostname specified"):
            find_mechanism(settings).configure(settings)

    def test_a_name_that_does_not_resolve_is_no_reason_where_theirs_does_not_start(self) -> None:
        settings = Settings(mechanism="rimap", mechanism_option="imaps://nowhere.invalid")
        mechanism = find_mechanism(settings)

        assert refuses_to_start("rimap", "-O", "nowhere.invalid")
        mechanism.check(mechanism.configure(settings))
