"""``python -m bench.counts``: what it makes of counts. What the executor counts is tests/ptx's."""

import contextlib
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import counts
from bench.cases import OpCase

OPS = {
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": ("mma", 4096),
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16": ("mma", 0),
    "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3": ("mma", 131072),  # a warp's quarter
    "wgmma.wait_group.sync.aligned": ("barrier", 0),
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
    monkeypatch.setattr(counts, "resources", lambda kernel, cache: (40, 0))
    ops = list(OPS)[:1] + ["ld.global.v4.b32", "st.shared.b32"]
    rows = np.array([[1000, 32000, 0, 0], [10, 320, 160, 0], [10, 320, 0, 40]])
    kernel = SimpleNamespace(ops=ops, shared_bytes=lambda dynamic: dynamic)
    found = SimpleNamespace(rows=rows, barriers=3, distinct_bytes=2560)
    launch = SimpleNamespace(kernel=kernel, counts=found, grid=(66, 1, 1), threads=128, shared=1024)
    row = counts.row("op", "B=1", "bfloat16", [launch, launch], 4096e3, 1280.0, {})
    assert row.launches == 2 and row.instructions == 2040 and row.barriers == 6 and row.registers == 40
    assert row.matrix_flops == 2 * 4096e3 and row.cache_bytes == 2 * 160 * 32 and row.distinct_bytes == 5120
    assert (row.bank_turns, row.bank_turns_least) == (80, 20)  # each of 32 lanes 4 bytes: one turn a warp
    assert row.ours_s == 2 * counts.LAUNCH_S and row.bound_by == "launch" and row.least_s == counts.LAUNCH_S
    assert row.backend == "triton" and row.occupancy == 12 * 4 / 64  # 40 registers of 128 threads, twelve times
    assert row.graph_s == pytest.approx(counts.LAUNCH_S + 2 * 1000 * 4096 / (790e12 / 2))  # both in one graph
    page = counts.page([row])
    assert "Counted, not timed" in page and "| 50% |" in page


@pytest.mark.parametrize(
    "threads, registers, shared, want",
    [
        (128, 32, 0, 1.0),  # 16 blocks of 4 warps
        (32, 32, 0, 0.5),  # 32 blocks, no more
        (128, 255, 0, 2 * 4 / 64),  # 256 registers of a thread
        (128, 128, 0, 4 * 4 / 64),
        (256, 32, 100 * 1024, 2 * 8 / 64),
        (1024, 64, 0, 0.5),
    ],
)
def test_occupancy(threads, registers, shared, want):
    assert counts.occupancy(threads, registers, shared) == want


def test_resources_are_of_each_kernel_of_a_file(tmp_path):
    """nvcc's PTX has many; ptxas tells of each."""
    pytest.importorskip("triton")
    head = ".version 8.0\n.target sm_80\n.address_size 64\n"
    few = ".visible .entry few(.param .u64 p) { ret; }\n"
    sums = "".join(f"ld.volatile.global.f32 %f{n}, [%d0+{4 * n}];" for n in range(64))
    sums += "".join(f"st.volatile.global.f32 [%d0+{4 * n}], %f{n};" for n in range(64))
    body = f".reg .f32 %f<64>; .reg .b64 %d<1>; ld.param.u64 %d0, [p]; {sums} ret;"
    module = SimpleNamespace(text=f"{head}{few}.visible .entry many(.param .u64 p) {{ {body} }}\n")
    cache: dict = {}
    found = {name: counts.resources(SimpleNamespace(module=module, name=name), cache) for name in ("few", "many")}
    assert found["few"][0] < 16 and found["many"][0] >= 64 and len(cache) == 1


def test_sums_are_cut_for_the_gpu_that_bounds_are_made_for(monkeypatch):
    pytest.importorskip("triton")
    from posekernels import _triton
    from tests.ptx import device, program

    def call(given, backend):
        parts.append(_triton.splits(torch.empty(0), 1000, 4))

    case = OpCase("norm_activation", "rows=1", dict, call, 1.0, lambda size: 1.0)
    parts: list[int] = []
    monkeypatch.setattr(program, "FUEL", program.FUEL)  # is set, and not set back
    monkeypatch.setattr(counts, "op_cases", lambda: [case])
    monkeypatch.setattr(device, "gpu", lambda **_: contextlib.nullcontext(SimpleNamespace(launches=[])))
    assert len(list(counts.count(["norm_activation"], ["triton"]))) == 2  # float32 and bfloat16
    assert parts == [2 * counts.PROCESSORS // 4] * 2


def test_a_part_is_counted_anew():
    numbers = {field.name: 0 for field in dataclasses.fields(counts.Row)}
    rows = [counts.Row(**numbers | {"what": op, "backend": b}) for op in ("few", "many") for b in counts.BACKENDS]
    assert counts.kept(rows, [], counts.BACKENDS) == []
    assert counts.kept(rows, ["few"], counts.BACKENDS) == rows[2:]
    assert counts.kept(rows, ["few"], ["cuda"]) == [rows[0], *rows[2:]]
    assert counts.kept(rows, [], ["cuda"]) == rows[::2]
