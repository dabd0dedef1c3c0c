"""``python -m bench.counts``: what it makes of counts. What the executor counts is tests/ptx's."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench import counts

OPS = {
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": ("mma", 4096),
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16": ("mma", 0),
    "ld.global.v4.b32": ("global", 0),
    "cp.async.cg.shared.global": ("global", 0),
    "cp.async.wait_group": ("barrier", 0),
    "st.shared.b32": ("shared", 0),
    "fma.rn.f32": ("float", 0),
    "cvt.rn.bf16x2.f32": ("float", 0),
    "mul.lo.s32": ("integer", 0),
    "setp.lt.s32": ("branch", 0),
    "shfl.sync.bfly.b32": ("shuffle", 0),
}


@pytest.mark.parametrize("op", OPS)
def test_kinds_and_work(op):
    assert (counts.kind_of(op), counts.matrix_flops(op)) == OPS[op]


def test_a_row_adds_up(monkeypatch):
    monkeypatch.setattr(counts, "resources", lambda text, cache: (40, 0))
    ops = list(OPS)[:1] + ["ld.global.v4.b32", "st.shared.b32"]
    rows = np.array([[1000, 32000, 0, 0], [10, 320, 160, 0], [10, 320, 0, 40]])
    kernel = SimpleNamespace(ops=ops, module=SimpleNamespace(text=""))
    found = SimpleNamespace(rows=rows, barriers=3, distinct_bytes=2560)
    launch = SimpleNamespace(kernel=kernel, counts=found, grid=(66, 1, 1), shared=1024)
    row = counts.row("op", "B=1", "bfloat16", [launch, launch], 4096e3, 1280.0, {})
    assert row.launches == 2 and row.instructions == 2040 and row.barriers == 6 and row.registers == 40
    assert row.matrix_flops == 2 * 4096e3 and row.cache_bytes == 2 * 160 * 32 and row.distinct_bytes == 5120
    assert (row.bank_turns, row.bank_turns_least) == (80, 20)  # each of 32 lanes 4 bytes: one turn a warp
    assert row.ours_s == 2 * counts.LAUNCH_S and row.bound_by == "launch" and row.least_s == counts.LAUNCH_S
    page = counts.page([row])
    assert "Counted, not timed" in page and "| 50% |" in page
