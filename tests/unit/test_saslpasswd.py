import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pysaslauthd import __version__
from pysaslauthd.cli import saslpasswd
from pysaslauthd.stores import berkeley_hash, sasldb
from pysaslauthd.stores.records import Records

Command = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
ANN = sasldb.key(b"ann", b"example.org")
VERSION = f"pysaslpasswd (pysaslauthd) {__version__}\n"
NO_OUTPUT = (0, "", "")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sasldb2")


@pytest.fixture
def give() -> Iterator[Callable[[bytes], None]]:
    """Lend what makes bytes the standard input, all at once and then its end."""
    saved = os.dup(0)

    def fill(content: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)

    yield fill
    os.dup2(saved, 0)
    os.close(saved)


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    give: Callable[[bytes], None],
    path: str,
) -> Command:
    """Return what runs the command on *path* and gives its exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pysaslpasswd"])

    def run(*words: str, given: bytes = b"secret\n") -> tuple[int, str, str]:
        give(given)
        status = saslpasswd.main(["-f", path, *words])
        return status, *capfd.readouterr()

    return run


@pytest.mark.parametrize("flags", [[], ["-c"], ["-p"], ["-c", "-p"], ["-a", "other"]])
def test_a_password_is_stored(command: Command, path: str, flags: list[str]) -> None:
    assert command(*flags, "ann@example.org") == NO_OUTPUT
    assert sasldb.load(path) == {ANN: b"secret"}


@pytest.mark.parametrize(
    ("words", "user", "realm"),
    [
        pytest.param(["-u", "r", "ann"], b"ann", b"r", id="option"),
        pytest.param(["-u", "r", "ann@x"], b"ann", b"x", id="name-wins"),
        pytest.param(["a@b@c"], b"a", b"b@c", id="first-at"),
        pytest.param(["@x"], b"", b"x", id="no-user"),
        pytest.param(["ann@"], b"ann", b"", id="no-realm"),
        pytest.param(["ann", "-u", "r"], b"ann", b"r", id="option-after-operand"),
        pytest.param(["-u", "r", "--", "-ann"], b"-ann", b"r", id="name-with-dash"),
        pytest.param(["-u", "r", os.fsdecode(b"\xff")], b"\xff", b"r", id="not-utf8"),
    ],
)
def test_the_realm_comes_from_the_name_or_the_option(
    command: Command, path: str, words: list[str], user: bytes, realm: bytes
) -> None:
    assert command(*words) == NO_OUTPUT
    assert sasldb.load(path) == {sasldb.key(user, realm): b"secret"}


@pytest.mark.parametrize("words", [["ann"], ["-u", "", "ann"]])
def test_the_realm_is_else_the_host_name(command: Command, path: str, words: list[str]) -> None:
    assert command(*words) == NO_OUTPUT
    assert sasldb.load(path) == {sasldb.key(b"ann", socket.gethostname().encode()): b"secret"}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        pytest.param(b"secret", b"secret", id="no-newline"),
        pytest.param(b"secret\r\n", b"secret\r", id="carriage-return"),
        pytest.param(b"one\ntwo\n", b"one\ntwo", id="two-lines"),
        pytest.param(b"secret\n\n", b"secret\n", id="two-newlines"),
        pytest.param(b" pa ss \n", b" pa ss ", id="spaces"),
        pytest.param(b"\xff\xfe", b"\xff\xfe", id="not-utf8"),
        pytest.param(b"x" * 2048 + b"\n", b"x" * 2048, id="longest"),
    ],
)
def test_the_password_is_what_was_given(
    command: Command, path: str, given: bytes, stored: bytes
) -> None:
    assert command("ann@example.org", given=given) == NO_OUTPUT
    assert sasldb.load(path) == {ANN: stored}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        pytest.param(b"x" * 3000, b"x" * 2048, id="too-long"),
        pytest.param(b"one\0two", b"one", id="nul"),
    ],
)
def test_a_password_that_is_cut_is_stored_and_told(
    command: Command, path: str, given: bytes, stored: bytes
) -> None:
    status, _, complaint = command("ann@example.org", given=given)

    assert status == 0
    assert f"was cut after {len(stored)} bytes" in complaint
    assert sasldb.load(path) == {ANN: stored}


@pytest.mark.parametrize("given", [b"", b"\n", b"\0rest"])
def test_an_empty_password_is_refused(command: Command, path: str, given: bytes) -> None:
    complaint = "pysaslpasswd: invalid parameter supplied: the password is empty\n"

    assert command("ann@example.org", given=given) == (7, "", complaint)
    assert not Path(path).exists()


def test_a_slow_writer_s_password_is_not_stored_by_half(path: str) -> None:
    code = "from pysaslauthd.cli.saslpasswd import main; main()"
    words = [sys.executable, "-c", code, "-f", path, "ann@example.org"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, bufsize=0, cwd=ROOT) as process:
        assert process.stdin is not None
        process.stdin.write(b"sec")
        process.stdin.write(b"ret\n")

    assert sasldb.load(path) == {ANN: b"secret"}


def test_an_unreadable_input_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], give: Callable[[bytes], None]
) -> None:
    give(b"")
    directory = os.open(tmp_path, os.O_RDONLY)
    os.dup2(directory, 0)
    os.close(directory)

    assert saslpasswd.main(["-f", str(tmp_path / "db"), "ann"]) == 1
    assert "cannot read the password: Is a directory" in capfd.readouterr().err


def test_n_stores_nothing_and_says_so(command: Command, path: str) -> None:
    status, _, complaint = command("-n", "ann@example.org")

    assert status == 0
    assert "nothing was stored" in complaint
    assert not Path(path).exists()


OTHERS: Records = {sasldb.key(b"bob", b"example.org"): b"x"}


def secrets(*properties: bytes) -> Records:
    return {sasldb.key(b"ann", b"example.org", prop): b"x" for prop in properties}


def test_a_new_password_ends_what_was_derived_from_the_old_one(command: Command, path: str) -> None:
    kept = secrets(b"cmusaslsecretOTP")
    Path(path).write_bytes(berkeley_hash.build(OTHERS | kept | secrets(*saslpasswd.STALE)))

    assert command("ann@example.org") == NO_OUTPUT

    assert sasldb.load(path) == OTHERS | kept | {ANN: b"secret"}


def test_d_deletes_every_secret_of_the_user(command: Command, path: str) -> None:
    Path(path).write_bytes(berkeley_hash.build(OTHERS | secrets(*saslpasswd.OF_A_USER)))

    assert command("-d", "ann@example.org") == NO_OUTPUT

    assert sasldb.load(path) == OTHERS


def test_d_of_nobody_is_silent_and_makes_no_file(command: Command, path: str) -> None:
    assert command("-d", "ann@example.org") == NO_OUTPUT
    assert not Path(path).exists()


def test_a_file_that_cannot_be_used_is_told(command: Command, path: str) -> None:
    Path(path).write_bytes(b"something else")

    status, output, complaint = command("ann@example.org")

    assert (status, output) == (1, "")
    assert complaint.startswith(f"pysaslpasswd: {path}: it is not a sasldb database")


def test_a_rewrite_in_place_is_told(command: Command, path: str, tmp_path: Path) -> None:
    assert command("ann@example.org") == NO_OUTPUT
    (tmp_path / "link").hardlink_to(path)

    status, _, complaint = command("bob@example.org")

    assert status == 0
    assert complaint.startswith(f"pysaslpasswd: {path}: it has several hard links")


def test_the_format_of_a_new_file_is_chosen(command: Command, path: str) -> None:
    assert command("--format", "lmdb", "ann@example.org") == NO_OUTPUT
    assert sasldb.load(path) == {ANN: b"secret"}
    assert Path(path + "-lock").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("sasldb_path: {}", "saslpasswd.conf", id="plain"),
        pytest.param(
            "# a comment\nauxprop_plugin: x\n SASLDB_PATH :  {} \n", "saslpasswd.conf", id="spaces"
        ),
        pytest.param("sasldb_path: {}", "other.conf", id="application"),
    ],
)
def test_without_f_the_configured_file_is_used(
    command: Command,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    name: str,
) -> None:
    (tmp_path / name).write_text(text.format(path))
    monkeypatch.setenv("SASL_CONF_PATH", f"/nowhere:{tmp_path}")

    assert command("-f", "", "-a", name.removesuffix(".conf"), "ann@example.org") == NO_OUTPUT

    assert sasldb.load(path) == {ANN: b"secret"}


def test_the_default_file_is_that_of_cyrus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saslpasswd.conf").write_text("log_level: 7\n")
    monkeypatch.setenv("SASL_CONF_PATH", str(tmp_path))

    assert saslpasswd.database_path(saslpasswd.Wish("pysaslpasswd")) == "/etc/sasldb2"


def test_without_sasl_conf_path_the_usual_directories_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SASL_CONF_PATH", raising=False)

    assert saslpasswd.database_path(saslpasswd.Wish("p", application="no-such")) == "/etc/sasldb2"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="no-user"),
        pytest.param(["a", "b"], id="two-users"),
        pytest.param(["-c", "-d", "ann"], id="create-and-delete"),
        pytest.param(["-h"], id="help"),
        pytest.param(["-?"], id="question-mark"),
        pytest.param(["-h", "ann"], id="help-and-user"),
        pytest.param(["--import", "-", "ann"], id="import-and-user"),
        pytest.param(["--import", "-", "-d"], id="import-and-delete"),
    ],
)
def test_a_wrong_command_line_gets_the_usage(command: Command, words: list[str]) -> None:
    status, output, complaint = command(*words)

    assert (status, output) == (1, "")
    assert complaint.startswith("pysaslpasswd: usage: pysaslpasswd [-v] [-c [-p] [-n]] [-d]")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(["-x", "ann"], "invalid option -- 'x'", id="unknown"),
        pytest.param(["-o", "ann"], "invalid option -- 'o'", id="no-such-flag"),
        pytest.param(["ann", "-u"], "option requires an argument -- 'u'", id="no-argument"),
    ],
)
def test_an_unknown_option_is_named_before_the_usage(
    command: Command, words: list[str], complaint: str
) -> None:
    status, _, told = command(*words)

    assert status == 1
    assert told.startswith(f"pysaslpasswd: {complaint}\npysaslpasswd: usage: ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(["-a", "a/b", "-v"], "appname must not contain /", id="appname"),
        pytest.param(
            ["--format", "x"], "no such format; there are berkeley, lmdb, gdbm", id="format"
        ),
    ],
)
def test_a_wrong_value_is_told_at_once(command: Command, words: list[str], complaint: str) -> None:
    assert command(*words) == (1, "", f"pysaslpasswd: {complaint}\n")


@pytest.mark.parametrize("words", [["-v"], ["-h", "-v"], ["-v", "-a", "a/b"], ["-c", "-d", "-v"]])
def test_v_prints_the_version_to_stderr_whatever_else_is_given(
    command: Command, words: list[str]
) -> None:
    assert command(*words) == (0, "", VERSION)


def test_long_options_print_to_stdout(command: Command) -> None:
    assert command("--version") == (0, VERSION, "")
    status, output, complaint = command("--help")
    assert (status, complaint) == (0, "")
    assert "--import FILE" in output


def test_many_users_are_imported(command: Command, path: str, tmp_path: Path) -> None:
    Path(path).write_bytes(berkeley_hash.build(OTHERS | secrets(*saslpasswd.STALE)))
    source = tmp_path / "users"
    source.write_bytes(b"ann@example.org\tsecret\nb@c@d\twith\ttab")

    assert command("--import", str(source)) == (0, f"2 users imported into {path}\n", "")

    assert sasldb.load(path) == OTHERS | {ANN: b"secret", sasldb.key(b"b", b"c@d"): b"with\ttab"}


def test_users_are_imported_from_standard_input(
    command: Command, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ann\tsecret\n")))

    assert command("--import", "-", "-u", "example.org")[0] == 0
    assert sasldb.load(path) == {ANN: b"secret"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b"", "no TAB", id="empty-line"),
        pytest.param(b"bob@example.org secret", "no TAB", id="no-tab"),
        pytest.param(b"\tsecret", "empty or not UTF-8", id="no-user"),
        pytest.param(b"@example.org\tsecret", "empty or not UTF-8", id="only-realm"),
        pytest.param(b"\xff@example.org\tsecret", "not UTF-8", id="not-utf8"),
        pytest.param(b"bo\x07b@example.org\tsecret", "not UTF-8", id="control-character"),
        pytest.param(b"bob\tsecret", "no @realm", id="no-realm"),
        pytest.param(b"bob@example.org\t", "password is empty", id="no-password"),
        pytest.param(b"bob@example.org\tsec\0ret", "contains a NUL", id="nul"),
        pytest.param(b"bob@example.org\tsecret\r", "ends in CR LF", id="dos"),
        pytest.param(b"bob@example.org\t" + b"secret" * 400, "longer than 2048", id="long"),
        pytest.param(b"ann@example.org\tsecret", "on line 1 already", id="twice"),
    ],
)
def test_a_bad_line_refuses_the_whole_file_and_is_named(
    command: Command, path: str, tmp_path: Path, line: bytes, words: str
) -> None:
    source = tmp_path / "users"
    source.write_bytes(b"ann@example.org\tgood\n" + line + b"\neve@example.org\tgood\n")

    status, output, complaint = command("--import", str(source))

    assert (status, output) == (1, "")
    assert complaint.startswith(f"pysaslpasswd: {source}: line 2: ")
    assert words in complaint
    assert "secret" not in complaint
    assert not Path(path).exists()


def test_a_missing_source_is_told(command: Command) -> None:
    complaint = "pysaslpasswd: /nowhere/users: No such file or directory\n"

    assert command("--import", "/nowhere/users") == (1, "", complaint)
