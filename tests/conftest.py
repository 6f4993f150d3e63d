"""Fixtures that every kind of test may use, and the rule for foreign programs."""

import logging
import os
import shutil
import signal
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Look for daemons and their tools where a user's PATH does not; let interrupts interrupt.

    Shells start background jobs with SIGINT ignored, and programs under test inherit that.
    How long an example of hypothesis takes says something of the machine, not of us.
    """
    settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any machine")
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/cyrus/bin"
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-interop",
        action="store_true",
        help="fail, rather than skip, the tests whose foreign programs are missing",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `interop` where a program is missing, before its fixtures start any."""
    needed = [name for marker in item.iter_markers("interop") for name in marker.args]
    missing = sorted({name for name in needed if shutil.which(name) is None})
    if missing:
        leave_out(item.config, f"needs {', '.join(missing)}")


@pytest.fixture(scope="session")
def lacking(pytestconfig: pytest.Config) -> Callable[[str], NoReturn]:
    """Return what a fixture calls, with a reason, when this machine cannot run the test."""
    return lambda reason: leave_out(pytestconfig, reason)


def leave_out(config: pytest.Config, reason: str) -> NoReturn:
    """Skip the test, or fail it where every interop test must run."""
    if config.getoption("--require-interop"):
        pytest.fail(f"{reason} (--require-interop)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def seen_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog see the package's log, which `logs.set_up` keeps from the root logger."""
    monkeypatch.setattr(logging.getLogger("pysaslauthd"), "propagate", True)
