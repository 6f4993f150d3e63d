"""The backend `-a ldap` with servers that answer as a test tells them to."""

import asyncio
import time

import pytest

from pysaslauthd.backends.ldap.verifier import Ldap
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Ldap as Table
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.names import Names
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Deadlines,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from pysaslauthd.wire import ber, ldap
from tests.contract.verifier import settled
from tests.helpers.backends import backend
from tests.helpers.ldap_server import (
    BUSY,
    INVALID_CREDENTIALS,
    LdapServer,
    Request,
    answer_all,
    entry,
    ldap_server,
    result,
)
from tests.helpers.processes import free_port

OK = Accepted("joe", "ldap")


def settings(*servers: LdapServer, **values: object) -> Settings:
    uris = tuple(f"ldap://127.0.0.1:{server.port}/" for server in servers)
    table = Table(servers=uris, **values)  # type: ignore[arg-type]  # any of its settings
    return Settings(mechanism="ldap", ldap=table)


async def ask(asked: Settings, password: str = "pw") -> AuthResult:
    async with backend(asked) as subject:
        return await subject.ask("joe", password)


async def busy(request: Request) -> bytes:
    return result(request, BUSY, b"try the other")


async def refuse_binds(request: Request) -> bytes:
    if request.tag == ldap.BIND_REQUEST:
        return result(request, INVALID_CREDENTIALS, b"wrong: hunter2")
    return await answer_all(request)


async def say_nothing(_request: Request) -> bytes:
    return b""


async def test_who_can_bind_is_let_in() -> None:
    async with ldap_server() as server:
        assert await ask(settings(server)) == OK


async def test_an_empty_password_never_reaches_a_server() -> None:
    async with ldap_server() as server:
        async with backend(settings(server)) as subject:
            before = len(server.requests)
            refused = await subject.ask("joe", "")

        assert isinstance(refused, Rejected)
        assert ldap.BIND_REQUEST not in [one.tag for one in server.requests[before:]]


async def test_a_busy_server_is_no_reason_to_give_up() -> None:
    async with ldap_server(busy) as first, ldap_server() as second:
        assert await ask(settings(first, second)) == OK


async def test_where_all_are_busy_each_says_so() -> None:
    async with ldap_server(busy) as first, ldap_server(busy) as second:
        verdict = await ask(settings(first, second))

    assert isinstance(verdict, Unavailable)
    assert verdict.detail == "; ".join(
        f"ldap://127.0.0.1:{one.port}/: busy (51): try the other" for one in (first, second)
    )


async def test_a_server_that_is_busy_once_is_asked_the_next_time() -> None:
    async with ldap_server(busy) as server, backend(settings(server)) as subject:
        first = await subject.ask("joe", "pw")
        server.respond = answer_all

        assert isinstance(first, Unavailable)
        assert await subject.ask("joe", "pw") == OK


async def test_a_bind_that_is_not_judged_is_an_outage() -> None:
    async def refer(request: Request) -> bytes:
        if request.tag == ldap.BIND_REQUEST:
            return result(request, 10)
        return await answer_all(request)

    async with ldap_server(refer) as server:
        verdict = await ask(settings(server))

    assert isinstance(verdict, Unavailable)
    assert "it does not judge the password: referral (10)" in verdict.detail


async def test_a_password_in_what_a_server_says_is_not_shown() -> None:
    async with ldap_server(refuse_binds) as server:
        shown = await ask(settings(server), "another")
        hidden = await ask(settings(server), "hunter2")

    assert isinstance(shown, Rejected)
    assert shown.detail == "wrong password: invalid credentials (49): wrong: hunter2"
    assert isinstance(hidden, Rejected)
    assert hidden.detail == "wrong password: invalid credentials (49)"


async def test_a_search_that_may_not_be_finished_is_an_outage() -> None:
    async def too_long(request: Request) -> bytes:
        return entry(request) + result(request, 3)

    async with ldap_server(too_long) as server:
        verdict = await ask(settings(server))

    assert isinstance(verdict, Unavailable)
    assert "time limit exceeded (3)" in verdict.detail


async def test_a_limit_without_an_entry_is_no_unknown_user() -> None:
    async def limited(request: Request) -> bytes:
        return result(request, 4)

    async with ldap_server(limited) as server:
        assert isinstance(await ask(settings(server)), Unavailable)


