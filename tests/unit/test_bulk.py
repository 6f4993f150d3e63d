import io
import sys

import pytest

from pysaslauthd.cli import bulk


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_import_shows_a_bar_on_a_terminal() -> None:
    terminal = Terminal()

    with bulk.progress(2500, "reading", terminal) as advance:
        bulk.read_users(b"".join(b"u%d\tx\n" % n for n in range(2500)), b"r", advance)

    assert "reading" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_the_bar_is_plain_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    terminal = Terminal()

    with bulk.progress(2500, "reading", terminal) as advance:
        bulk.read_users(b"".join(b"u%d\tx\n" % n for n in range(2500)), b"r", advance)

    assert terminal.getvalue() == "\rreading 40 %\rreading 80 %\rreading 100 %\n"
