"""The working memory of C++ kernels: kept between calls, given back when it is outgrown."""

import subprocess
import sys
from pathlib import Path

import torch

from posekernels._native import core
from posekernels.ops import temporal_attention
from posekernels.testing import require
from tests.ops.table import threads


def kept_after(frames: int, calls: int = 1) -> int:
    """Bytes that this thread keeps after some calls, alone, of a backward pass over so many frames."""
    q = torch.randn(1, frames, 1, 8, requires_grad=True)
    with threads(1):
        for _ in range(calls):
            temporal_attention(q, q, q, backend="cpu").sum().backward()
        return core.scratch_kept(1)


def test_sizes_that_grow_leave_one_block_not_all_of_them():
    require("temporal_attention", "cpu")
    alone = kept_after(1500, 2)
    kept_after(16, 200)
    for frames in range(500, 1501, 100):
        kept_after(frames)
    assert kept_after(1500) <= 1.1 * alone


def test_what_small_calls_do_not_need_is_given_back():
    require("temporal_attention", "cpu")
    large = kept_after(1500, 2)
    assert large > 2**24  # [S][T] weights and their gradients
    assert kept_after(64, 200) < large / 8


def test_mixed_sizes_do_not_allocate_each_time():
    """A large call among small ones finds its block."""
    require("temporal_attention", "cpu")
    large = kept_after(600, 2)
    assert all(kept_after(64, 3) == kept_after(600) == large for _ in range(20))


FULL = """
import resource
from pathlib import Path
import torch
from posekernels.ops import temporal_attention
torch.set_num_threads(1)
q = torch.randn(1, 4000, 1, 8, requires_grad=True)
y = temporal_attention(q, q, q, backend="cpu").sum()
used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (16 << 20), -1))
try:
    y.backward(retain_graph=True)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
y.backward()
print(bool(q.grad.isfinite().all()))
"""


def test_a_kernel_without_memory_says_so_and_works_again_with_it():
    require("temporal_attention", "cpu")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", FULL], cwd=root, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.endswith("out of memory") and second == "True"
