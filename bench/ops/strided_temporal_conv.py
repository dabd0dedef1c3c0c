"""``strided_temporal_conv`` at the layers of RIE (five parts, 256 channels, 243 frames), and at an awkward size."""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.ops import strided_temporal_conv
from posekernels.ops.strided_temporal_conv import cost


def case(name: str, B: int, T: int, width: int, channels: list[tuple[int, int]], residual: bool, **extra) -> OpCase:
    groups = len(channels)

    def make():
        g = torch.Generator().manual_seed(0)
        found = {}
        for i, (Ci, Co) in enumerate(channels):
            found[f"x{i}"] = torch.randn(B, T, Ci, generator=g)
            found[f"weight{i}"] = torch.randn(Co, Ci, width, generator=g) / (Ci * width) ** 0.5
            found[f"scale{i}"] = 1 + 0.3 * torch.randn(Co, generator=g)
            found[f"shift{i}"] = torch.randn(Co, generator=g)
            if residual:
                found[f"residual{i}"] = torch.randn(B, T // width * 3, Co, generator=g)
        return found

    def call(inputs, backend):
        def of(name):
            return [inputs[f"{name}{i}"] for i in range(groups)]

        options = {"residual": of("residual"), "residual_stride": 3, "residual_tap": 1} if residual else {}
        ys = strided_temporal_conv(
            of("x"), of("weight"), scale=of("scale"), shift=of("shift"), negative_slope=0.2, backend=backend, **options
        )
        return torch.cat(ys, dim=-1)  # one result, so that the gradients of all groups are timed

    label = f"{name} B={B} T={T} w={width} G={groups} {channels[0][0]}->{channels[0][1]}"
    flops = cost.flops(B, T, width, channels)
    moved = partial(cost.bytes_moved, B, T, width, channels, residual=residual)
    gradients = tuple(f"{name}{i}" for i in range(groups) for name in ("x", "weight"))
    return OpCase("strided_temporal_conv", label, make, call, flops, moved, gradients, **extra)


PARTS = [(30, 256), *[(18, 256)] * 4]
CASES = [
    case("first", 64, 243, 3, PARTS, False, quick=True),
    case("wide", 64, 81, 3, [(256, 256)] * 5, False, dtypes=(torch.bfloat16,)),
    case("narrow", 64, 27, 1, [(256, 256)] * 5, True),
    case("connected", 1, 1, 1, [(1024, 1024)] * 5, True, dtypes=(torch.bfloat16,), quick=True),
    case("connected", 128, 1, 1, [(1024, 1024)] * 5, True),
    case("odd", 7, 25, 5, [(13, 29), (7, 31)], False),
]
