import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pysaslauthd import __version__
from pysaslauthd.cli import sasldblistusers
from pysaslauthd.stores import berkeley_hash
from pysaslauthd.stores.records import key

Command = Callable[..., tuple[int, str, str]]

VERSION = f"pysasldblistusers (pysaslauthd) {__version__}\n"
USAGE = "pysasldblistusers: usage: pysasldblistusers [-v] [[-f] sasldb]\n"


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return what runs the command and gives its exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pysasldblistusers"])

    def run(*words: str) -> tuple[int, str, str]:
        status = sasldblistusers.main(words)
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "sasldb2"
    file.write_bytes(berkeley_hash.build({key(b"ann", b"example.org"): b"secret"}))
    return str(file)


def test_each_record_is_a_line_without_its_secret(command: Command, path: str) -> None:
    assert command("-f", path) == (0, "ann@example.org: userPassword\n", "")


@pytest.mark.parametrize("words", [["{}"], ["--", "{}"], ["-f", "{}", "--"], ["-f{}"]])
def test_the_file_is_an_option_or_an_operand(command: Command, path: str, words: list[str]) -> None:
    status, output, _ = command(*[word.format(path) for word in words])

    assert (status, output) == (0, "ann@example.org: userPassword\n")


def test_the_command_line_is_that_of_the_process(
    command: Command, path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["list", path])

    assert sasldblistusers.main() == 0
    assert capfd.readouterr().out == "ann@example.org: userPassword\n"


def test_names_are_printed_as_the_bytes_they_are(tmp_path: Path) -> None:
    file = tmp_path / "sasldb2"
    file.write_bytes(berkeley_hash.build({key(b"\xff", b"r"): b""}))
    reader, writer = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)

    sasldblistusers.main([str(file)])

    os.dup2(saved, 1)
    for descriptor in (saved, writer):
        os.close(descriptor)
    with os.fdopen(reader, "rb") as output:
        assert output.read() == b"\xff@r: userPassword\n"


def test_a_reader_that_leaves_is_no_failure(path: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(1)
    os.dup2(writer, 1)

    status = sasldblistusers.main([path])

    os.dup2(saved, 1)
    for descriptor in (saved, writer):
        os.close(descriptor)
    assert status == 0


def test_a_key_without_a_user_is_skipped_and_counted(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "sasldb2"
    file.write_bytes(berkeley_hash.build({b"odd": b"", key(b"ann", b"r"): b""}))

    status, output, complaint = command(str(file))

    assert (status, output) == (0, "ann@r: userPassword\n")
    assert complaint == f"pysasldblistusers: {file}: 1 records skipped: no user in the key\n"


def test_a_missing_file_is_told_but_is_exit_code_zero(command: Command) -> None:
    status, output, complaint = command("/nowhere/sasldb2")

    assert (status, output) == (0, "")
    assert complaint.startswith("pysasldblistusers: /nowhere/sasldb2: there is no such file")
    assert complaint.endswith("\nlistusers failed\n")


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        pytest.param(["-h"], "", "", id="help"),
        pytest.param(["-?"], "", "", id="question-mark"),
        pytest.param(["a", "b"], "", "", id="two-files"),
        pytest.param(["-f", "a", "b"], "", "", id="option-and-operand"),
        pytest.param(["-"], "", "", id="dash"),
        pytest.param(
            ["-x"],
            "pysasldblistusers: invalid option -- 'x'\n",
            "Unrecognized command line option\n",
            id="unknown",
        ),
        pytest.param(
            ["-f"],
            "pysasldblistusers: option requires an argument -- 'f'\n",
            "Unrecognized command line option\n",
            id="no-argument",
        ),
    ],
)
def test_a_wrong_command_line_gets_the_usage(
    command: Command, words: list[str], first: str, last: str
) -> None:
    status, output, complaint = command(*words)

    assert (status, output) == (1, "")
    assert complaint.startswith(first + USAGE)
    assert complaint.endswith("\n" + last)


@pytest.mark.parametrize("words", [["-v"], ["-v", "-x"], ["-h", "-v"], ["-f", "/nowhere", "-v"]])
def test_v_prints_the_version_to_stderr_whatever_else_is_given(
    command: Command, words: list[str]
) -> None:
    assert command(*words) == (0, "", VERSION)


def test_long_options_print_to_stdout(command: Command) -> None:
    assert command("--version") == (0, VERSION, "")
    status, output, complaint = command("--help")
    assert (status, complaint) == (0, "")
    assert "[[-f] SASLDB]" in output
