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
ACCEPTS_CONNECTIONS = "00010000"  # among the flags in /proc/net/unix

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
    return sum(_kib(process.pid, "Pss:") for process in tree(root)) * BYTES_PER_KIB


def anonymous_bytes(pid: int) -> int:
    """Return a process's memory that no file backs, in memory or swapped out.

    Pages shared since a fork count by share, so that the sum over a daemon's
    processes is what they really take. Mapped files are left out: their shares
    change with whatever else runs.
    """
    return _kib(pid, "Pss_Anon:", "SwapPss:") * BYTES_PER_KIB


def _kib(pid: int, *fields: str) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended since the tree was read
    return sum(int(line.split()[1]) for line in lines if line.startswith(fields))


def open_files(pid: int) -> int:
    """Return how many descriptors the process has, sockets among them."""
    return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())


def user_id(pid: int) -> int:
    """Return the effective uid; the owner of /proc/PID is root's for who has dropped root."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.startswith("Uid:"))


def holds_listener(pid: int, path: Path) -> bool:
    """Tell whether the process has open the socket that listens at *path*."""
    doors = _listening_at(path)
    return any(str(held.readlink()) in doors for held in (PROC / str(pid) / "fd").iterdir())


def _listening_at(path: Path) -> set[str]:
    # The connections that were accepted there carry its path too, but not the flag.
    # Num RefCount Protocol Flags Type St Inode Path
    lines = (PROC / "net" / "unix").read_text().splitlines()
    rows = [line.split() for line in lines if line.endswith(f" {path}")]
    return {f"socket:[{row[6]}]" for row in rows if row[3] == ACCEPTS_CONNECTIONS}


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
