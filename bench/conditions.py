"""What else a machine does while the benchmark runs: other programs on its cores, a container's share of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from posekernels.limits import affinity

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000  # the kernel's own


@contextlib.contextmanager
def busy() -> Iterator[str]:
    """Every core that this process may use has a program that never rests. Yields the words for it."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(affinity())]
    try:
        yield f"a spinning program on each of {len(spinning)} cores"
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@contextlib.contextmanager
def quota(share: float) -> Iterator[str]:
    """A control group for this process, with ``share`` processors' time. Yields the words for it.

    Raises:
        ValueError: no share; or this user may not make control groups.
    """
    if not share > 0:
        raise ValueError(f"--quota {share:g}: a share of processors, more than 0")
    first = (GROUPS / "cpu").is_dir()  # version 1
    home = (GROUPS / "cpu") if first else GROUPS
    group, members = home / f"bench-{os.getpid()}", "tasks" if first else "cgroup.procs"
    time_us = round(share * PERIOD_US)
    try:
        group.mkdir()
        limit = ("cpu.cfs_quota_us", str(time_us)) if first else ("cpu.max", f"{time_us} {PERIOD_US}")
        (group / limit[0]).write_text(limit[1])
        _move(group / members)
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise ValueError(f"--quota: needs the right to make a control group: {error}") from error
    try:
        yield f"{share:g} of {affinity()} cores' time"
    finally:
        _move(home / members)
        group.rmdir()


def _move(members: Path) -> None:
    """This process, with the threads it has, into a control group."""
    if members.name == "cgroup.procs":
        members.write_text(str(os.getpid()))
        return
    for thread in os.listdir("/proc/self/task"):
        members.write_text(thread)
