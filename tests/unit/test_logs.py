import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd import logs


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("test")
    found.setLevel(logging.DEBUG)
    yield found
    for handler in found.handlers[:]:
        found.removeHandler(handler)
        handler.close()


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "log"))
        end.settimeout(5)
        yield end


def test_a_line_has_the_form_of_debians_c_daemon(
    logger: logging.Logger, syslog: socket.socket, tmp_path: Path
) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "log")))

    logger.info("auth failure: [user=%s]", "joe")

    priority, rest = syslog.recv(1000).decode().split(">")
    assert priority == "<38"
    assert rest[15:] == f" saslauthd[{os.getpid()}]: {' ' * 16}: auth failure: [user=joe]"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 39), (logging.INFO, 38), (logging.WARNING, 36), (logging.ERROR, 35)],
)
def test_a_level_has_the_c_daemons_priority(
    logger: logging.Logger, syslog: socket.socket, tmp_path: Path, level: int, priority: int
) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "log")))

    logger.log(level, "text")

    assert syslog.recv(1000).startswith(f"<{priority}>".encode())


def test_a_line_of_a_mechanism_has_no_column(syslog: socket.socket, tmp_path: Path) -> None:
    handler = logs.Syslog(str(tmp_path / "log"))
    line = "DEBUG: auth_pam: text"

    handler.emit(logging.makeLogRecord({"name": logs.MECHANISMS[0], "levelno": 10, "msg": line}))

    handler.close()
    assert syslog.recv(1000).decode().endswith(f"]: {line}")


def test_a_connection_that_is_let_go_of_is_made_again(
    syslog: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logs.Syslog(str(tmp_path / "log"))
    monkeypatch.setattr(logging.getLogger(logs.LOGGERS[0]), "handlers", [handler])
    logging.getLogger(logs.LOGGERS[0]).error("one")

    logs.reconnect()
    logging.getLogger(logs.LOGGERS[0]).error("two")

    handler.close()
    assert [syslog.recv(1000)[-3:] for _ in range(2)] == [b"one", b"two"]


def test_a_traceback_is_one_line(
    logger: logging.Logger, syslog: socket.socket, tmp_path: Path
) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "log")))

    try:
        raise ValueError("oops")
    except ValueError:
        logger.exception("a fault")

    line = syslog.recv(10000)
    assert b"\n" not in line
    assert b"a fault | Traceback" in line
    assert line.endswith(b"ValueError: oops")


def test_an_absent_syslog_is_no_fault(logger: logging.Logger, tmp_path: Path) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "absent")))

    logger.error("lost")


def test_a_syslog_that_comes_back_gets_the_next_line(
    logger: logging.Logger, tmp_path: Path
) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "log")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(tmp_path / "log"))
        logger.error("one")
    (tmp_path / "log").unlink()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(tmp_path / "log"))
        second.settimeout(5)
        logger.error("two")

        assert second.recv(1000).endswith(b": two")


def test_a_syslog_that_does_not_read_holds_nobody(
    logger: logging.Logger, syslog: socket.socket, tmp_path: Path
) -> None:
    logger.addHandler(logs.Syslog(str(tmp_path / "log")))

    for number in range(2000):
        logger.error("line %d", number)

    assert syslog.recv(1000).endswith(b": line 0")


def test_a_syslog_that_is_a_stream_gets_lines_that_end(
    logger: logging.Logger, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "log"))
        listener.listen()
        listener.settimeout(5)
        logger.addHandler(logs.Syslog(str(tmp_path / "log")))
        logger.error("text")

        with listener.accept()[0] as end:
            assert end.recv(1000).endswith(b": text\0")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_terminal_gets_the_c_daemons_form(logger: logging.Logger, pipe: tuple[int, int]) -> None:
    logger.addHandler(logs.Terminal(pipe[1]))

    logger.info("listening")

    assert os.read(pipe[0], 1000).decode() == f"saslauthd[{os.getpid()}] :listening\n"


def test_a_terminal_that_nobody_reads_holds_nobody(
    logger: logging.Logger, pipe: tuple[int, int]
) -> None:
    logger.addHandler(logs.Terminal(pipe[1]))

    for number in range(3000):
        logger.error("line %d of many that do not fit into a pipe", number)

    assert b":line 0 of many" in os.read(pipe[0], 200)


@pytest.fixture
def package_log() -> Iterator[logging.Logger]:
    """The package's logger; what a test does to it is undone."""
    loggers = [logging.getLogger(name) for name in logs.LOGGERS]
    before = [(found.handlers[:], found.level, found.propagate) for found in loggers]
    yield loggers[0]
    for found, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in set(found.handlers) - set(handlers):
            handler.close()
        found.handlers[:], found.level, found.propagate = handlers, level, propagate


def test_while_attached_lines_go_to_stderr_too(
    package_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.set_up()

    package_log.info("listening")
    package_log.debug("unsaid")

    assert capfd.readouterr().err == f"saslauthd[{os.getpid()}] :listening\n"


def test_faults_of_the_event_loop_are_told_too(
    package_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.set_up()

    logging.getLogger("asyncio").error("a task failed")

    assert capfd.readouterr().err == f"saslauthd[{os.getpid()}] :a task failed\n"


def test_verbose_is_a_switch(
    package_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.set_up()

    logs.set_verbose(verbose=True)
    package_log.debug("said")
    logs.set_verbose(verbose=False)
    package_log.debug("unsaid")

    assert capfd.readouterr().err == f"saslauthd[{os.getpid()}] :said\n"


def test_detached_nothing_goes_to_stderr(
    package_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.detach(logs.set_up())

    package_log.error("unsaid")

    assert capfd.readouterr().err == ""


def test_under_the_journal_each_line_is_sent_once(
    package_log: logging.Logger,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    syslog: socket.socket,
    tmp_path: Path,
) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", str(tmp_path / "log"))
    logs.set_up()

    package_log.info("once")

    assert capfd.readouterr().err == ""
    assert syslog.recv(1000).endswith(b": once")
