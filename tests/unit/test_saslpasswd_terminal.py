import os
import pty
import sys
from pathlib import Path

import pytest

from pysaslauthd.stores import sasldb

ROOT = Path(__file__).parents[2]
ANN = sasldb.key(b"ann", b"example.org")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sasldb2")


class Screen:
    """The command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-c", self.CODE, *words])  # noqa: S606
        self.shown = b""

    CODE = (
        "import sys; from pysaslauthd.cli.saslpasswd import main; "
        "sys.argv[0] = 'pysaslpasswd'; sys.exit(main())"
    )

    def answer(self, prompt: bytes, text: bytes) -> None:
        """Type *text* when *prompt* is the last thing shown."""
        while not self.shown.endswith(prompt):
            self.shown += os.read(self._terminal, 1000)
        os.write(self._terminal, text)

    def end(self) -> int:
        """Return the exit code, when everything was shown."""
        while part := self._read():
            self.shown += part
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _read(self) -> bytes:
        try:
            return os.read(self._terminal, 1000)
        except OSError:  # how Linux says that the other side is closed
            return b""


BOTH_PROMPTS = b"Password: \r\nAgain (for verification): \r\n"


def test_a_terminal_is_asked_twice_without_echo(path: str) -> None:
    screen = Screen("-f", path, "ann@example.org")

    screen.answer(b"Password: ", b"secret\n")
    screen.answer(b"Again (for verification): ", b"secret\n")

    assert screen.end() == 0
    assert screen.shown == BOTH_PROMPTS
    assert sasldb.load(path) == {ANN: b"secret"}


def test_two_different_passwords_are_refused(path: str) -> None:
    screen = Screen("-f", path, "ann@example.org")

    screen.answer(b"Password: ", b"secret\n")
    screen.answer(b"Again (for verification): ", b"other\n")

    assert screen.end() == 7
    told = b"pysaslpasswd: passwords don't match; aborting\r\n"
    assert screen.shown == BOTH_PROMPTS + told
    assert not Path(path).exists()


def test_p_reads_a_terminal_once_without_a_prompt(path: str) -> None:
    screen = Screen("-p", "-f", path, "ann@example.org")

    screen.answer(b"", b"secret\n")

    assert screen.end() == 0
    assert b"Password" not in screen.shown
    assert sasldb.load(path) == {ANN: b"secret"}


def test_an_interrupt_at_the_prompt_changes_nothing(path: str) -> None:
    screen = Screen("-f", path, "ann@example.org")

    screen.answer(b"Password: ", b"\x03")

    assert screen.end() == 130
    assert screen.shown.endswith(b"pysaslpasswd: interrupted; nothing was changed\r\n")
    assert not Path(path).exists()
