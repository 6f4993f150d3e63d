"""The accounts of the system behind a stock Postfix: PAM and shadow, and the client's address."""

import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.accounts import account, needs_account_tools
from tests.helpers.daemon import Daemon, daemon
from tests.helpers.pam import (
    MISSING_MODULE,
    UNIX,
    Service,
    Stack,
    pam_service,
    stack_that_kills_its_parent,
    stack_that_sleeps,
)
from tests.helpers.postfix import Postfix, postfix_directory, running_postfix
from tests.helpers.processes import DEADLINE, short_directory
from tests.helpers.smtp import swaks_auth

pytestmark = [pytest.mark.interop("postfix", "swaks"), needs_account_tools]

PASSWORD = "right"
QUICK_UNIX = Stack("pam_unix.so nodelay", "pam_unix.so")
ACCOUNT = "account required pam_permit.so\n"


@pytest.fixture(scope="module")
def user(as_root: None) -> Iterator[str]:
    with account(PASSWORD) as name:
        yield name


@pytest.fixture(scope="module")
def service(as_root: None) -> Iterator[Service]:
    """Return the PAM service that Postfix names; each test writes its rules."""
    with pam_service(UNIX) as found:
        yield found


@contextmanager
def by_pam(service: Service, settings: str = "") -> Iterator[Postfix]:
    """Run a daemon with -a pam and *settings*, and a Postfix that asks it."""
    with short_directory("sd-") as directory:
        config = directory / "toml"
        config.write_text(f'mechanism = "pam"\n{settings}')
        with (
            daemon(directory, backend=("--config", str(config))) as running,
            asking(running.mux, service.name) as asker,
        ):
            yield asker


@pytest.fixture(scope="module")
def postfix(service: Service) -> Iterator[Postfix]:
    with by_pam(service) as running:
        yield running


@pytest.fixture
def hurried(service: Service) -> Iterator[Postfix]:
    """Return a Postfix whose daemon waits for no module longer than a second."""
    with by_pam(service, "deadline = 1.0\n") as running:
        yield running


@pytest.fixture(scope="module")
def shadowed(as_root: None) -> Iterator[tuple[Daemon, Postfix]]:
    """Return a daemon with -a shadow, and a Postfix that asks it."""
    with (
        short_directory("sd-") as directory,
        daemon(directory, backend=("-a", "shadow")) as running,
        asking(running.mux, "smtp") as asker,
    ):
        yield running, asker


@contextmanager
def asking(mux: Path, service: str) -> Iterator[Postfix]:
    """Run a Postfix that asks at *mux* and calls itself *service*."""
    sasl = {"pwcheck_method": "saslauthd", "saslauthd_path": mux, "mech_list": "PLAIN LOGIN"}
    main = {"smtpd_sasl_security_options": "noanonymous", "smtpd_sasl_service": service}
    with postfix_directory() as directory, running_postfix(directory, sasl, main) as running:
        yield running


def code(postfix: Postfix, user: str, password: str = PASSWORD) -> int | None:
    return swaks_auth(postfix.port, "PLAIN", user, password).code("AUTH")


class TestPam:
    def test_a_right_password_gets_235(self, postfix: Postfix, service: Service, user: str) -> None:
        service.write(QUICK_UNIX)

        assert code(postfix, user) == 235

    @pytest.mark.parametrize("name", ["", "no-such-user"], ids=["of a user", "of nobody"])
    def test_a_wrong_password_gets_535(
        self, postfix: Postfix, service: Service, user: str, name: str
    ) -> None:
        service.write(QUICK_UNIX)

        assert code(postfix, name or user, "wrong") == 535

    @pytest.mark.parametrize(
        "rules",
        [MISSING_MODULE, stack_that_kills_its_parent()],
        ids=["is missing", "kills its process"],
    )
    def test_a_module_that_cannot_answer_gets_454(
        self, postfix: Postfix, service: Service, user: str, rules: Stack
    ) -> None:
        service.write(rules)

        assert code(postfix, user) == 454

    def test_a_module_that_hangs_gets_454(
        self, hurried: Postfix, service: Service, user: str
    ) -> None:
        service.write(stack_that_sleeps(60))

        assert code(hurried, user) == 454

    def test_rules_that_are_mended_serve_at_once(
        self, postfix: Postfix, service: Service, user: str
    ) -> None:
        service.write(MISSING_MODULE)
        code(postfix, user)
        service.write(QUICK_UNIX)

        assert code(postfix, user) == 235


class TestTheClientsAddress:
    @pytest.mark.parametrize(("sense", "reply"), [("allow", 235), ("deny", 535)])
    def test_is_what_modules_go_by(
        self,
        postfix: Postfix,
        service: Service,
        user: str,
        tmp_path: Path,
        sense: str,
        reply: int,
    ) -> None:
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1\n")
        by_host = f"pam_listfile.so item=rhost sense={sense} file={hosts} onerr=fail"
        service.write(f"auth required {by_host}\nauth required pam_unix.so nodelay\n{ACCOUNT}")

        assert code(postfix, user) == reply

    def test_is_in_the_line_about_a_refusal(
        self, shadowed: tuple[Daemon, Postfix], user: str
    ) -> None:
        running, asker = shadowed
        with smtplib.SMTP("127.0.0.1", asker.port, timeout=DEADLINE) as client:
            assert client.sock is not None
            port = client.sock.getsockname()[1]
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(user, "wrong")

        assert re.search(
            rf"auth failure: \[user={user}\] \[service=smtp\] \[realm=[^]]*\]"
            rf" \[remote=127\.0\.0\.1;{port}\] \[mech=shadow\] \[reason=Incorrect password\]",
            running.log(),
        )


class TestShadow:
    def test_a_right_password_gets_235(self, shadowed: tuple[Daemon, Postfix], user: str) -> None:
        assert code(shadowed[1], user) == 235

    def test_an_expired_account_gets_535(self, shadowed: tuple[Daemon, Postfix]) -> None:
        with account(PASSWORD, expiredate=1) as name:
            assert code(shadowed[1], name) == 535
