"""What the benchmark says must be true: its clients, its verdicts, its tidiness."""

from __future__ import annotations

import json
import mmap
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench import database, growth, load, processes, report, system
from tests.bench.load import Load, Question
from tests.bench.measure import median_ratio
from tests.bench.report import Check, Goal, Row, Verdict
from tests.bench.servers import FLOOR, NotMeasuredError, Place, Running, Server, running
from tests.helpers.daemon import environment
from tests.helpers.processes import DEADLINE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_account_tools = pytest.mark.interop("useradd", "chpasswd", "userdel")


@pytest.fixture
def floor(tools: Path) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="mux-", dir="/tmp") as directory:
        place = Place(tools, Path(directory) / "none", Path(directory) / "run")
        with running(FLOOR, place) as server:
            yield server


def muxload(tools: Path, door: Path, *options: str) -> dict[str, float]:
    command = [str(tools / "muxload"), *options, str(door), "ann", "pw", "smtp", ""]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        pytest.param("OK", 100, 0, id="as-expected"),
        pytest.param("NO", 0, 100, id="not-as-expected"),
    ],
)
def test_the_load_counts_only_right_answers(
    tools: Path, floor: Running, expected: str, right: int, wrong: int
) -> None:
    said = muxload(tools, floor.socket, "-n", "100", "-t", "3", "-x", expected)

    assert (said["right"], said["wrong"], said["errors"]) == (right, wrong, 0)


def test_the_load_gives_up_on_a_server_that_never_answers(tools: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mux"))
        mute.listen(64)

        said = muxload(tools, tmp_path / "mux", "-w", "0.01", "-t", "2")

    assert (said["right"], said["errors"]) == (0, 20)


def test_a_load_goes_on_until_its_block_ends(tools: Path, floor: Running) -> None:
    with load.going_on(Load(2, 60, 10), floor, tools) as meanwhile:
        pass

    assert meanwhile.rate > 0


@pytest.mark.parametrize(
    ("going_on", "problem"),
    [
        pytest.param(Load(1, 60, 1, requests=1), "floor ended too soon", id="ended"),
        pytest.param(
            Load(1, 60, 1, requests=1, question=Question("ann", "pw", answer="NO")),
            "answers wrong or missing",
            id="wrong",
        ),
    ],
)
def test_a_load_that_was_not_borne_all_the_time_measures_nothing(
    tools: Path, floor: Running, going_on: Load, problem: str
) -> None:
    with (
        pytest.raises(NotMeasuredError, match=problem),
        load.going_on(going_on, floor, tools) as meanwhile,
    ):
        meanwhile.process.wait(DEADLINE)


def test_silent_connections_are_held_until_the_block_ends(tools: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "mux"))
        door.listen(64)

        with load.silent_crowd(50, tmp_path / "mux", tools) as crowd:
            pass

    assert crowd.held == 50


def test_a_server_has_ended_when_its_block_has(tools: Path, tmp_path: Path) -> None:
    with running(FLOOR, Place(tools, tmp_path, tmp_path / "run")) as server:
        process = processes.look_at(server.pid)

    assert process is not None
    assert not processes.is_alive(process)


def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = Server("broken", "broken", lambda _: ["sh", "-c", "echo no such flag; exit 3"])

    with (
        pytest.raises(NotMeasuredError, match="broken ended with 3: no such flag"),
        running(broken, Place(tmp_path, tmp_path, tmp_path / "run")),
    ):
        pass


def test_a_server_is_started_in_its_environment(tmp_path: Path) -> None:
    told = Server("told", "told", lambda _: ["sh", "-c", "echo $WORD; exit 3"])

    with (
        pytest.raises(NotMeasuredError, match="told ended with 3: by the way"),
        running(
            replace(told, environment={"WORD": "by the way"}),
            Place(tmp_path, tmp_path, tmp_path / "run"),
        ),
    ):
        pass


