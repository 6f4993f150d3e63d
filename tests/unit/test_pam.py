"""The backend pam: what it tells a stack, what it makes of the stack's verdict."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pam.__internals as linux_pam
import pytest

from pysaslauthd.backends import pam as backend
from pysaslauthd.backends.pam import Pam
from pysaslauthd.errors import StartupError
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)
from tests.helpers.accounts import LOCKED, account, needs_account_tools, require_root
from tests.helpers.pam import (
    DENY,
    ECHO_OFF,
    ECHO_ON,
    ERROR_MSG,
    MISSING_MODULE,
    NO_START,
    PERMIT,
    RADIO_TYPE,
    TEXT_INFO,
    UNIX,
    Modules,
    Service,
    Stack,
    compile_modules,
    pam_service,
    stack_that_runs,
)

PASSWORD = b"hunter2"
LOGGER = "pysaslauthd.backends.pam"

OUTAGES = [
    "PAM_ABORT",
    "PAM_AUTHINFO_UNAVAIL",
    "PAM_BUF_ERR",
    "PAM_CONV_ERR",
    "PAM_MODULE_UNKNOWN",
    "PAM_OPEN_ERR",
    "PAM_SERVICE_ERR",
    "PAM_SYMBOL_ERR",
    "PAM_SYSTEM_ERR",
    "PAM_TRY_AGAIN",
]
REFUSALS = [
    ("PAM_USER_UNKNOWN", Reason.NO_SUCH_USER),
    ("PAM_AUTH_ERR", Reason.WRONG_PASSWORD),
    ("PAM_ACCT_EXPIRED", Reason.ACCOUNT_EXPIRED),
    ("PAM_NEW_AUTHTOK_REQD", Reason.PASSWORD_EXPIRED),
    ("PAM_AUTHTOK_EXPIRED", Reason.PASSWORD_EXPIRED),
    ("PAM_CRED_EXPIRED", Reason.PASSWORD_EXPIRED),
    ("PAM_PERM_DENIED", Reason.DENIED),
    ("PAM_MAXTRIES", Reason.DENIED),
    ("PAM_CRED_INSUFFICIENT", Reason.DENIED),
]

Serving = Callable[[Stack | str], Service]


@pytest.fixture
def serving(lacking: Callable[[str], NoReturn]) -> Iterator[Serving]:
    """Return what makes a PAM service of some rules for the length of the test."""
    require_root(lacking)
    with ExitStack() as made:
        yield lambda rules: made.enter_context(pam_service(rules))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return compile_modules(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def joe(lacking: Callable[[str], NoReturn]) -> Iterator[str]:
    """Return the name of an account with the password PASSWORD."""
    require_root(lacking)
    with account(PASSWORD.decode()) as name:
        yield name


def request_for(
    service: Service | str, user: str = "joe", password: bytes = PASSWORD, remote: str = ""
) -> AuthRequest:
    name = service if isinstance(service, str) else service.name
    return AuthRequest(user, Secret(password), "", Origin(name, remote), time.monotonic())


def asked(
    service: Service | str, user: str = "joe", password: bytes = PASSWORD, remote: str = ""
) -> AuthResult:
    return Pam().check(request_for(service, user, password, remote))


def code(name: str) -> int:
    found: int = getattr(linux_pam, name)
    return found


class TestVerdicts:
    def test_it_accepts_whom_the_stack_accepts(self, serving: Serving) -> None:
        assert asked(serving(PERMIT)) == Accepted("joe", "pam")

    def test_it_refuses_whom_the_stack_refuses(self, serving: Serving) -> None:
        assert asked(serving(DENY)) == Rejected(Reason.WRONG_PASSWORD, "pam", "PAM auth error")

    @pytest.mark.interop("gcc")
    @pytest.mark.parametrize(("name", "reason"), REFUSALS, ids=str)
    def test_it_says_why_a_login_is_refused(
        self, serving: Serving, modules: Modules, name: str, reason: Reason
    ) -> None:
        result = asked(serving(modules.returning(code(name))))

        assert result == Rejected(reason, "pam", "PAM auth error")

    @pytest.mark.interop("gcc")
    @pytest.mark.parametrize(("name", "reason"), REFUSALS, ids=str)
    def test_it_says_why_an_account_is_refused(
        self, serving: Serving, modules: Modules, name: str, reason: Reason
    ) -> None:
        result = asked(serving(modules.returning(0, code(name))))

        assert result == Rejected(reason, "pam", "PAM acct error")

    @pytest.mark.interop("gcc")
    @pytest.mark.parametrize("name", OUTAGES)
    def test_a_fault_is_an_outage(self, serving: Serving, modules: Modules, name: str) -> None:
        service = serving(modules.returning(code(name)))

        result = asked(service)

        assert isinstance(result, Unavailable)
        assert result.detail.startswith(f"pam_authenticate (service {service.name}): ")

    @pytest.mark.interop("gcc")
    @pytest.mark.parametrize("name", OUTAGES)
    def test_a_fault_over_the_account_is_an_outage(
        self, serving: Serving, modules: Modules, name: str
    ) -> None:
        service = serving(modules.returning(0, code(name)))

        result = asked(service)

        assert isinstance(result, Unavailable)
        assert result.detail.startswith(f"pam_acct_mgmt (service {service.name}): ")

    def test_a_missing_module_is_an_outage_that_says_so(self, serving: Serving) -> None:
        service = serving(MISSING_MODULE)

        detail = f"pam_authenticate (service {service.name}): Module is unknown"
        assert asked(service) == Unavailable(detail, "pam")

    def test_rules_that_cannot_be_read_are_an_outage(self, serving: Serving) -> None:
        service = serving(NO_START)

        detail = f"pam_start (service {service.name}): Critical error - immediate abort"
        assert asked(service) == Unavailable(detail, "pam")

    def test_an_item_that_cannot_be_set_is_an_outage(
        self, serving: Serving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = serving(PERMIT)
        no_memory = code("PAM_BUF_ERR")
        monkeypatch.setattr(backend.load().calls, "pam_set_item", lambda *_: no_memory)

        detail = f"pam_set_item (service {service.name}): Memory buffer error"
        assert asked(service) == Unavailable(detail, "pam")

    def test_a_change_of_the_rules_counts_from_the_next_request_on(self, serving: Serving) -> None:
        service, verifier = serving(DENY), Pam()
        before = verifier.check(request_for(service))

        service.write(PERMIT)

        assert isinstance(before, Rejected)
        assert verifier.check(request_for(service)) == Accepted("joe", "pam")

    def test_rules_that_break_are_an_outage_from_the_next_request_on(
        self, serving: Serving
    ) -> None:
        service, verifier = serving(PERMIT), Pam()
        before = verifier.check(request_for(service))

        service.write(NO_START)

        assert isinstance(before, Accepted)
        assert isinstance(verifier.check(request_for(service)), Unavailable)

    def test_rules_that_are_mended_count_from_the_next_request_on(self, serving: Serving) -> None:
        service, verifier = serving(NO_START), Pam()
        before = verifier.check(request_for(service))

        service.write(PERMIT)

        assert isinstance(before, Unavailable)
        assert isinstance(verifier.check(request_for(service)), Accepted)


class TestServices:
    @pytest.mark.parametrize(
        "name", ["/etc/pam.d/login", "../login", "a/b", "login/", ".", "..", ".login"]
    )
    def test_it_refuses_a_name_that_leads_elsewhere(self, name: str) -> None:
        assert asked(name) == Rejected(Reason.DENIED, "pam", "PAM start error")

    def test_the_case_of_a_name_does_not_matter(self, serving: Serving) -> None:
        service = serving(PERMIT)

        assert isinstance(asked(service.name.upper()), Accepted)

    def test_an_empty_name_stands_for_other(
        self, serving: Serving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "OTHER", serving(PERMIT).name)

        assert isinstance(asked(""), Accepted)


class TestItems:
    @pytest.fixture
    def told(self, serving: Serving, tmp_path: Path) -> Callable[..., dict[str, str]]:
        """Return what makes a request and tells which items its stack saw."""
        seen = tmp_path / "environment"
        service = serving(stack_that_runs(f"env > {seen}"))

        def ask(user: str = "joe", remote: str = "") -> dict[str, str]:
            assert isinstance(asked(service, user=user, remote=remote), Accepted)
            return dict(line.split("=", 1) for line in seen.read_text().splitlines())

        return ask

    def test_the_stack_is_told_the_user(self, told: Callable[..., dict[str, str]]) -> None:
        assert told(user="zoë")["PAM_USER"] == "zoë"

    def test_the_stack_is_told_the_address_without_its_port(
        self, told: Callable[..., dict[str, str]]
    ) -> None:
        assert told(remote="2001:db8::7;40123")["PAM_RHOST"] == "2001:db8::7"

    def test_an_address_without_a_port_is_told_whole(
        self, told: Callable[..., dict[str, str]]
    ) -> None:
        assert told(remote="192.0.2.7")["PAM_RHOST"] == "192.0.2.7"

    def test_no_address_is_told_where_there_is_none(
        self, told: Callable[..., dict[str, str]]
    ) -> None:
        assert "PAM_RHOST" not in told()

    def test_the_terminal_is_the_service(self, told: Callable[..., dict[str, str]]) -> None:
        seen = told()

        assert seen["PAM_TTY"] == seen["PAM_SERVICE"]

    def test_the_stack_is_told_no_password(self, told: Callable[..., dict[str, str]]) -> None:
        assert PASSWORD.decode() not in str(told())

    def test_a_list_of_users_decides(self, serving: Serving, tmp_path: Path) -> None:
        listed = tmp_path / "users"
        listed.write_text("joe\n")
        service = serving(Stack(f"pam_listfile.so item=user sense=allow onerr=fail file={listed}"))

        assert isinstance(asked(service, user="joe"), Accepted)
        assert isinstance(asked(service, user="ann"), Rejected)

    def test_a_list_of_addresses_decides(self, serving: Serving, tmp_path: Path) -> None:
        listed = tmp_path / "addresses"
        listed.write_text("192.0.2.7\n")
        service = serving(Stack(f"pam_listfile.so item=rhost sense=deny onerr=fail file={listed}"))

        assert isinstance(asked(service, remote="192.0.2.8;25"), Accepted)
        assert isinstance(asked(service, remote="192.0.2.7;25"), Rejected)

    @needs_account_tools
    def test_rules_of_pam_access_by_service_go_on_working(
        self, serving: Serving, joe: str, tmp_path: Path
    ) -> None:
        rules = tmp_path / "access.conf"
        account_rule = f"pam_access.so accessfile={rules} nodefgroup"
        allowed = serving(Stack("pam_permit.so", account_rule))
        other = serving(Stack("pam_permit.so", account_rule))
        rules.write_text(f"+:ALL:{allowed.name}\n-:ALL:ALL\n")

        assert asked(allowed, user=joe) == Accepted(joe, "pam")
        assert asked(other, user=joe) == Rejected(Reason.DENIED, "pam", "PAM acct error")


class TestDelays:
    WAITING = "auth optional pam_faildelay.so delay=40000000\n"

    def test_a_delay_is_told_and_not_slept(self, serving: Serving) -> None:
        service = serving(self.WAITING + DENY.text)
        started = time.monotonic()

        result = asked(service)

        assert isinstance(result, Rejected)
        assert 20 < result.delay < 60  # libpam varies what a module asked for
        assert time.monotonic() - started < 20

    @needs_account_tools
    def test_pam_unix_wants_two_seconds(self, serving: Serving, joe: str) -> None:
        result = asked(serving(UNIX), user=joe, password=b"wrong")

        assert isinstance(result, Rejected)
        assert 1 < result.delay < 3

    @pytest.mark.interop("gcc")
    def test_who_has_the_right_password_does_not_wait(
        self, serving: Serving, modules: Modules
    ) -> None:
        refused_later = modules.returning(0, code("PAM_ACCT_EXPIRED"))

        result = asked(serving(self.WAITING + refused_later.text))

        assert result == Rejected(Reason.ACCOUNT_EXPIRED, "pam", "PAM acct error", delay=0.0)


@needs_account_tools
class TestAccounts:
    def test_it_accepts_the_right_password(self, serving: Serving, joe: str) -> None:
        assert asked(serving(UNIX), user=joe) == Accepted(joe, "pam")

    @pytest.mark.parametrize("password", [b"hunter", b"hunter2 ", b"HUNTER2", b"\xff"], ids=repr)
    def test_it_refuses_a_wrong_password(self, serving: Serving, joe: str, password: bytes) -> None:
        result = asked(serving(UNIX), user=joe, password=password)

        assert isinstance(result, Rejected)
        assert result.reason is Reason.WRONG_PASSWORD

    def test_it_refuses_an_unknown_user(self, serving: Serving) -> None:
        result = asked(serving(UNIX), user="nobody-here")

        assert isinstance(result, Rejected)
        assert result.reason is Reason.NO_SUCH_USER

    @pytest.mark.parametrize(
        ("aging", "reason"),
        [
            ({"expiredate": 1}, Reason.ACCOUNT_EXPIRED),
            ({"lastday": 0}, Reason.PASSWORD_EXPIRED),
            ({"lastday": 1, "maxdays": 1}, Reason.PASSWORD_EXPIRED),
            ({"lastday": 1, "maxdays": 1, "inactive": 1}, Reason.PASSWORD_EXPIRED),
        ],
        ids=["account expired", "change forced", "password expired", "and inactive"],
    )
    def test_it_refuses_an_account_whose_time_is_over(
        self, serving: Serving, aging: dict[str, int], reason: Reason
    ) -> None:
        with account(PASSWORD.decode(), stored=LOCKED, **aging) as name:
            result = asked(serving(UNIX), user=name)

        assert result == Rejected(reason, "pam", "PAM acct error")

    def test_it_refuses_a_locked_account(self, serving: Serving) -> None:
        with account() as name:
            assert isinstance(asked(serving(UNIX), user=name), Rejected)

    @pytest.mark.parametrize("options", ["", "nullok"], ids=["", "where the rules allow it, too"])
    def test_an_account_without_a_password_is_closed(self, serving: Serving, options: str) -> None:
        with account(stored="") as name:
            stack = Stack(f"pam_unix.so {options}", "pam_unix.so")

            assert isinstance(asked(serving(stack), user=name), Rejected)


@pytest.mark.interop("gcc")
class TestConversation:
    @pytest.fixture
    def heard(self, serving: Serving, modules: Modules, tmp_path: Path) -> Callable[..., list[str]]:
        """Return what has a module send messages in one round, and tells what it heard."""
        answers = tmp_path / "answers"

        def say(*messages: tuple[int, str | None], options: str = "") -> list[str]:
            said = modules.saying(*messages, options=f"answers={answers} {options}")
            assert isinstance(asked(serving(said)), Accepted)
            return answers.read_text().splitlines()

        return say

    def test_a_hidden_prompt_is_answered_with_the_password(
        self, heard: Callable[..., list[str]]
    ) -> None:
        assert heard((ECHO_OFF, "Password: ")) == [PASSWORD.decode()]

    def test_every_hidden_prompt_is_answered(self, heard: Callable[..., list[str]]) -> None:
        messages = [(ECHO_OFF, "Password: "), (ECHO_OFF, "Code: ")]

        assert heard(*messages, options="rounds=2") == [PASSWORD.decode()] * 4

    def test_the_prompt_for_the_user_is_answered_with_the_user(
        self, heard: Callable[..., list[str]]
    ) -> None:
        assert heard((ECHO_ON, "who"), options="user_prompt=who") == ["joe"]

    @pytest.mark.parametrize("options", ["user_prompt=who", ""], ids=["another", "none"])
    def test_another_visible_prompt_is_not_answered(
        self, heard: Callable[..., list[str]], options: str
    ) -> None:
        assert heard((ECHO_ON, "colour"), options=options) == ["(null)"]

    @pytest.mark.parametrize("options", ["user_prompt=who", ""], ids=["another", "none"])
    def test_a_visible_prompt_without_a_text_is_not_answered(
        self, heard: Callable[..., list[str]], options: str
    ) -> None:
        assert heard((ECHO_ON, None), options=options) == ["(null)"]

    @pytest.mark.usefixtures("seen_logs")
    def test_a_prompt_that_is_not_answered_is_logged(
        self, heard: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", LOGGER)

        heard((ECHO_ON, "colour"))

        line = "DEBUG: saslauthd_pam_conv: unknown prompt string: colour"
        assert caplog.messages == [line]

    @pytest.mark.parametrize("style", [ERROR_MSG, TEXT_INFO])
    def test_what_is_said_needs_no_answer(
        self, heard: Callable[..., list[str]], style: int
    ) -> None:
        assert heard((style, "hello"), (ECHO_OFF, "Password: ")) == ["(null)", PASSWORD.decode()]

    def test_a_message_of_an_unknown_kind_ends_the_conversation(
        self, serving: Serving, modules: Modules
    ) -> None:
        service = serving(modules.saying((ECHO_OFF, "Password: "), (RADIO_TYPE, "yes?")))

        detail = f"pam_authenticate (service {service.name}): Conversation error"
        assert asked(service) == Unavailable(detail, "pam")

    def test_a_stack_may_decide_about_a_message_of_an_unknown_kind(
        self, serving: Serving, modules: Modules
    ) -> None:
        options = f"as={code('PAM_AUTH_ERR')}"

        result = asked(serving(modules.saying((RADIO_TYPE, "yes?"), options=options)))

        assert isinstance(result, Rejected)

    def test_texts_need_not_be_utf_8(self, serving: Serving, modules: Modules) -> None:
        latin = os.fsdecode(b"caf\xe9")
        said = modules.saying((TEXT_INFO, latin), (ECHO_ON, latin), (ECHO_OFF, latin))

        assert isinstance(asked(serving(said)), Accepted)

    def test_a_stack_that_asks_for_ever_is_an_outage(
        self, serving: Serving, modules: Modules
    ) -> None:
        service = serving(modules.saying((ECHO_OFF, "Password: "), options="rounds=0"))

        detail = f"pam_authenticate (service {service.name}): Conversation error"
        assert asked(service) == Unavailable(detail, "pam")

    def test_it_stays_an_outage_whatever_the_module_makes_of_it(
        self, serving: Serving, modules: Modules
    ) -> None:
        options = f"rounds=0 as={code('PAM_AUTH_ERR')}"

        result = asked(serving(modules.saying((ECHO_OFF, "Password: "), options=options)))

        assert isinstance(result, Unavailable)

    @pytest.mark.parametrize(("count", "verdict"), [(32, Accepted), (33, Unavailable)])
    def test_a_round_has_so_many_messages_at_most(
        self, serving: Serving, modules: Modules, count: int, verdict: type
    ) -> None:
        result = asked(serving(modules.saying(*[(TEXT_INFO, "x")] * count)))

        assert isinstance(result, verdict)

    @pytest.mark.usefixtures("seen_logs")
    def test_a_want_of_memory_is_an_outage(
        self,
        serving: Serving,
        modules: Modules,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        service = serving(modules.saying((ECHO_OFF, "Password: ")))
        monkeypatch.setattr(backend.load().calls, "calloc", lambda _count, _size: None)

        result = asked(service)

        assert isinstance(result, Unavailable)
        assert "MemoryError" in caplog.text
        assert PASSWORD.decode() not in caplog.text


class TestPins:
    @pytest.fixture
    def pinning(
        self, serving: Serving, modules: Modules, tmp_path: Path
    ) -> Callable[[str], tuple[Service, Path]]:
        """Return what makes a service with a module of its own."""

        def make(name: str) -> tuple[Service, Path]:
            module = Path(shutil.copy(modules.code, tmp_path / f"{name}.so"))
            return serving(Stack(str(module))), module

        return make

    @staticmethod
    def is_loaded(module: Path) -> bool:
        return str(module) in Path("/proc/self/maps").read_text()

    @pytest.mark.interop("gcc")
    def test_a_module_stays_loaded_between_requests(
        self, pinning: Callable[[str], tuple[Service, Path]]
    ) -> None:
        service, module = pinning("module")
        verifier = Pam()

        verifier.check(request_for(service))

        assert self.is_loaded(module)

    @pytest.mark.interop("gcc")
    def test_of_too_many_services_the_one_not_used_longest_is_let_go(
        self,
        pinning: Callable[[str], tuple[Service, Path]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(backend, "MOST_PINNED", 2)
        (one, ones), (two, twos), (three, threes) = map(pinning, ["one", "two", "three"])
        verifier = Pam()

        for service in (one, two, one, three):
            verifier.check(request_for(service))

        assert [self.is_loaded(module) for module in (ones, twos, threes)] == [True, False, True]


@needs_account_tools
class TestSecrets:
    def test_nothing_keeps_the_password(self, serving: Serving, joe: str) -> None:
        verifier, request = Pam(), request_for(serving(UNIX), user=joe)
        before = sys.getrefcount(request.password), sys.getrefcount(request.password.reveal())

        verifier.check(request)

        after = sys.getrefcount(request.password), sys.getrefcount(request.password.reveal())
        assert after == before

    @pytest.mark.usefixtures("seen_logs")
    @pytest.mark.parametrize("rules", [UNIX, DENY, NO_START, MISSING_MODULE], ids=repr)
    def test_no_log_or_verdict_has_the_password(
        self, serving: Serving, joe: str, rules: Stack | str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", LOGGER)

        result = asked(serving(rules), user=joe, password=b"correct horse")

        assert "horse" not in repr(result) + caplog.text


@pytest.mark.usefixtures("seen_logs")
class TestLog:
    @pytest.mark.interop("gcc")
    @pytest.mark.parametrize(
        ("codes", "line"),
        [
            ((7,), "pam_authenticate failed: Authentication failure"),
            ((0, 13), "pam_acct_mgmt failed: User account has expired"),
        ],
        ids=["auth", "account"],
    )
    def test_a_refusal_is_logged_as_the_c_daemon_does(
        self,
        serving: Serving,
        modules: Modules,
        codes: tuple[int],
        line: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("DEBUG", LOGGER)

        asked(serving(modules.returning(*codes)))

        assert caplog.messages == [f"DEBUG: auth_pam: {line}"]

    def test_rules_that_cannot_be_read_are_logged_as_the_c_daemon_does(
        self, serving: Serving, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", LOGGER)

        asked(serving(NO_START))

        line = "DEBUG: auth_pam: pam_start failed: Critical error - immediate abort"
        assert caplog.messages == [line]

    def test_a_success_is_not_logged(
        self, serving: Serving, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", LOGGER)

        asked(serving(PERMIT))

        assert caplog.messages == []


class TestLoading:
    @pytest.fixture(autouse=True)
    def _anew(self) -> Iterator[None]:
        backend.load.cache_clear()
        yield
        backend.load.cache_clear()

    def test_a_missing_library_is_named_with_its_package(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "LIBRARY", "libno-pam.so.0")

        with pytest.raises(StartupError) as caught:
            backend.load()

        assert "libno-pam.so.0" in caught.value.lines[0]
        assert "apt-get install libpam0g" in caught.value.lines[1]

    def test_the_library_need_not_be_in_the_linkers_cache(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linux_pam.PamAuthenticator, "_libs_ready", False)
        monkeypatch.setattr(linux_pam, "find_library", lambda _name: None)

        assert backend.load().explain(0) == "Success"

    def test_it_is_loaded_once(self) -> None:
        assert backend.load() is backend.load()
