"""The daemon with kerberos5 and real KDCs: its workers, outages, start and reload; root only."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from pysaslauthd.privileges import CAP_DAC_READ_SEARCH
from tests.helpers import instance
from tests.helpers.accounts import require_root
from tests.helpers.kdc import PASSWORD, SERVER, Kdc, false_kdc, kdc, needs_kdc
from tests.helpers.processes import short_directory, wait_for
from tests.helpers.worker_daemon import KERBEROS5, OUTAGE, WorkerDaemon, worker_daemon

pytestmark = needs_kdc

DEADLINE = 3.0  # seconds, of the daemon: time for a worker to start, too
NO_TICKET = b"NO krb5_get_init_creds_password failed"
PASSES = 15
READING = f"CapEff:\t{1 << CAP_DAC_READ_SEARCH:016x}"


class Place:
    """A KDC, the keytab by which it is known, and the krb5.conf and file of daemons."""

    def __init__(self, directory: Path, true_kdc: Kdc) -> None:
        self.kdc = true_kdc
        self.keytab = true_kdc.keytab("keytab")
        self.keytab.chmod(0o600)
        self.krb5_conf = directory / "krb5.conf"
        self.option = directory / "saslauthd.conf"
        self.within = ["env", f"KRB5_CONFIG={self.krb5_conf}"]

    @contextmanager
    def daemon(self, *flags: str) -> Iterator[WorkerDaemon]:
        """Run one by the file, as it is in the beginning."""
        self.option.write_text(f"krb5_keytab: {self.keytab}\nkrb5_servername: {SERVER}\n")
        flags = ("-O", str(self.option), *flags)
        settings = f"deadline = {DEADLINE}\n"
        with worker_daemon("kerberos5", settings, *flags, within=self.within) as made:
            yield made


@pytest.fixture(scope="module")
def running(lacking: Callable[[str], NoReturn]) -> Iterator[Place]:
    require_root(lacking)
    with short_directory("sd-") as directory, kdc(directory / "k") as true_kdc:
        yield Place(directory, true_kdc)


@pytest.fixture
def place(running: Place) -> Place:
    """The place, where nothing is amiss."""
    shutil.copy(running.kdc.config, running.krb5_conf)
    return running


@pytest.fixture(scope="module")
def daemon(running: Place) -> Iterator[WorkerDaemon]:
    shutil.copy(running.kdc.config, running.krb5_conf)
    with running.daemon() as made:
        yield made


def ask(daemon: WorkerDaemon, user: str = "joe", password: str = PASSWORD) -> bytes:
    return daemon.ask("imap", user, password)


@pytest.mark.usefixtures("place")
def test_it_answers_by_a_keytab_that_only_root_may_read(daemon: WorkerDaemon) -> None:
    assert ask(daemon) == b"OK"
    assert ask(daemon, password="wrong") == NO_TICKET
    assert ask(daemon, "nobody-here") == NO_TICKET


@pytest.mark.usefixtures("place")
def test_its_workers_may_read_and_nothing_else(daemon: WorkerDaemon) -> None:
    assert READING in daemon.status(KERBEROS5)


@pytest.mark.usefixtures("place")
def test_it_logs_as_the_c_daemon_does(daemon: WorkerDaemon) -> None:
    ask(daemon, "ann", "hunter2")

    said = daemon.lines()
    assert "auth_krb5: krb5_get_init_creds_password: Preauthentication failed (-1765328360)" in said
    assert (
        "auth failure: [user=ann] [service=imap] [realm=] [mech=kerberos5]"
        " [reason=krb5_get_init_creds_password failed]" in said
    )
    assert "hunter2" not in "".join(said)


def test_a_kdc_that_does_not_run_is_an_outage_until_it_does(
    place: Place, daemon: WorkerDaemon
) -> None:
    with place.kdc.stopped():
        meanwhile = ask(daemon)

    assert meanwhile == OUTAGE
    assert ask(daemon) == b"OK"


def test_a_kdc_that_is_silent_is_an_outage_at_the_deadline_until_it_speaks(
    place: Place, daemon: WorkerDaemon
) -> None:
    began = time.monotonic()

    with place.kdc.silent():
        asked = [daemon.asking("imap") for _ in range(4)]
        meanwhile = {one.result() for one in asked}
    took = time.monotonic() - began

    assert meanwhile == {OUTAGE}
    assert DEADLINE <= took < 2 * DEADLINE
    assert ask(daemon) == b"OK"


def test_a_false_kdc_is_an_outage_that_is_told(
    place: Place, daemon: WorkerDaemon, tmp_path: Path
) -> None:
    with false_kdc(tmp_path / "k") as false:
        false.keytab("of-the-same-version")
        shutil.copy(false.config, place.krb5_conf)

        meanwhile = ask(daemon, "open")

    assert meanwhile == OUTAGE
    (told,) = [line for line in daemon.lines() if line.startswith("auth unavailable: [user=open]")]
    assert told.endswith("or this KDC is a false one]")


@pytest.mark.usefixtures("place")
def test_a_reload_follows_the_file(daemon: WorkerDaemon, place: Place) -> None:
    before = ask(daemon, "ann", "пароль")

    with place.option.open("a") as file:
        file.write("krb5_imap_instance: mail\n")
    daemon.reload()

    assert before == b"OK"
    assert ask(daemon, "ann", "пароль") == NO_TICKET
    assert ask(daemon) == b"OK"


def test_the_realm_of_a_request_is_joined_to_the_login_where_that_is_wanted(place: Place) -> None:
    with place.daemon("-r") as daemon:
        reply = instance.ask(daemon.mux, "eve", PASSWORD, "OTHER.EXAMPLE")
        said = daemon.lines()

    assert reply == b"OK"
    assert (
        "auth success: [user=eve@OTHER.EXAMPLE] [service=imap] [realm=OTHER.EXAMPLE]"
        " [mech=kerberos5]" in said
    )


def test_an_unknown_user_is_answered_as_late_as_a_wrong_password(place: Place) -> None:
    with place.daemon("-n", "1") as daemon:
        # In turn, so that what else is done on the machine delays both alike.
        took = [
            (
                seconds(lambda: ask(daemon, password="wrong")),
                seconds(lambda: ask(daemon, "nobody-here")),
            )
            for _ in range(PASSES)
        ]

    # The quickest of each, which nothing has delayed.
    wrong, unknown = map(min, zip(*took, strict=True))
    assert unknown > wrong / 2


def seconds(asking: Callable[[], bytes]) -> float:
    """Return how long an answer takes."""
    began = time.monotonic()
    asking()
    return time.monotonic() - began


class TestStart:
    def refusal(self, place: Place, file: str, *flags: str) -> Sequence[str]:
        """Return what is said when a start is refused."""
        place.option.write_text(file)
        with short_directory("sd-") as directory:
            argv = [*instance.COMMAND, "-a", "kerberos5", "-f", "-m", str(directory), *flags]
            done = instance.run([*place.within, *argv, "-O", str(place.option)])
        assert done.returncode == 1
        return [line.partition("] :")[2] for line in done.stderr.splitlines()]

    def test_no_keytab_is_refused_with_what_to_do(self, place: Place) -> None:
        problem, cure = self.refusal(place, "krb5_keytab: /nonexistent/keytab\n")

        assert problem.endswith("Key table file '/nonexistent/keytab' not found")
        assert "ktadd" in cure

    def test_a_file_that_is_none_is_refused_in_the_c_daemons_words(self, place: Place) -> None:
        assert self.refusal(place, "krb5_keytab\n") == [
            f"auth_krb5_init {place.option}: line 1: no colon separator",
            "failed to initialize mechanism kerberos5",
        ]

    def test_a_typing_error_in_a_key_is_logged_and_no_reason_not_to_start(
        self, place: Place
    ) -> None:
        with place.daemon() as daemon:
            place.option.write_text(f"{place.option.read_text()}krb5_severname: x\n")
            daemon.reload()
            wait_for(
                lambda: any("line 3: unknown key krb5_severname" in s for s in daemon.lines()),
                "a warning",
            )

            assert ask(daemon) == b"OK"
