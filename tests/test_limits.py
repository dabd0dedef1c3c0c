"""What a process may use: files of both versions of control groups, and a real one where one can be made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posekernels import limits

CPU = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files of control groups: {"memory/inner/memory.limit_in_bytes": "3000000"}; who belongs where."""
    if not sys.platform.startswith("linux"):
        pytest.skip("control groups are Linux's")
    monkeypatch.setattr(limits, "MOUNTS", tmp_path)
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(limits, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(limits, "affinity", lambda: 16)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 5000 kB\n")

    def write(membership, files):
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")

    return write


def test_no_limits(groups):
    groups("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"})
    assert (limits.processors(), limits.free_memory()) == (16, 5_120_000)


def test_version_2(groups):
    groups("0::/a/b\n", {"a/cpu.max": "350000 100000", "a/b/cpu.max": "max 100000"})
    assert limits.processors() == 4  # the outer group's 3.5, rounded up
    groups("0::/a/b\n", {"a/b/cpu.max": "50000 100000"})
    assert limits.processors() == 1
    groups("0::/a/b\n", {"a/b/memory.max": "3000000", "a/b/memory.stat": "anon 1000000\nfile 1900000"})
    assert limits.free_memory() == 2_000_000


def test_version_2_seen_from_inside_a_container(groups):
    """Its own group is the root there, whatever path the membership names."""
    groups("0::/docker/0a1b\n", {"cpu.max": "200000 100000", "memory.max": "3000000", "memory.stat": "anon 500000"})
    assert (limits.processors(), limits.free_memory()) == (2, 2_500_000)


def test_version_1(groups):
    membership = "9:memory:/inner\n5:cpu,cpuacct:/inner\n0::/\n"
    groups(
        membership,
        {
            "cpu,cpuacct/inner/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/inner/cpu.cfs_period_us": "100000",
            "memory/inner/memory.limit_in_bytes": "3000000",
            "memory/inner/memory.stat": "total_cache 1900000\ntotal_rss 1000000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert (limits.processors(), limits.free_memory()) == (1, 2_000_000)
    groups(membership, {"cpu,cpuacct/inner/cpu.cfs_quota_us": "-1"})
    assert limits.processors() == 16


def test_a_command_under_a_real_quota():
    """Half a processor: one thread, which PyTorch then has too; what the user asked for comes first."""
    group = CPU / f"posekernels-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    code = (
        f"import os, sys; open({str(group / 'tasks')!r}, 'w').write(str(os.getpid()))\n"
        "sys.orig_argv = ['python', '-m', 'posekernels']\n"
        "import posekernels, torch; print(torch.get_num_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    try:
        for asked, got in (({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")):
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment | asked, capture_output=True, text=True, timeout=120
            )
            assert done.stdout.split() == [got], done.stderr
    finally:
        group.rmdir()