async def test_a_limit_behind_an_entry_means_that_there_are_several() -> None:
    async def limited(request: Request) -> bytes:
        return entry(request) + result(request, 4)

    async with ldap_server(limited) as server:
        verdict = await ask(settings(server))

    assert isinstance(verdict, Rejected)
    assert verdict.detail == "several entries have that name"


async def test_a_deadline_says_for_which_server() -> None:
    async with ldap_server(say_nothing) as server, backend(settings(server)) as subject:
        names = Names(combine=False, default_realm="")
        engine = Authenticator(subject.verifier, names, Audit(names), Deadlines(0.05, {}))
        request = AuthRequest("joe", Secret(b"pw"), "", Origin("smtp"), time.monotonic())

        verdict = await settled(engine.check(request))

    assert verdict == Unavailable(
        f"no answer within 0.05 s, while waiting for ldap://127.0.0.1:{server.port}/", "ldap"
    )


async def test_opening_does_not_wait_for_long_for_a_silent_server() -> None:
    async with (
        ldap_server(say_nothing) as server,
        asyncio.timeout(5),
        backend(settings(server, timeout=60)) as subject,
    ):
        assert isinstance(subject.verifier, Ldap)


async def test_opening_says_what_is_not_there(
    caplog: pytest.LogCaptureFixture, seen_logs: None
) -> None:
    port = free_port()
    table = Table(servers=(f"ldap://127.0.0.1:{port}/",))
    async with backend(Settings(mechanism="ldap", ldap=table)):
        pass

    assert [one.getMessage() for one in caplog.records] == [f"127.0.0.1:{port}: Connection refused"]


async def test_who_was_asked_about_is_logged_as_a_filter(
    caplog: pytest.LogCaptureFixture, seen_logs: None
) -> None:
    async def find_none(request: Request) -> bytes:
        return result(request)

    caplog.set_level("DEBUG", "pysaslauthd")
    async with ldap_server(find_none) as server, backend(settings(server)) as subject:
        verdict = await subject.ask("j*e)\n", "pw")

    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.NO_SUCH_USER
    assert "Entry not found ((uid=j\\2ae\\29\\0a))." in caplog.text


def by_sasl(server: LdapServer, **group: object) -> Settings:
    """Return settings by which users bind by SASL, and have to be in a group."""
    sasl = {"use_sasl": True, "auth_method": "fastbind", "mech": "PLAIN"}
    return settings(server, **{**sasl, "group_match_method": "filter", **group})


@pytest.mark.parametrize(
    "group",
    [
        pytest.param({"group_filter": "(a=b)", "group_search_base": "%D"}, id="base"),
        pytest.param({"group_filter": "(member=%D)"}, id="filter"),
        pytest.param({"group_match_method": "attr", "group_dn": "cn=a"}, id="attribute"),
    ],
)
@pytest.mark.parametrize(
    ("code", "identity"),
    [
        pytest.param(53, b"", id="refused"),
        pytest.param(0, ber.encode(ldap.EXTENDED_VALUE, b"u:A\\joe"), id="by-a-name-of-its-own"),
    ],
)
async def test_who_has_no_entry_that_the_server_would_name_is_in_no_group(
    group: dict[str, str], code: int, identity: bytes
) -> None:
    async def name_no_entry(request: Request) -> bytes:
        if request.tag == ldap.EXTENDED_REQUEST:
            said = ber.integer(code, ber.ENUMERATED) + ber.octets(b"") * 2 + identity
            return ldap.message(request.number, ber.encode(ldap.EXTENDED_RESPONSE, said))
        return await answer_all(request)

    async with ldap_server(name_no_entry) as server:
        verdict = await ask(by_sasl(server, **group))

    assert isinstance(verdict, Unavailable)
    assert "it does not say which entry the user is" in verdict.detail


async def test_where_a_group_does_not_depend_on_the_entry_the_server_need_not_name_it() -> None:
    async with ldap_server() as server:
        verdict = await ask(by_sasl(server, group_filter="(memberUid=%u)"))

        assert verdict == OK
        assert ldap.EXTENDED_REQUEST not in server.tags
