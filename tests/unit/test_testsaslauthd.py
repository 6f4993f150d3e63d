import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pysaslauthd import __version__
from pysaslauthd.cli.testsaslauthd import main
from pysaslauthd.wire.mux import encode_reply
from tests.helpers.daemon import environment
from tests.helpers.scripted_server import Odd, Reply, scripted_server

OK = b"\0\2OK"
NO = b"\0\2NO"

# More than the buffer of a socket: the write goes on until the server reads.
LONG = "x" * 60000
MORE_THAN_FITS = ["-u", LONG, "-p", LONG, "-s", LONG, "-r", LONG, "-a", LONG]

USAGE = """\
pytestsaslauthd: usage: pytestsaslauthd -u username -p password
              [-r realm] [-s servicename] [-a clientaddr]
              [-f socket path] [-R repeatnum]
"""


@pytest.fixture(autouse=True)
def _called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytestsaslauthd"])


@pytest.fixture
def mux(tmp_path: Path) -> Path:
    return tmp_path / "mux"


class TestAnswers:
    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(OK, id="bare"),
            pytest.param(b"\0\5OKxyz", id="with-a-tail"),
            pytest.param(encode_reply("OK remote authentication successful"), id="with-a-text"),
            pytest.param(b"\x13\x8aOK" + b"x" * 5000, id="longer-than-the-buffer"),
        ],
    )
    def test_a_reply_that_starts_with_ok_is_success(
        self, mux: Path, reply: bytes, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, reply):
            status = main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert (status, *capfd.readouterr()) == (0, '0: OK "Success."\n', "")

    def test_a_bare_no_is_a_failure(self, mux: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with scripted_server(mux, NO):
            status = main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert (status, *capfd.readouterr()) == (255, '0: NO "authentication failed"\n', "")

    def test_the_reason_of_a_refusal_follows_on_stderr(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, encode_reply("NO NULL password received")):
            main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        out, err = capfd.readouterr()
        assert out == '0: NO "authentication failed"\n'
        assert err == "pytestsaslauthd: refused: NULL password received\n"

    def test_a_reason_cannot_play_with_the_terminal(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, b"\0\x09NO \x1b[2J\xff\n"):
            main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert capfd.readouterr().err == "pytestsaslauthd: refused: \\x1b[2J\\xff\\n\n"

    def test_a_reply_of_another_kind_is_a_failure_that_is_named(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, b"\0\2ok"):
            status = main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert (status, *capfd.readouterr()) == (
            255,
            '0: NO "authentication failed"\n',
            "pytestsaslauthd: the reply is neither OK nor NO: ok\n",
        )


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("reply", "said", "meaning"),
        [
            pytest.param(
                b"\0\0", "bad response from saslauthd", "could not find out", id="zero-count"
            ),
            pytest.param(
                b"\0\1O", "bad response from saslauthd", "could not find out", id="one-byte"
            ),
            pytest.param(b"\0", "size read failed", "hung up without a reply", id="half-a-count"),
            pytest.param(b"\0\5OK", "read failed", "hung up within its reply", id="cut-short"),
            pytest.param(b"", "size read failed", "hung up without a reply", id="no-reply"),
        ],
    )
    def test_what_is_no_verdict_is_called_neither_yes_nor_no(
        self,
        mux: Path,
        reply: Reply,
        said: str,
        meaning: str,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with scripted_server(mux, reply):
            status = main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        out, err = capfd.readouterr()
        assert (status, out) == (255, "0: ")
        first, second = err.splitlines()
        assert first == said
        assert second.startswith("pytestsaslauthd: neither yes nor no: ")
        assert meaning in second

    def test_a_server_that_ends_before_it_reads_is_a_failed_write(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, Odd.HANG_UP):
            status = main([*MORE_THAN_FITS, "-f", str(mux)])

        out, err = capfd.readouterr()
        assert (status, out) == (255, "0: ")
        assert err.startswith("write failed\n")

    def test_a_server_that_says_nothing_is_given_up(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, Odd.SILENCE):
            status = main(["-u", "ann", "-p", "pw", "-f", str(mux), "--timeout", "0.05"])

        assert (status, *capfd.readouterr()) == (
            255,
            "0: ",
            "no answer within 0.05 seconds\n"
            "pytestsaslauthd: neither yes nor no: the server accepts but does not reply\n",
        )

    def test_a_server_that_accepts_nobody_is_given_up(
        self, full: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = main(["-u", "ann", "-p", "pw", "-f", str(full), "--timeout=0.05"])

        assert (status, *capfd.readouterr()) == (
            255,
            "0: ",
            "no answer within 0.05 seconds\n"
            "pytestsaslauthd: neither yes nor no: the server does not accept connections\n",
        )

    def test_a_server_that_does_not_read_is_given_up(
        self, unread: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = main([*MORE_THAN_FITS, "-f", str(unread), "--timeout=0.05"])

        assert status == 255
        assert capfd.readouterr().err.startswith("no answer within 0.05 seconds\n")

    @pytest.fixture
    def unread(self, mux: Path) -> Iterator[Path]:
        """Return a socket whose connections stay in the backlog."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(mux))
            listener.listen()
            yield mux

    @pytest.fixture
    def full(self, mux: Path) -> Iterator[Path]:
        """Return a socket whose backlog is full."""
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(mux))
            listener.listen(0)
            with suppress(BlockingIOError):
                while True:
                    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                    waiting.settimeout(0)
                    waiting.connect(str(mux))
            yield mux


class TestConnecting:
    def test_a_missing_socket_is_named(self, mux: Path, capfd: pytest.CaptureFixture[str]) -> None:
        status = main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert (status, *capfd.readouterr()) == (
            255,
            "0: ",
            "connect() : No such file or directory\n"
            f"pytestsaslauthd: there is no {mux}: is the server running?\n",
        )

    def test_a_socket_without_a_listener_is_named(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux):
            pass

        main(["-u", "ann", "-p", "pw", "-f", str(mux)])

        assert capfd.readouterr().err == (
            "connect() : Connection refused\n"
            f"pytestsaslauthd: nobody listens at {mux}: is the server running?\n"
        )

    def test_the_run_directory_in_place_of_the_socket_is_explained(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        main(["-u", "ann", "-p", "pw", "-f", str(tmp_path)])

        assert capfd.readouterr().err == (
            "connect() : Connection refused\n"
            f"pytestsaslauthd: {tmp_path} is a directory; -f takes the socket in it\n"
        )

    def test_a_path_that_is_too_long_is_an_error_and_no_traceback(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = main(["-u", "ann", "-p", "pw", "-f", "/tmp/" + "x" * 200])

        assert status == 255
        assert capfd.readouterr().err.startswith("connect() : File name too long\n")

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become someone else")
    def test_a_directory_one_may_not_enter_is_explained(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        mux.parent.chmod(0o700)
        os.seteuid(65534)
        try:
            main(["-u", "ann", "-p", "pw", "-f", str(mux)])
        finally:
            os.seteuid(0)

        err = capfd.readouterr().err
        assert err.startswith("connect() : Permission denied\n")
        assert "who may enter its directory?" in err


class TestRequest:
    def test_four_fields_with_the_defaults_of_the_c_program(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "-p", "pw", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\2pw\0\4imap\0\0"]

    def test_a_fifth_field_is_sent_only_when_an_address_is_given(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "-p", "pw", "-a", "192.0.2.7;25", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\2pw\0\4imap\0\0\0\x0c192.0.2.7;25"]

    def test_an_empty_address_is_a_fifth_field_too(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "-p", "pw", "-a", "", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\2pw\0\4imap\0\0\0\0"]

    def test_service_and_realm_are_sent_as_given_and_the_user_is_not_split(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe@x", "-p", "pw", "-s", "smtp", "-r", "R", "-f", str(mux), "ignored"])

        assert server.requests == [b"\0\5joe@x\0\2pw\0\4smtp\0\1R"]

    def test_bytes_that_are_no_utf8_reach_the_server_as_they_are(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "-p", os.fsdecode(b"caf\xe9"), "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\4caf\xe9\0\4imap\0\0"]

    def test_empty_names_and_passwords_are_sent(self, mux: Path) -> None:
        with scripted_server(mux, NO) as server:
            main(["-u", "", "-p", "", "-f", str(mux)])

        assert server.requests == [b"\0\0\0\0\0\4imap\0\0"]

    def test_a_password_of_one_dash_is_a_password(self, mux: Path) -> None:
        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "-p", "-", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\1-\0\4imap\0\0"]

    def test_a_field_that_cannot_be_counted_is_a_usage_error(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = main(["-u", "joe", "-p", "x" * 65536, "-f", str(mux)])

        assert status == 1
        assert capfd.readouterr().err == (
            f"pytestsaslauthd: a field is longer than 65535 bytes\n{USAGE}"
        )


class TestPasswordFromStdin:
    @pytest.mark.parametrize(
        ("piped", "sent"),
        [
            pytest.param(b"pw\n", b"\0\2pw", id="line"),
            pytest.param(b"pw", b"\0\2pw", id="no-newline"),
            pytest.param(b"a b \r\n", b"\0\5a b \r", id="white-space-is-kept"),
            pytest.param(b"caf\xe9\nmore\n", b"\0\4caf\xe9", id="first-line-only"),
            pytest.param(b"\n", b"\0\0", id="empty-line"),
        ],
    )
    def test_one_line_is_read_as_bytes(
        self, mux: Path, piped: bytes, sent: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))

        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "--password-stdin", "-f", str(mux)])

        assert server.requests == [b"\0\3joe" + sent + b"\0\4imap\0\0"]

    def test_it_outdoes_a_password_on_the_command_line(
        self, mux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\n")))

        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "--password-stdin", "-p", "argued", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\5piped\0\4imap\0\0"]

    def test_an_input_that_is_over_at_once_is_no_password(
        self, mux: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))

        status = main(["-u", "joe", "--password-stdin", "-f", str(mux)])

        assert status == 1
        assert capfd.readouterr().err == (
            f"pytestsaslauthd: there is no password on standard input\n{USAGE}"
        )


class Terminal(io.StringIO):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


class TestPasswordFromTerminal:
    def test_a_person_is_asked_without_an_echo(
        self, mux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", lambda: "typed")

        with scripted_server(mux, OK) as server:
            main(["-u", "joe", "--password-stdin", "-f", str(mux)])

        assert server.requests == [b"\0\3joe\0\5typed\0\4imap\0\0"]

    @pytest.mark.parametrize(
        ("key", "code"), [(EOFError, 1), (KeyboardInterrupt, 130)], ids=["ctrl-d", "ctrl-c"]
    )
    def test_a_person_who_types_no_password_ends_the_program(
        self, mux: Path, key: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pressed() -> str:
            raise key

        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", pressed)

        assert main(["-u", "joe", "--password-stdin", "-f", str(mux)]) == code


class TestRepeating:
    def test_each_attempt_has_its_line_and_the_last_one_decides(
        self, mux: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, NO, NO, OK):
            status = main(["-u", "joe", "-p", "pw", "-R", "3", "-f", str(mux)])

        refused = 'NO "authentication failed"'
        assert (status, capfd.readouterr().out) == (
            0,
            f'0: {refused}\n1: {refused}\n2: OK "Success."\n',
        )

    @pytest.mark.parametrize(
        ("number", "times"),
        [("0", 1), ("x", 1), ("", 1), ("2x", 2), (" +2", 2), ("-1", 0)],
        ids=["zero", "word", "empty", "trailing-letters", "blank-and-sign", "negative"],
    )
    def test_the_number_is_read_as_atoi_does(
        self, mux: Path, number: str, times: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with scripted_server(mux, OK, OK):
            status = main(["-u", "joe", "-p", "pw", "-R", number, "-f", str(mux)])

        assert (status, capfd.readouterr().out.count("Success")) == (0, times)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("argv", "complaint"),
        [
            pytest.param([], "", id="nothing"),
            pytest.param(["-u", "joe"], "", id="no-password"),
            pytest.param(["-p", "pw"], "", id="no-user"),
            pytest.param(["-x"], "pytestsaslauthd: invalid option -- 'x'\n", id="unknown"),
            pytest.param(
                ["-u"], "pytestsaslauthd: option requires an argument -- 'u'\n", id="no-argument"
            ),
            pytest.param(
                ["-u", "joe", "-p", "pw", "--timeout", "soon"],
                "pytestsaslauthd: --timeout wants a number of seconds above zero, not 'soon'\n",
                id="timeout-word",
            ),
            pytest.param(
                ["-u", "joe", "-p", "pw", "--timeout", "0"],
                "pytestsaslauthd: --timeout wants a number of seconds above zero, not '0'\n",
                id="timeout-zero",
            ),
            pytest.param(
                ["-u", "joe", "-p", "pw", "--timeout", "inf"],
                "pytestsaslauthd: --timeout wants a number of seconds above zero, not 'inf'\n",
                id="timeout-endless",
            ),
        ],
    )
    def test_a_wrong_line_gets_the_usage_on_stderr_and_exit_code_1(
        self, argv: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = main(argv)

        assert (status, *capfd.readouterr()) == (1, "", complaint + USAGE)

    def test_the_version_goes_to_stdout(self, capfd: pytest.CaptureFixture[str]) -> None:
        status = main(["--version"])

        assert (status, *capfd.readouterr()) == (0, f"pytestsaslauthd {__version__}\n", "")

    def test_help_goes_to_stdout(self, capfd: pytest.CaptureFixture[str]) -> None:
        status = main(["--help"])

        out, err = capfd.readouterr()
        assert (status, err) == (0, "")
        assert out.startswith(USAGE)

    def test_help_warns_that_others_can_read_a_password_argument(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        main(["--help"])

        assert "Every local user can read it in the process" in capfd.readouterr().out

    @pytest.mark.parametrize(
        "option",
        ["-u", "-p", "--password-stdin", "-r", "-s", "-a", "-f", "-R", "--timeout"],
    )
    def test_every_option_is_in_the_help_and_in_the_manual_page(
        self, option: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        page = Path(__file__).parents[2] / "docs" / "man" / "pytestsaslauthd.8"

        main(["--help"])

        assert f"\n  {option} " in capfd.readouterr().out
        assert option.replace("-", "\\-") in page.read_text()


@pytest.mark.parametrize("sink", ["closed", "full"])
def test_an_answer_that_nobody_can_read_is_no_yes(sink: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        done = subprocess.run(
            [
                *(sys.executable, "-c"),
                "from pysaslauthd.cli.testsaslauthd import main; exit(main())",
                *("-u", "joe", "-p", "pw", "-f", "/nonexistent/mux"),
            ],
            stdout=writer if sink == "closed" else full,
            stderr=subprocess.PIPE,
            check=False,
            env=environment(),
        )
    os.close(writer)

    assert done.returncode == 255
    assert b"Traceback" not in done.stderr