def test_the_tree_of_a_process_holds_its_grandchildren() -> None:
    shell = ["sh", "-c", "(cat; :); :"]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as root:
        assert root.stdin is not None
        assert root.stdout is not None
        root.stdin.write(b"are you there?\n")
        root.stdout.read(1)

        first, child, grandchild = processes.tree(root.pid)

    assert (first.pid, child.parent, grandchild.parent) == (root.pid, root.pid, child.pid)


def test_memory_that_is_written_to_counts() -> None:
    size = 16_384 * mmap.PAGESIZE  # far more than the tests' own memory comes and goes by
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        before = processes.anonymous_bytes(os.getpid())

        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1

        assert processes.anonymous_bytes(os.getpid()) - before >= size * 0.9


# A supervisor with a front and a worker, laid out as ours.
FAMILY = """
import os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen()
if os.fork() == 0:
    os.setuid(65534)
elif os.fork() == 0:
    door.close()
os.write(1, b"%d\\n" % os.getpid())
os.read(0, 1)
"""


@pytest.mark.usefixtures("root")
def test_the_front_is_who_listens_and_is_not_root(tmp_path: Path) -> None:
    door = tmp_path / "mux"
    argv = [sys.executable, "-c", FAMILY, str(door)]
    family = Server("family", "family", lambda _: argv)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(3)}

        front, workers = growth.roles(Running(family, process.pid, door, 0, 0, tmp_path / "log"))

        assert processes.user_id(front) == 65534
        assert {process.pid, front, *workers} == pids


PREFIX = f"zb{os.getpid()}x"


def accounts_there() -> list[str]:
    return [entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith(PREFIX)]


@pytest.mark.usefixtures("root")
@needs_account_tools
def test_accounts_have_the_hash_that_debian_gives_them() -> None:
    with system.accounts(PREFIX, 2, "pw"):
        shadow = Path("/etc/shadow").read_text()

    lines = [line.split(":") for line in shadow.splitlines() if line.startswith(PREFIX)]
    assert [(line[0], line[1][:7]) for line in lines] == [
        (f"{PREFIX}0", "$y$j9T$"),
        (f"{PREFIX}1", "$y$j9T$"),
    ]


@pytest.mark.usefixtures("root")
@needs_account_tools
def test_an_account_that_exists_is_refused_and_stays() -> None:
    with system.accounts(PREFIX, 1, "pw"):
        with pytest.raises(NotMeasuredError, match=f"accounts such as {PREFIX}0"):
            system.accounts(PREFIX, 2, "pw").__enter__()

        assert accounts_there() == [f"{PREFIX}0"]


INTERRUPTED = """
import signal, sys
from tests.bench import bench, system
for ending in system.ENDINGS:
    signal.signal(ending, bench._leave)
with system.accounts(sys.argv[1], 40, "pw"):
    signal.pause()
"""


@pytest.mark.usefixtures("root")
@needs_account_tools
def test_no_account_is_left_by_a_run_that_is_interrupted_while_it_makes_them() -> None:
    argv = [sys.executable, "-c", INTERRUPTED, PREFIX]
    with subprocess.Popen(argv, env=environment(), start_new_session=True) as run:
        wait_for(lambda: bool(accounts_there()), "the first account")

        os.killpg(run.pid, signal.SIGINT)

    assert (run.returncode, accounts_there()) == (128 + signal.SIGINT, [])


def test_a_pam_service_is_gone_after_an_interrupted_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted_service(tmp_path)

    assert list(tmp_path.iterdir()) == []


def _interrupted_service(services: Path) -> None:
    with system.pam_service("s", "pam_permit.so", services):
        assert (services / "s").exists()
        raise KeyboardInterrupt


def test_a_pam_service_that_exists_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("theirs")

    with pytest.raises(NotMeasuredError, match="another benchmark is running"):
        system.pam_service("s", "pam_permit.so", tmp_path).__enter__()

    assert (tmp_path / "s").read_text() == "theirs"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "sasldb2"
    path.write_text("theirs")
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other"
    path.write_text("ours")
    return path


