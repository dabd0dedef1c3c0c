"""``norm_activation`` without dropout at RIE's training shapes (128 windows), and at an awkward one."""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.ops import norm_activation
from posekernels.ops.norm_activation import cost

NAMES = ("x", "weight", "bias")


def case(rows: int, C: int, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {
            "x": torch.randn(rows, C, generator=g),
            "weight": 1 + 0.3 * torch.randn(C, generator=g),
            "bias": torch.randn(C, generator=g),
        }

    def call(i, backend):
        return norm_activation(*(i[n] for n in NAMES), negative_slope=0.2, backend=backend)

    moved = partial(cost.bytes_moved, rows, C)
    return OpCase("norm_activation", f"rows={rows} C={C}", make, call, cost.flops(rows, C), moved, NAMES, **extra)


CASES = [case(128 * 81, 256), case(128, 1024, quick=True), case(31, 33)]
