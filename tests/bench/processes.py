"""What /proc tells about a server and all its children."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
BYTES_PER_KIB = 1024

# Seconds a server gets to end by itself.
GRACE = 5.0


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat, as far as it is needed here."""

    pid: int
    parent: int
    is_zombie: bool
    started: int
    cpu_ticks: int


def look_at(pid: int) -> Process | None:
    """Return the process, or None if there is none with that id."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name stands in parentheses and may hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    # utime, stime and the same of the children that were waited for: workers
    # that end during a run are counted by their parent.
    return Process(
        pid, int(fields[1]), fields[0] == "Z", int(fields[19]), sum(map(int, fields[11:15]))
    )


def tree(root: int) -> list[Process]:
    """Return the process *root* and everything that descends from it."""
    everyone = [look_at(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit()]
    children: dict[int, list[Process]] = {}
    for process in everyone:
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    found = [process for process in everyone if process is not None and process.pid == root]
    for process in found:  # grows while it is walked
        found += children.get(process.pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """Return the processor time that the whole tree has used so far."""
    return sum(process.cpu_ticks for process in tree(root)) / TICKS_PER_SECOND


def machine_cpu_seconds() -> float:
    """Return the processor time that everything on the machine has used so far."""
    ticks = (PROC / "stat").read_text().split(maxsplit=8)[1:8]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, ticks)
    return (user + nice + system + interrupts + soft_interrupts) / TICKS_PER_SECOND


def proportional_bytes(root: int) -> int:
    """Return the tree's memory, pages that several processes share counted by share.

    The benchmark's own interpreter shares the program text of a Python server
    and so takes a share of it, as any other Python program there would.
    """
    return sum(_proportional_kib(process.pid) for process in tree(root)) * BYTES_PER_KIB


def _proportional_kib(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended since the tree was read
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def is_alive(process: Process) -> bool:
    """Tell whether that process, and not a later one with its id, is running."""
    now = look_at(process.pid)
    return now is not None and now.started == process.started and not now.is_zombie


def stop(root: int) -> None:
    """End the tree: ask its root, then kill what is left after the grace."""
    family = tree(root)
    _signal(root, signal.SIGTERM)
    limit = time.monotonic() + GRACE
    while any(map(is_alive, family)) and time.monotonic() < limit:
        time.sleep(0.01)
    for process in filter(is_alive, family):
        _signal(process.pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
