"""The backends by name: what each refuses, makes and needs."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pysaslauthd.backends.base import Naming
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Ldap, Rimap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Accepted, AuthRequest, Origin, Secret
from pysaslauthd.plugins import MECHANISMS, find_mechanism, most_workers
from pysaslauthd.plugins.mechanism import MOST_WORKERS, option_file
from pysaslauthd.privileges import CAP_DAC_READ_SEARCH
from pysaslauthd.workers.child import Answer
from pysaslauthd.workers.frames import decode_question, encode_answer
from tests.contract.verifier import settled
from tests.helpers.daemon import environment
from tests.helpers.processes import DEADLINE
from tests.helpers.static import YES
from tests.helpers.workers import Children, eventually, serving

BLOCKING = ["getpwent", "kerberos5", "pam", "shadow"]
OF_THIS_MACHINE = ["getpwent", "pam", "shadow"]
# The others': joined.
NAMINGS = {"sasldb": Naming.PAIR, "ldap": Naming.BOTH, "httpform": Naming.BOTH}
SERVER = Rimap(server="imap://localhost:143")  # the one setting without a default


@pytest.mark.parametrize("name", ["pam", "PAM", "Pam"])
def test_a_name_is_known_in_any_case(name: str) -> None:
    assert find_mechanism(Settings(mechanism=name)) is MECHANISMS["pam"]


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(StartupError) as refused:
        find_mechanism(Settings(mechanism="kerberos9"))

    assert refused.value.lines[0] == "unknown authentication mechanism: kerberos9"
    names = "sasldb getpwent kerberos5 pam rimap shadow ldap httpform"
    assert refused.value.lines[1] == f"this release knows: {names}"


@pytest.mark.parametrize("name", OF_THIS_MACHINE)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_this_machine_can_run_what_asks_it(name: str) -> None:
    settings = Settings(mechanism=name)

    find_mechanism(settings).check(settings)


@pytest.mark.parametrize("name", MECHANISMS)
async def test_a_backend_has_the_name_it_is_asked_for_by(name: str) -> None:
    settings = Settings(mechanism=name, rimap=SERVER)

    backend = find_mechanism(settings).make(settings, serving())

    assert backend.name == name
    assert backend.waits == (name != "sasldb")
    assert backend.naming is NAMINGS.get(name, Naming.JOINED)
    assert backend.uses_address == (name == "pam")


def test_what_blocks_or_hashes_has_workers() -> None:
    working = {name for name, one in MECHANISMS.items() if one.work is not None}

    assert working == {*BLOCKING, "ldap"}


@pytest.mark.parametrize("path", ["db", "./db", ""])
def test_sasldb_needs_an_absolute_path(path: str) -> None:
    settings = Settings(mechanism="sasldb", mechanism_option=path)

    with pytest.raises(StartupError, match="an absolute path"):
        MECHANISMS["sasldb"].check(settings)


@pytest.mark.parametrize("path", [None, "/etc/db"])
def test_sasldb_takes_an_absolute_path_or_none(path: str | None) -> None:
    settings = Settings(mechanism="sasldb", mechanism_option=path)

    MECHANISMS["sasldb"].check(settings)


def test_what_hashes_has_as_many_workers_as_cores() -> None:
    cores = len(os.sched_getaffinity(0))

    assert most_workers(Settings(mechanism="shadow")) == cores
    assert most_workers(Settings(mechanism="getpwent")) == cores


@pytest.mark.parametrize("name", ["kerberos5", "pam"])
def test_what_waits_has_more(name: str) -> None:
    assert most_workers(Settings(mechanism=name)) == MOST_WORKERS


@pytest.mark.parametrize("name", BLOCKING)
def test_their_number_can_be_set(name: str) -> None:
    assert most_workers(Settings(mechanism=name, processes=7)) == 7


@pytest.mark.parametrize(("processes", "warm"), [(1, 1), (2, 2), (7, 2), (0, 2)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_so_many_are_kept_warm(processes: int, warm: int) -> None:
    source = Children(lambda _end: None)
    settings = Settings(mechanism="pam", processes=processes)

    backend = find_mechanism(settings).make(settings, source)
    await backend.open()
    await backend.close()

    assert len(source.asked_at) == warm


def hanging_for(service: str) -> Answer:
    """Return what never answers questions of *service*, and says yes to all others."""

    def answer(question: bytes, _descriptors: list[int]) -> bytes:
        if decode_question(question).origin.service == service:
            signal.pause()
        return encode_answer(YES)

    return answer


def request_of(service: str) -> AuthRequest:
    return AuthRequest("joe", Secret(b"pw"), "", Origin(service), time.monotonic())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
class TestOneServiceThatHangs:
    @pytest.fixture
    def source(self) -> Iterator[Children]:
        subject = serving(lambda: hanging_for("hung"))
        yield subject
        subject.end()

    async def test_it_leaves_a_quarter_of_the_workers_where_they_wait(
        self, source: Children
    ) -> None:
        settings = Settings(mechanism="pam", processes=4)
        backend = find_mechanism(settings).make(settings, source)
        hung = [asyncio.create_task(settled(backend.verify(request_of("hung")))) for _ in range(5)]
        await eventually(lambda: len(source.pids) >= 3, "3 workers")

        results = [await settled(backend.verify(request_of("imap"))) for _ in range(3)]
        meanwhile = not any(one.done() for one in hung)

        await backend.close()
        await asyncio.gather(*hung)
        assert results == [Accepted("joe", "pam")] * 3
        assert meanwhile

    async def test_it_may_have_all_of_them_where_they_hash(self, source: Children) -> None:
        settings = Settings(mechanism="shadow", processes=4)
        backend = find_mechanism(settings).make(settings, source)

        hung = [asyncio.create_task(settled(backend.verify(request_of("hung")))) for _ in range(5)]

        await eventually(lambda: len(source.pids) == 4, "4 workers")
        await backend.close()
        await asyncio.gather(*hung)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("shadow", frozenset({CAP_DAC_READ_SEARCH})),
        ("getpwent", frozenset({CAP_DAC_READ_SEARCH})),
        ("kerberos5", frozenset({CAP_DAC_READ_SEARCH})),
        ("pam", None),
    ],
)
def test_workers_keep_what_they_need_of_roots_power(name: str, kept: frozenset[int] | None) -> None:
    assert MECHANISMS[name].capabilities == kept


def test_only_pam_may_say_no_to_what_is_right_without_root() -> None:
    assert [name for name, one in MECHANISMS.items() if one.needs_root] == ["pam"]


def test_only_sasldb_needs_the_front_in_a_group() -> None:
    assert {name: one.groups for name, one in MECHANISMS.items() if one.groups} == {
        "sasldb": ("sasl",)
    }


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        (Settings(mechanism="pam"), 0),
        (Settings(mechanism="rimap", rimap=Rimap(connections=300)), 300),
        (Settings(mechanism="httpform"), 64),
        (Settings(mechanism="ldap", ldap=Ldap(servers=("ldap://a", "ldap://b"))), 144),
    ],
    ids=lambda value: getattr(value, "mechanism", value),
)
def test_it_is_known_how_many_connections_to_servers_there_may_be(
    settings: Settings, most: int
) -> None:
    assert find_mechanism(settings).connections(settings) == most


@pytest.mark.parametrize("name", MECHANISMS)
def test_to_make_one_imports_nothing_after_its_preload(name: str) -> None:
    """Who has become another user may not be able to read what is not loaded yet."""
    script = f"""
import asyncio, sys
import pysaslauthd.app
from pysaslauthd.backends.base import Naming
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Rimap
from pysaslauthd.plugins import find_mechanism
settings = Settings(mechanism={name!r}, rimap=Rimap(server={SERVER.server!r}))
find_mechanism(settings).preload()
before = set(sys.modules)
async def make():
    return find_mechanism(settings).make(settings, None)
asyncio.run(make())
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
        env=environment(),
    )

    assert done.stdout == "\n"


BACKENDS = [f"pysaslauthd.backends.{name}" for name in MECHANISMS]


@pytest.mark.parametrize("module", [*BACKENDS, "aiohttp", "passlib"])
def test_a_backend_is_not_imported_before_it_is_used(module: str) -> None:
    script = f"import sys, pysaslauthd.plugins; print({module!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
        env=environment(),
    )

    assert done.stdout == "False\n"


def test_a_file_of_the_option_is_the_same_wherever_the_daemon_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(mechanism="ldap", mechanism_option=f"{tmp_path.name}.conf")
    monkeypatch.chdir(tmp_path)
    at_the_start = option_file(settings)
    monkeypatch.chdir("/")

    assert option_file(settings) == at_the_start == f"{tmp_path}/{tmp_path.name}.conf"
