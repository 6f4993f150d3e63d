"""Directories of OpenLDAP: TLS, failover, password policies, groups, and what changes meanwhile."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthResult, Reason, Rejected, Secret, Unavailable
from tests.contract.verifier import VerifierContract
from tests.helpers.backends import Backend, backend
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.processes import DEADLINE, POLL_EVERY, free_port
from tests.helpers.slapd import (
    GROUPS,
    PEOPLE,
    SERVICE,
    SERVICE_PASSWORD,
    SUFFIX,
    Slapd,
    group,
    person,
    slapd,
)

pytestmark = pytest.mark.interop("slapd", "slapadd", "ldapadd", "ldapmodify", "ldapwhoami")

JOE = f"uid=joe,{PEOPLE}"
PEOPLE_HERE = person("joe", "pw") + person("ann", "pw") + person("zoë", "pässword")
OK = Accepted("joe", "ldap")


def table(*uris: str, **settings: object) -> Settings:
    """Return settings for the directories at *uris*; *settings* are those of table ldap."""
    values = {"search_base": SUFFIX, "servers": uris, **settings}
    return Settings(mechanism="ldap", ldap=Ldap(**values))  # type: ignore[arg-type]  # any of them


SERVICE_LOGIN = {"bind_dn": SERVICE, "password": Secret(SERVICE_PASSWORD.encode())}


def reason(result: AuthResult) -> Reason:
    assert isinstance(result, Rejected), result
    return result.reason


def outage(result: AuthResult) -> str:
    assert isinstance(result, Unavailable), result
    return result.detail


@pytest.fixture(scope="module")
def directory() -> Iterator[Slapd]:
    with slapd(PEOPLE_HERE) as running:
        yield running


class TestContract(VerifierContract):
    @pytest.fixture
    async def verifier(self, directory: Slapd) -> AsyncIterator[PasswordVerifier]:
        async with backend(table(directory.uri)) as subject:
            yield subject.verifier

    @pytest.fixture
    async def broken(self) -> AsyncIterator[PasswordVerifier]:
        async with backend(table(f"ldap://127.0.0.1:{free_port()}/")) as subject:
            yield subject.verifier

    # Directories take JOE and "joe " for joe.
    @pytest.mark.parametrize("user", ["*", "j*", "../joe", "joe)(uid=*", "*)(uid=*", "j" * 1024])
    async def test_it_rejects_a_hostile_name(self, verifier: PasswordVerifier, user: str) -> None:
        await super().test_it_rejects_a_hostile_name(verifier, user)


@pytest.fixture
async def asked(directory: Slapd) -> AsyncIterator[Backend]:
    async with backend(table(directory.uri)) as subject:
        yield subject


class TestWays:
    @pytest.mark.parametrize(
        "uri",
        [
            pytest.param(lambda d: d.uri, id="ipv4"),
            pytest.param(lambda d: f"ldap://[::1]:{d.port}/", id="ipv6"),
            pytest.param(lambda d: f"ldap://localhost:{d.port}", id="name"),
            pytest.param(lambda d: d.socket_uri, id="unix-socket"),
        ],
    )
    async def test_a_directory_is_reached(
        self, directory: Slapd, uri: Callable[[Slapd], str]
    ) -> None:
        async with backend(table(uri(directory))) as subject:
            assert await subject.ask("joe", "pw") == OK
            assert reason(await subject.ask("joe", "wrong")) is Reason.WRONG_PASSWORD

    async def test_answers_do_not_get_mixed_up(self, asked: Backend) -> None:
        logins = [("joe", "pw"), ("joe", "no"), ("zoë", "pässword"), ("nobody", "pw")] * 100

        results = await asyncio.gather(*(asked.ask(*login) for login in logins))

        kinds = [type(one) for one in results]
        assert kinds == [Accepted, Rejected, Accepted, Rejected] * 100

    async def test_a_password_of_8_kilobytes_is_checked_to_its_end(
        self, directory: Slapd, asked: Backend
    ) -> None:
        directory.add(person("long", "x" * 8191 + "y"))

        assert isinstance(await asked.ask("long", "x" * 8191 + "y"), Accepted)
        assert reason(await asked.ask("long", "x" * 8191 + "z")) is Reason.WRONG_PASSWORD


class TestChanges:
    async def test_a_changed_password_stops_working_at_once(
        self, directory: Slapd, asked: Backend
    ) -> None:
        directory.add(person("eve", "before"))
        first = await asked.ask("eve", "before")

        directory.set_password(f"uid=eve,{PEOPLE}", "after")

        assert isinstance(first, Accepted)
        assert reason(await asked.ask("eve", "before")) is Reason.WRONG_PASSWORD
        assert isinstance(await asked.ask("eve", "after"), Accepted)

    async def test_a_deleted_user_is_gone_at_once(self, directory: Slapd, asked: Backend) -> None:
        directory.add(person("bob", "pw"))
        first = await asked.ask("bob", "pw")

        directory.change(f"dn: uid=bob,{PEOPLE}\nchangetype: delete\n")

        assert isinstance(first, Accepted)
        assert reason(await asked.ask("bob", "pw")) is Reason.NO_SUCH_USER

    async def test_a_directory_that_has_stopped_lets_nobody_in(self) -> None:
        with slapd(PEOPLE_HERE) as running:
            async with backend(table(running.uri)) as subject:
                assert await subject.ask("joe", "pw") == OK
                with running.stopped():
                    assert isinstance(await subject.ask("joe", "pw"), Unavailable)

    async def test_a_directory_that_starts_later_is_found(self) -> None:
        with slapd(PEOPLE_HERE) as running:
            running.stop()
            async with backend(table(running.uri)) as subject:
                first = await subject.ask("joe", "pw")
                running.start()
                await eventually_ok(subject)

        assert "Connection refused" in outage(first)

    async def test_a_directory_that_was_restarted_is_asked_as_before(self) -> None:
        with slapd(PEOPLE_HERE) as running:
            async with backend(table(running.uri)) as subject:
                first = await subject.ask("joe", "pw")
                with running.stopped():
                    pass

                assert first == OK
                await eventually_ok(subject)


async def eventually_ok(subject: Backend, password: str = "pw") -> None:
    """Return when joe is let in; AssertionError where that takes too long."""
    until = time.monotonic() + DEADLINE
    while await subject.ask("joe", password) != OK:
        assert time.monotonic() < until, f"joe is not let in within {DEADLINE:g} seconds"
        await asyncio.sleep(POLL_EVERY)


class TestSeveral:
    @pytest.fixture
    def two(self) -> Iterator[tuple[Slapd, Slapd]]:
        with slapd(person("joe", "first")) as first, slapd(person("joe", "second")) as second:
            yield first, second

    async def test_the_first_that_answers_is_asked(self, two: tuple[Slapd, Slapd]) -> None:
        async with backend(table(two[0].uri, two[1].uri)) as subject:
            assert await subject.ask("joe", "first") == OK
            assert reason(await subject.ask("joe", "second")) is Reason.WRONG_PASSWORD

    async def test_the_next_is_asked_where_one_is_gone(self, two: tuple[Slapd, Slapd]) -> None:
        async with backend(table(two[0].uri, two[1].uri)) as subject:
            assert await subject.ask("joe", "first") == OK
            two[0].stop()

            assert await subject.ask("joe", "second") == OK

    async def test_one_that_is_back_is_asked_again(self, two: tuple[Slapd, Slapd]) -> None:
        two[0].stop()
        async with backend(table(two[0].uri, two[1].uri)) as subject:
            assert await subject.ask("joe", "second") == OK
            two[0].start()

            await eventually_ok(subject, "first")

    async def test_where_all_are_gone_each_is_named(self, two: tuple[Slapd, Slapd]) -> None:
        for one in two:
            one.stop()
        async with backend(table(two[0].uri, two[1].uri)) as subject:
            detail = outage(await subject.ask("joe", "first"))

        assert f":{two[0].port}: " in detail
        assert f":{two[1].port}: " in detail

    async def test_a_silent_one_costs_the_first_request_its_timeout(
        self, two: tuple[Slapd, Slapd]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"ldap://127.0.0.1:{silent.getsockname()[1]}/"
            async with backend(table(uri, two[1].uri, timeout=5.0)) as subject:
                assert await subject.ask("joe", "second") == OK
                async with asyncio.timeout(4.0):
                    assert await subject.ask("joe", "second") == OK


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), "another authority")


@pytest.fixture(params=["ldaps", "StartTLS"])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


def over_tls(running: Slapd, way: str, **settings: object) -> Settings:
    if way == "ldaps":
        return table(running.tls_uri, **settings)
    return table(running.uri, start_tls=True, **settings)


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[Slapd]:
    with slapd(PEOPLE_HERE, authority.issue(), server="security simple_bind=64") as running:
        yield running


class TestTls:
    async def test_it_is_used(self, secured: Slapd, way: str, authority: Authority) -> None:
        settings = over_tls(secured, way, tls_cacert_file=str(authority.file))
        async with backend(settings) as subject:
            assert await subject.ask("joe", "pw") == OK
            assert reason(await subject.ask("joe", "wrong")) is Reason.WRONG_PASSWORD

    async def test_without_it_a_server_may_refuse(self, secured: Slapd) -> None:
        async with backend(table(secured.uri)) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert "confidentiality required (13)" in detail

    async def test_an_authority_that_is_not_known_is_an_outage(
        self, secured: Slapd, way: str, strangers: Authority
    ) -> None:
        settings = over_tls(secured, way, tls_cacert_file=str(strangers.file))
        async with backend(settings) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert "signed by an authority that is not known here" in detail

    async def test_nothing_is_checked_where_that_is_wanted(self, secured: Slapd, way: str) -> None:
        async with backend(over_tls(secured, way, tls_check_peer=False)) as subject:
            assert await subject.ask("joe", "pw") == OK

    @pytest.mark.parametrize(
        ("issue", "fault"),
        [
            pytest.param(Authority.issue_expired, "has expired", id="expired"),
            pytest.param(Authority.issue_for_others, "is not for that", id="others"),
        ],
    )
    async def test_a_bad_certificate_is_an_outage_that_names_its_fault(
        self, way: str, authority: Authority, issue: Callable[[Authority], Certificate], fault: str
    ) -> None:
        with slapd(PEOPLE_HERE, issue(authority)) as running:
            settings = over_tls(running, way, tls_cacert_file=str(authority.file))
            async with backend(settings) as subject:
                detail = outage(await subject.ask("joe", "pw"))

        assert f"its certificate {fault}" in detail

    async def test_a_server_that_wants_a_certificate_gets_ours(
        self, way: str, authority: Authority, tmp_path: Path
    ) -> None:
        ours = authority.issue_for_client()
        demand = f"TLSCACertificateFile {authority.file}\nTLSVerifyClient demand"
        files = {"tls_cert": str(ours.certificate), "tls_key": str(ours.key)}
        with slapd(PEOPLE_HERE, authority.issue(), server=demand) as running:
            trusting = {"tls_cacert_file": str(authority.file)}
            async with backend(over_tls(running, way, **trusting, **files)) as subject:
                assert await subject.ask("joe", "pw") == OK
            async with backend(over_tls(running, way, **trusting)) as subject:
                assert isinstance(await subject.ask("joe", "pw"), Unavailable)

    async def test_a_server_that_knows_no_tls_is_an_outage(self, directory: Slapd) -> None:
        async with backend(table(directory.uri, start_tls=True)) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert "it refuses StartTLS" in detail


POLICY = f"cn=policy,{SUFFIX}"
POLICIES = f"""\
dn: {POLICY}
objectClass: organizationalRole
objectClass: pwdPolicy
cn: policy
pwdAttribute: userPassword
pwdMaxAge: 86400
pwdLockout: TRUE
pwdMaxFailure: 3
pwdLockoutDuration: 0
pwdMustChange: TRUE