def test_the_systems_database_is_the_same_file_after_an_interrupted_run(
    theirs: Path, other: Path
) -> None:
    before = theirs.stat().st_ino

    with pytest.raises(KeyboardInterrupt):
        _interrupted_run(theirs, other)

    assert (theirs.read_text(), theirs.stat().st_ino) == ("theirs", before)
    assert sorted(path.name for path in theirs.parent.iterdir()) == ["other", "sasldb2"]


def _interrupted_run(theirs: Path, other: Path) -> None:
    with database.swapped_for(theirs, other):
        assert theirs.read_text() == "ours"
        raise KeyboardInterrupt


def test_there_is_no_database_after_a_run_where_none_was(tmp_path: Path, other: Path) -> None:
    with database.swapped_for(tmp_path / "sasldb2", other):
        assert (tmp_path / "sasldb2").read_text() == "ours"

    assert list(tmp_path.iterdir()) == [other]


def test_a_run_refuses_to_start_over_what_a_killed_one_left(theirs: Path, other: Path) -> None:
    left = theirs.with_name(theirs.name + database.KEPT_AS)
    left.write_text("the original")

    with pytest.raises(NotMeasuredError, match="put the database back"):
        database.swapped_for(theirs, other).__enter__()

    assert (theirs.read_text(), left.read_text()) == ("theirs", "the original")


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        pytest.param(Goal(2.5, 2.0), 2.5, Verdict.OK, id="reached"),
        pytest.param(Goal(2.5, 2.0), 2.49, Verdict.LOSES, id="missed"),
        pytest.param(Goal(2.5, 2.0), 1.99, Verdict.NOT_DONE, id="missed-by-far"),
        pytest.param(Goal(35, is_ceiling=True), 34.9, Verdict.OK, id="below-the-ceiling"),
        pytest.param(Goal(35, is_ceiling=True), 35, Verdict.LOSES, id="at-the-ceiling"),
    ],
)
def test_a_goal_judges_a_value(goal: Goal, value: float, verdict: Verdict) -> None:
    assert goal.judge(value) is verdict


def test_a_row_is_as_bad_as_its_worst_check() -> None:
    checks = [Check("cyrus", 3.0, Goal(2.5)), Check("floor", 0.6, Goal(0.7, 0.65)), Check("x", 1)]

    row = Row("rate", {"ours": [1.0]}, checks=checks)

    assert (row.verdict, row.missed) == (Verdict.NOT_DONE, ["floor"])


def test_a_row_without_ours_is_not_measured() -> None:
    row = Row("rate", {"cyrus": [1.0]})

    assert row.verdict is Verdict.NOT_MEASURED


def test_a_neighbours_load_in_one_round_does_not_change_the_ratio() -> None:
    ours, theirs = [100.0, 50.0, 100.0], [40.0, 20.0, 40.0]

    assert median_ratio(ours, theirs) == 2.5


TITLES = {"ours": "ours: it", "cyrus": "cyrus: -n 5", "floor": "floor: C"}


@pytest.mark.parametrize(
    ("columns", "tables"),
    [
        pytest.param([["ours", "cyrus"], ["ours"]], [["ours", "cyrus"]], id="fewer"),
        pytest.param([["ours"], ["ours", "cyrus"]], [["ours", "cyrus"]], id="more"),
        pytest.param([["cyrus"], [], ["cyrus"]], [["cyrus"]], id="nothing-measured"),
        pytest.param(
            [["ours", "cyrus"], ["ours", "floor"]],
            [["ours", "cyrus"], ["ours", "floor"]],
            id="others",
        ),
    ],
)
def test_comparisons_share_a_table_if_they_share_its_columns(
    columns: list[list[str]], tables: list[list[str]]
) -> None:
    groups = [[Row("rate", {name: [1.0] for name in names})] for names in columns]

    said = report.tables(groups, TITLES).split("\n\n")

    heads = [[name for name in TITLES if TITLES[name] in one.splitlines()[0]] for one in said]
    assert heads == tables
    assert sum(len(one.splitlines()) - 2 for one in said) == len(groups)
