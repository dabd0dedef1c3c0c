"""What this process may use of the machine: processors and memory, the limits of its container minded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")
UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """(version, folder) of every control group that holds this process, from its own up to the root: each may limit."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, mounts = 2, [MOUNTS, MOUNTS / "unified"]
        elif controller in controllers.split(","):
            version, mounts = 1, [MOUNTS / controllers, MOUNTS / controller]
        else:
            continue
        for mount in mounts:
            if mount.is_dir():
                inside = Path(path.lstrip("/"))  # a container often sees its own group as the root
                yield from ((version, mount / part) for part in (inside, *inside.parents) if (mount / part).is_dir())
                break


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def affinity() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processors() -> int:
    """How many threads make sense here: the processors this process may run on, and no more than its quota of time.

    Half a processor's quota is one thread: two would stand still together for most of each period.
    """
    count = affinity()
    for version, group in _groups("cpu"):
        if version == 2:
            quota, period = ((_read(group / "cpu.max") or "max 1").split() + ["100000"])[:2]
        else:
            quota, period = _read(group / "cpu.cfs_quota_us") or "-1", _read(group / "cpu.cfs_period_us") or "100000"
        if quota not in ("max", "-1"):
            count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


def free_memory() -> int | None:
    """Bytes that programs here may still take; None where that is not known (no Linux)."""
    try:
        lines = MEMORY.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        for version, group in _groups("memory"):
            limit = _read(group / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
            if limit in (None, "max") or int(limit) > UNLIMITED:
                continue
            # What is cached from files counts as used there, and gives way.
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = min(free, int(limit) - int(used["anon" if version == 2 else "total_rss"]))
        return max(free, 0)
    except (OSError, StopIteration, KeyError, ValueError):
        return None