dn: cn=lasting,{SUFFIX}
objectClass: organizationalRole
objectClass: pwdPolicy
cn: lasting
pwdAttribute: userPassword
pwdGraceAuthNLimit: 5
pwdMaxAge: 86400

"""
LONG_AGO = "20200101000000Z"


@pytest.fixture(scope="module")
def strict() -> Iterator[Slapd]:
    entries = (
        POLICIES
        + person("joe", "pw")
        + person("guessed", "pw")
        + person("locked", "pw", pwdAccountLockedTime="000001010000Z")
        + person("old", "pw", pwdChangedTime=LONG_AGO)
        + person("reset", "pw", pwdReset="TRUE")
        + person("grace", "pw", pwdChangedTime=LONG_AGO).replace(
            "cn: grace", f"cn: grace\npwdPolicySubentry: cn=lasting,{SUFFIX}"
        )
    )
    overlay = f"overlay ppolicy\nppolicy_default {POLICY}\nppolicy_use_lockout"
    with slapd(entries, database=overlay) as running:
        yield running


class TestPolicies:
    @pytest.fixture
    async def asked(self, strict: Slapd) -> AsyncIterator[Backend]:
        async with backend(table(strict.uri)) as subject:
            yield subject

    @pytest.mark.parametrize(
        ("user", "expected"),
        [
            ("locked", Reason.ACCOUNT_LOCKED),
            ("old", Reason.PASSWORD_EXPIRED),
            ("reset", Reason.PASSWORD_MUST_CHANGE),
        ],
    )
    async def test_what_the_policy_says_is_the_reason(
        self, asked: Backend, user: str, expected: Reason
    ) -> None:
        assert reason(await asked.ask(user, "pw")) is expected

    async def test_a_service_that_is_locked_out_is_an_outage_that_says_so(
        self, strict: Slapd
    ) -> None:
        settings = table(strict.uri, bind_dn=f"uid=locked,{PEOPLE}", password=Secret(b"pw"))
        async with backend(settings) as subject:
            assert "account locked: invalid credentials (49)" in outage(
                await subject.ask("joe", "pw")
            )

    async def test_who_the_policy_has_nothing_against_is_let_in(self, asked: Backend) -> None:
        assert await asked.ask("joe", "pw") == OK

    async def test_a_login_of_grace_is_let_in(self, asked: Backend) -> None:
        assert isinstance(await asked.ask("grace", "pw"), Accepted)

    async def test_who_guesses_locks_the_account(self, asked: Backend) -> None:
        reasons = [reason(await asked.ask("guessed", "wrong")) for _ in range(4)]

        assert reasons == [Reason.WRONG_PASSWORD] * 3 + [Reason.ACCOUNT_LOCKED]
        assert reason(await asked.ask("guessed", "pw")) is Reason.ACCOUNT_LOCKED


@pytest.fixture(scope="module")
def grouped() -> Iterator[Slapd]:
    secret = group("hidden", [JOE]).replace(GROUPS, f"ou=secret,{SUFFIX}")
    with slapd(PEOPLE_HERE + secret, database="overlay memberof") as running:
        running.add(group("mail", [JOE]))  # the overlay sees what comes while it runs
        yield running


class TestGroups:
    async def test_a_filter_may_ask_for_membership(self, grouped: Slapd) -> None:
        of_mail = f"(&(uid=%u)(memberOf=cn=mail,{GROUPS}))"
        async with backend(table(grouped.uri, filter=of_mail)) as subject:
            assert await subject.ask("joe", "pw") == OK
            assert reason(await subject.ask("ann", "pw")) is Reason.NO_SUCH_USER

    @pytest.mark.parametrize("method", ["bind", "fastbind"])
    async def test_the_service_asks_for_membership_and_not_the_user(
        self, grouped: Slapd, method: str
    ) -> None:
        settings = table(
            grouped.uri,
            **SERVICE_LOGIN,
            auth_method=method,
            filter="(uid=%u)" if method == "bind" else f"uid=%u,{PEOPLE}",
            group_dn=f"cn=hidden,ou=secret,{SUFFIX}",
            group_attr="member",
        )
        async with backend(settings) as subject:
            assert await subject.ask("joe", "pw") == OK
            assert reason(await subject.ask("ann", "pw")) is Reason.DENIED

    async def test_membership_is_told_to_nobody_without_the_password(self, grouped: Slapd) -> None:
        settings = table(grouped.uri, group_dn=f"cn=mail,{GROUPS}", group_attr="member")
        async with backend(settings) as subject:
            assert reason(await subject.ask("ann", "wrong")) is Reason.WRONG_PASSWORD

    async def test_a_member_of_several_groups_is_a_member(self, grouped: Slapd) -> None:
        grouped.add(group("one", [f"uid=zoë,{PEOPLE}"]) + group("two", [f"uid=zoë,{PEOPLE}"]))
        settings = table(grouped.uri, group_match_method="filter", group_filter="(member=%D)")
        async with backend(settings) as subject:
            assert isinstance(await subject.ask("zoë", "pässword"), Accepted)

    async def test_a_group_that_is_not_there_is_an_outage(self, grouped: Slapd) -> None:
        async with backend(table(grouped.uri, group_dn=f"cn=none,{GROUPS}")) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert f"who is in 'cn=none,{GROUPS}' by uniqueMember (ldap_group_dn" in detail
        assert detail.endswith("no such object (32)")


class TestTraps:
    async def test_a_referral_is_not_followed(self) -> None:
        with ExitStack() as stack:
            elsewhere = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            elsewhere.settimeout(0)
            uri = f"ldap://127.0.0.1:{elsewhere.getsockname()[1]}/{SUFFIX}"
            away = f"dn: ou=away,{SUFFIX}\nobjectClass: referral\nobjectClass: extensibleObject\n"
            running = stack.enter_context(slapd(PEOPLE_HERE + f"{away}ou: away\nref: {uri}\n\n"))
            async with backend(table(running.uri, search_base=f"ou=away,{SUFFIX}")) as subject:
                detail = outage(await subject.ask("joe", "pw"))

            assert "referral (10)" in detail
            with pytest.raises(BlockingIOError):
                elsewhere.accept()

    async def test_the_roots_empty_name_lets_nobody_in(self, directory: Slapd) -> None:
        settings = table(directory.uri, search_base="", scope="base", filter="(objectClass=*)")
        async with backend(settings) as subject:
            assert isinstance(await subject.ask("joe", "pw"), Rejected)

    async def test_a_name_that_a_template_makes_empty_lets_nobody_in(
        self, directory: Slapd
    ) -> None:
        async with backend(table(directory.uri, auth_method="fastbind", filter="%R")) as subject:
            assert reason(await subject.ask("joe", "pw")) is Reason.NO_SUCH_USER

    async def test_a_name_cannot_leave_its_place_in_a_template(self, directory: Slapd) -> None:
        settings = table(directory.uri, auth_method="fastbind", filter=f"uid=%u,{SUFFIX}")
        async with backend(settings) as subject:
            assert isinstance(await subject.ask("joe,ou=people", "pw"), Rejected)

    async def test_several_entries_for_one_name_are_refused(self) -> None:
        twins = person("joe", "pw") + person("joe", "pw", where=GROUPS)
        with slapd(twins) as running:
            for limit in (1, 5):
                async with backend(table(running.uri, size_limit=limit)) as subject:
                    assert reason(await subject.ask("joe", "pw")) is Reason.DENIED

    async def test_a_service_that_is_refused_is_an_outage(self, directory: Slapd) -> None:
        settings = table(directory.uri, bind_dn=SERVICE, password=Secret(b"not its own"))
        async with backend(settings) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert (
            f"it refuses ldap_bind_dn {SERVICE}: wrong password: invalid credentials (49)" in detail
        )

    async def test_a_base_that_is_not_there_is_an_outage(self, directory: Slapd) -> None:
        async with backend(table(directory.uri, search_base="dc=none")) as subject:
            assert "there is no 'dc=none' to search below" in outage(await subject.ask("joe", "pw"))

    async def test_a_base_that_is_not_set_is_an_outage_that_says_so(self, directory: Slapd) -> None:
        async with backend(table(directory.uri, search_base="")) as subject:
            assert "set ldap_search_base" in outage(await subject.ask("joe", "pw"))

    async def test_an_entry_without_a_password_lets_nobody_in(
        self, directory: Slapd, asked: Backend
    ) -> None:
        directory.add(person("blank", "x"))
        directory.change(f"dn: uid=blank,{PEOPLE}\nchangetype: modify\ndelete: userPassword\n")

        assert reason(await asked.ask("blank", "x")) is Reason.WRONG_PASSWORD


async def test_who_has_a_hash_that_takes_for_ever_keeps_nobody_out() -> None:
    eve = person("eve", "{CRYPT}$6$rounds=999999999$saltsalt$x")
    with slapd(PEOPLE_HERE + eve) as running:
        settings = table(running.uri, **SERVICE_LOGIN, auth_method="custom")
        async with backend(msgspec.structs.replace(settings, processes=2)) as subject:
            await subject.ask("ann", "pw")  # all workers are there
            waiting = [asyncio.create_task(subject.ask("eve", "pw")) for _ in range(4)]

            assert [type(await subject.ask("ann", "pw")) for _ in range(9)] == [Accepted] * 9
            assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting)


MECHANISMS = ["DIGEST-MD5", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", ""]
# Of the service: its entry is among the people's, where slapd looks for who comes by SASL.
AS_SERVICE = {"use_sasl": True, "id": "robot", "password": Secret(b"metal")}


@pytest.fixture(scope="module")
def with_sasl() -> Iterator[Slapd]:
    robot = person("robot", "metal")
    hidden = person("spy", "pw", where=f"ou=secret,{SUFFIX}")
    for_robot = (
        f'access to dn.subtree="ou=secret,{SUFFIX}"'
        f' by dn.exact="uid=robot,{PEOPLE}" read by dn.exact="{SERVICE}" read'
        " by anonymous auth by * none"
    )
    groups = group("mail", [JOE])
    with slapd(PEOPLE_HERE + robot + hidden + groups, first=for_robot) as running:
        yield running


class TestSasl:
    @pytest.mark.parametrize("mech", MECHANISMS)
    async def test_users_are_checked_by_it(self, with_sasl: Slapd, mech: str) -> None:
        settings = table(with_sasl.uri, use_sasl=True, auth_method="fastbind", mech=mech)
        async with backend(settings) as subject:
            logins = [("joe", "pw"), ("joe", "wrong"), ("joe", "pw"), ("zoë", "pässword")]
            results = [await subject.ask(*login) for login in logins]

        assert [type(one) for one in results] == [Accepted, Rejected, Accepted, Accepted]

    async def test_what_the_server_could_not_do_for_one_user_is_not_told_another(
        self, with_sasl: Slapd
    ) -> None:
        settings = table(with_sasl.uri, use_sasl=True, auth_method="fastbind", mech="PLAIN")
        async with backend(settings) as subject:
            await subject.ask("nobody", "pw")

            assert reason(await subject.ask("joe", "wrong")) is Reason.WRONG_PASSWORD
            assert await subject.ask("joe", "pw") == OK

    @pytest.mark.parametrize("mech", ["DIGEST-MD5", "SCRAM-SHA-256"])
    async def test_a_user_whom_the_server_does_not_find_is_refused(
        self, with_sasl: Slapd, mech: str
    ) -> None:
        settings = table(with_sasl.uri, use_sasl=True, auth_method="fastbind", mech=mech)
        async with backend(settings) as subject:
            assert reason(await subject.ask("nobody", "pw")) is Reason.NO_SUCH_USER

    @pytest.mark.parametrize("mech", MECHANISMS)
    async def test_the_service_may_use_it(self, with_sasl: Slapd, mech: str) -> None:
        async with backend(table(with_sasl.uri, **AS_SERVICE, mech=mech)) as subject:
            assert isinstance(await subject.ask("spy", "pw"), Accepted)
            assert reason(await subject.ask("spy", "wrong")) is Reason.WRONG_PASSWORD

    async def test_the_service_may_be_who_the_system_says(self, with_sasl: Slapd) -> None:
        settings = table(with_sasl.socket_uri, use_sasl=True, mech="EXTERNAL")
        async with backend(settings) as subject:
            assert isinstance(await subject.ask("spy", "pw"), Accepted)

    async def test_a_service_that_is_refused_is_an_outage(self, with_sasl: Slapd) -> None:
        wrong = {**AS_SERVICE, "password": Secret(b"wood")}
        async with backend(table(with_sasl.uri, **wrong, mech="SCRAM-SHA-256")) as subject:
            detail = outage(await subject.ask("joe", "pw"))

        assert "it refuses ldap_id robot: wrong password: invalid credentials (49)" in detail

    async def test_a_mechanism_that_the_server_has_not_is_an_outage(self, with_sasl: Slapd) -> None:
        settings = table(with_sasl.uri, use_sasl=True, mech="EXTERNAL")  # there is none by TCP
        async with backend(settings) as subject:
            assert "it refuses ldap_id" in outage(await subject.ask("joe", "pw"))

    async def test_membership_is_asked_for_whom_the_server_takes_the_user(
        self, with_sasl: Slapd
    ) -> None:
        settings = table(
            with_sasl.uri,
            use_sasl=True,
            auth_method="fastbind",
            mech="SCRAM-SHA-1",
            group_dn=f"cn=mail,{GROUPS}",
            group_attr="member",
        )
        async with backend(settings) as subject:
            assert await subject.ask("joe", "pw") == OK
            assert reason(await subject.ask("ann", "pw")) is Reason.DENIED

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            pytest.param({"mech": "GSSAPI"}, "ldap_mech: GSSAPI is not supported yet", id="gssapi"),
            pytest.param({"mech": "NTLM"}, "ldap_mech: there is no mechanism 'NTLM'", id="unknown"),
            pytest.param(
                {"mech": "external", "auth_method": "fastbind"},
                "EXTERNAL asks nobody for a password",
                id="external-for-users",
            ),
        ],
    )
    async def test_what_cannot_be_is_refused_at_the_start(
        self, settings: dict[str, str], problem: str
    ) -> None:
        with pytest.raises(StartupError, match=problem):
            async with backend(table("ldap://localhost/", use_sasl=True, **settings)):
                pass
