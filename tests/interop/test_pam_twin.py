"""The C daemon's PAM, pamtester and ours, side by side with the same rules and users."""

import logging
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pysaslauthd.backends.pam import OUTAGES, Pam
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Origin,
    Rejected,
    Secret,
    Unavailable,
)
from tests.helpers.accounts import account
from tests.helpers.cyrus import Cyrus, cyrus
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
)
from tests.helpers.processes import DEADLINE

pytestmark = pytest.mark.interop("saslauthd", "pamtester", "gcc", "useradd", "chpasswd", "chage")

PASSWORD = "right horse"
QUICK_UNIX = Stack("pam_unix.so nodelay", "pam_unix.so")
CODES = range(1, 32)  # all that Linux-PAM has, but PAM_SUCCESS
REFUSALS = [code for code in CODES if code not in OUTAGES]

Serving = Callable[[Stack | str], Service]


@pytest.fixture
def own_twin(as_root: None) -> Iterator[Cyrus]:
    """Return a C daemon for a test that ends it."""
    with cyrus("pam") as twin:
        yield twin


@pytest.fixture(scope="module")
def twin(as_root: None) -> Iterator[Cyrus]:
    with cyrus("pam") as twin:
        yield twin


@pytest.fixture
def serving(as_root: None) -> Iterator[Serving]:
    """Return what makes a PAM service of some rules for the length of the test."""
    with ExitStack() as made:
        yield lambda rules: made.enter_context(pam_service(rules))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return compile_modules(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def joe(as_root: None) -> Iterator[str]:
    """Return the name of an account with the password PASSWORD."""
    with account(PASSWORD) as name:
        yield name


def ask_theirs(twin: Cyrus, service: str, user: str = "joe", password: str = PASSWORD) -> bytes:
    return twin.ask(user, password, service=service)


def ask_ours(service: str, user: str = "joe", password: str = PASSWORD) -> AuthResult:
    secret = Secret(password.encode())
    return Pam().check(AuthRequest(user, secret, "", Origin(service), time.monotonic()))


def reply(result: AuthResult) -> bytes:
    """Return what the mux door says for a verdict."""
    assert not isinstance(result, Unavailable), result
    if isinstance(result, Accepted):
        return b"OK"
    return b"NO " + result.text.encode()


def pamtester(service: str, user: str = "joe", password: str = PASSWORD) -> tuple[bool, str]:
    """Return whether pamtester lets the user in, and its last words."""
    done = subprocess.run(
        ["pamtester", service, user, "authenticate(PAM_SILENT)", "acct_mgmt(PAM_SILENT)"],
        input=f"{password}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    return done.returncode == 0, done.stderr.rpartition("pamtester: ")[2].strip()


class TestTheSame:
    @pytest.mark.parametrize("rules", [PERMIT, DENY, Stack("pam_permit.so", "pam_deny.so")])
    def test_fixed_rules(self, twin: Cyrus, serving: Serving, rules: Stack) -> None:
        service = serving(rules).name

        ours = ask_ours(service)

        assert reply(ours) == ask_theirs(twin, service)
        assert isinstance(ours, Accepted) == pamtester(service)[0]

    @pytest.mark.parametrize("password", [PASSWORD, "wrong", PASSWORD.upper(), f"{PASSWORD} "])
    def test_a_password(self, twin: Cyrus, serving: Serving, joe: str, password: str) -> None:
        service = serving(QUICK_UNIX).name

        ours = ask_ours(service, joe, password)

        assert isinstance(ours, Accepted) == (password == PASSWORD)
        assert reply(ours) == ask_theirs(twin, service, joe, password)
        assert isinstance(ours, Accepted) == pamtester(service, joe, password)[0]

    @pytest.mark.parametrize("user", ["nobody-here", "JOE", "zoë", "joe)(uid=*", "j" * 200])
    def test_a_name_nobody_has(self, twin: Cyrus, serving: Serving, user: str) -> None:
        service = serving(QUICK_UNIX).name

        assert (
            reply(ask_ours(service, user))
            == ask_theirs(twin, service, user)
            == b"NO PAM auth error"
        )

    @pytest.mark.parametrize(
        "aging",
        [
            {"expiredate": 1},
            {"lastday": 0},
            {"lastday": 1, "maxdays": 1},
            {"lastday": 1, "maxdays": 1, "inactive": 1},
        ],
        ids=["account expired", "change forced", "password expired", "and inactive"],
    )
    def test_an_account_whose_time_is_over(
        self, twin: Cyrus, serving: Serving, aging: dict[str, int]
    ) -> None:
        service = serving(QUICK_UNIX).name
        with account(PASSWORD, stored="!", **aging) as name:
            ours = ask_ours(service, name)

            assert reply(ours) == ask_theirs(twin, service, name) == b"NO PAM acct error"
            assert not pamtester(service, name)[0]

    def test_an_account_without_a_password(self, twin: Cyrus, serving: Serving) -> None:
        service = serving(Stack("pam_unix.so nodelay", "pam_unix.so")).name
        with account(stored="") as name:
            ours = ask_ours(service, name)

            assert reply(ours) == ask_theirs(twin, service, name) == b"NO PAM auth error"

    @pytest.mark.parametrize("code", REFUSALS)
    def test_a_code_for_a_login(
        self, twin: Cyrus, serving: Serving, modules: Modules, code: int
    ) -> None:
        service = serving(modules.returning(code)).name

        assert reply(ask_ours(service)) == ask_theirs(twin, service)

    @pytest.mark.parametrize("code", REFUSALS)
    def test_a_code_for_an_account(
        self, twin: Cyrus, serving: Serving, modules: Modules, code: int
    ) -> None:
        service = serving(modules.returning(0, code)).name

        assert reply(ask_ours(service)) == ask_theirs(twin, service)

    @pytest.mark.parametrize("codes", [(code, 0) for code in CODES] + [(0, code) for code in CODES])
    @pytest.mark.usefixtures("seen_logs")
    def test_what_a_code_means(
        self,
        serving: Serving,
        modules: Modules,
        codes: tuple[int, int],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        service = serving(modules.returning(*codes)).name
        caplog.set_level(logging.DEBUG, "pysaslauthd.backends.pam")

        ask_ours(service)

        _, explanation = pamtester(service)
        assert caplog.messages[0].endswith(f" failed: {explanation}")

    @pytest.mark.parametrize("options", ["rounds=1", "rounds=2"])
    def test_the_answers_to_a_module(
        self, twin: Cyrus, serving: Serving, modules: Modules, tmp_path: Path, options: str
    ) -> None:
        messages = [
            (TEXT_INFO, "welcome"),
            (ECHO_ON, "who"),
            (ECHO_OFF, "Password: "),
            (ERROR_MSG, "careful"),
            (ECHO_ON, "colour"),
            (ECHO_OFF, "Code: "),
        ]
        heard = tmp_path / "heard"
        options = f"user_prompt=who answers={heard} {options}"
        service = serving(modules.saying(*messages, options=options)).name

        assert ask_theirs(twin, service) == b"OK"
        theirs = heard.read_text()
        heard.unlink()
        assert isinstance(ask_ours(service), Accepted)

        assert heard.read_text() == theirs

    def test_a_message_of_an_unknown_kind_that_a_module_takes_for_a_refusal(
        self, twin: Cyrus, serving: Serving, modules: Modules
    ) -> None:
        service = serving(modules.saying((RADIO_TYPE, "yes?"), options="as=7")).name

        assert reply(ask_ours(service)) == ask_theirs(twin, service) == b"NO PAM auth error"

    def test_rules_of_pam_access(
        self, twin: Cyrus, serving: Serving, joe: str, tmp_path: Path
    ) -> None:
        rules = tmp_path / "access.conf"
        stack = Stack("pam_permit.so", f"pam_access.so accessfile={rules} nodefgroup")
        allowed, other = serving(stack).name, serving(stack).name
        rules.write_text(f"+:ALL:{allowed}\n-:ALL:ALL\n")

        assert reply(ask_ours(allowed, joe)) == ask_theirs(twin, allowed, joe) == b"OK"
        assert reply(ask_ours(other, joe)) == ask_theirs(twin, other, joe) == b"NO PAM acct error"

    def test_the_case_of_a_service(self, twin: Cyrus, serving: Serving) -> None:
        service = serving(PERMIT).name.upper()

        assert reply(ask_ours(service)) == ask_theirs(twin, service) == b"OK"

    def test_services_without_rules_of_their_own(self, twin: Cyrus, joe: str) -> None:
        for service in ("", "pysasl-no-such-service"):
            assert reply(ask_ours(service, joe)) == ask_theirs(twin, service, joe)


class TestTheDifferences:
    @pytest.mark.parametrize("code", sorted(OUTAGES))
    def test_a_fault_is_an_outage_where_theirs_says_no(
        self, twin: Cyrus, serving: Serving, modules: Modules, code: int
    ) -> None:
        service = serving(modules.returning(code)).name

        assert ask_theirs(twin, service) == b"NO PAM auth error"
        assert isinstance(ask_ours(service), Unavailable)

    @pytest.mark.parametrize("code", sorted(OUTAGES))
    def test_a_fault_over_the_account_is_an_outage_where_theirs_says_no(
        self, twin: Cyrus, serving: Serving, modules: Modules, code: int
    ) -> None:
        service = serving(modules.returning(0, code)).name

        assert ask_theirs(twin, service) == b"NO PAM acct error"
        assert isinstance(ask_ours(service), Unavailable)

    @pytest.mark.parametrize(
        ("rules", "theirs"),
        [(MISSING_MODULE, b"NO PAM auth error"), (NO_START, b"NO PAM start error")],
        ids=["missing module", "unreadable rules"],
    )
    def test_broken_rules_are_an_outage_where_theirs_says_no(
        self, twin: Cyrus, serving: Serving, rules: Stack | str, theirs: bytes
    ) -> None:
        service = serving(rules).name

        assert ask_theirs(twin, service) == theirs
        assert isinstance(ask_ours(service), Unavailable)

    def test_an_account_without_a_password_is_closed_where_theirs_takes_any(
        self, twin: Cyrus, serving: Serving
    ) -> None:
        service = serving(Stack("pam_unix.so nodelay nullok", "pam_unix.so")).name
        with account(stored="") as name:
            ours = ask_ours(service, name)

            assert ask_theirs(twin, service, name) == b"OK"
            assert isinstance(ours, Rejected)

    def test_a_path_is_refused_where_theirs_takes_its_last_part(
        self, twin: Cyrus, serving: Serving
    ) -> None:
        path = f"../../x/{serving(PERMIT).name}"

        assert ask_theirs(twin, path) == b"OK"
        assert reply(ask_ours(path)) == b"NO PAM start error"

    def test_a_visible_prompt_is_not_answered_where_theirs_dies(
        self, own_twin: Cyrus, serving: Serving, modules: Modules
    ) -> None:
        service = serving(modules.saying((ECHO_ON, "colour"))).name

        assert ask_theirs(own_twin, service) == b""
        assert own_twin.server.has_ended(within=DEADLINE)
        assert isinstance(ask_ours(service), Accepted)

    def test_a_delay_is_told_where_theirs_sleeps(
        self, twin: Cyrus, serving: Serving, joe: str
    ) -> None:
        service = serving(UNIX).name
        started = time.monotonic()

        ask_theirs(twin, service, joe, "wrong")

        assert time.monotonic() - started > 1
        ours = ask_ours(service, joe, "wrong")
        assert isinstance(ours, Rejected)
        assert ours.delay > 1


def with_module(rules: str, module: str, instead: str) -> str:
    """Take the lines with *module* that are offered, with *instead* in its place."""
    return re.sub(rf"(?m)^#(.*?){module}\.so", rf"\1{instead}", rules)


class TestTheExampleRules:
    """conf/pam.d/smtp, as it is and with what it offers."""

    RULES = (Path(__file__).parents[2] / "conf" / "pam.d" / "smtp").read_text()

    def test_let_in_who_knows_the_password(self, serving: Serving) -> None:
        with account(PASSWORD) as name:
            assert isinstance(ask_ours(serving(self.RULES).name, name), Accepted)

    def test_keep_out_who_does_not(self, serving: Serving) -> None:
        with account("another") as name:
            assert isinstance(ask_ours(serving(self.RULES).name, name), Rejected)

    def test_keep_out_who_has_expired(self, serving: Serving) -> None:
        with account(PASSWORD, expiredate=1) as name:
            assert isinstance(ask_ours(serving(self.RULES).name, name), Rejected)

    def test_ask_the_second_source_too(self, serving: Serving) -> None:
        rules = with_module(self.RULES, "pam_sss", "pam_permit.so")
        with account("another") as name:
            assert isinstance(ask_ours(serving(rules).name, name), Accepted)

    def test_do_not_need_the_second_source_for_the_first(self, serving: Serving) -> None:
        rules = with_module(self.RULES, "pam_sss", "pam_deny.so")
        rules = rules.replace("default=bad success=ok user_unknown=ignore", "default=ignore")
        with account(PASSWORD) as name:
            assert isinstance(ask_ours(serving(rules).name, name), Accepted)

    def test_lock_out_who_guesses(self, serving: Serving, tmp_path: Path) -> None:
        module = f"pam_faillock.so dir={tmp_path} deny=2"
        service = serving(with_module(self.RULES, "pam_faillock", module)).name
        with account(PASSWORD) as name:
            before = ask_ours(service, name)
            for _ in range(2):
                ask_ours(service, name, "guess")
            after = ask_ours(service, name)

        assert isinstance(before, Accepted)
        assert isinstance(after, Rejected)
