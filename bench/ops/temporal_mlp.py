"""``temporal_mlp`` at the sizes of PKD's motion and distiller stacks on Human3.6M, and at an awkward one."""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.ops import temporal_mlp
from posekernels.ops.temporal_mlp import PARAMETERS, cost


def case(B: int, N: int, pre: bool, C: int = 66, T: int = 50, **extra) -> OpCase:
    names = PARAMETERS if pre else PARAMETERS[:4]

    def make():
        g = torch.Generator().manual_seed(0)
        made = {"x": torch.randn(B, C, T, generator=g)}
        for name in names:
            shape = (N, T, T) if name.endswith("weight") else (N, C) if name in ("scale", "shift") else (N, T)
            spread = T**-0.5 if name.endswith("weight") else 0.1
            made[name] = name.endswith("scale") + spread * torch.randn(shape, generator=g)
        return made

    def call(i, backend):
        return temporal_mlp(i["x"], **{n: i[n] for n in names}, backend=backend)

    label = f"B={B} {C}x{T} N={N}{' two maps' if pre else ''}"
    moved = partial(cost.bytes_moved, B, C, T, N, pre)
    return OpCase("temporal_mlp", label, make, call, cost.flops(B, C, T, N, pre), moved, ("x", *names), **extra)


CASES = [
    case(1, 48, True, quick=True),
    case(32, 48, True, quick=True, dtypes=(torch.bfloat16,)),
    case(32, 4, True, counted_only=True),  # blocks are alike: of 48 there would be twelve times as much
    case(256, 48, True),
    case(256, 12, False),
    case(19, 5, True, C=75, T=35),
]
