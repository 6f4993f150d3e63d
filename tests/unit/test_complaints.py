import logging

import pytest

from pysaslauthd.server import complaints as module
from pysaslauthd.server.complaints import Complaints

log = logging.getLogger("pysaslauthd.test")

pytestmark = pytest.mark.usefixtures("seen_logs")


def test_a_kind_of_line_is_written_once_whatever_its_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = Complaints(log)

    for number in range(3):
        subject.error("one too many: %d", number)

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("ERROR", "one too many: 0")
    ]


def test_one_kind_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    subject = Complaints(log)

    subject.error("this")
    subject.warning("that")

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("ERROR", "this"),
        ("WARNING", "that"),
    ]


def test_it_is_written_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN", 0.0)
    subject = Complaints(log)

    subject.error("this")
    subject.error("this")

    assert caplog.messages == ["this", "this"]
