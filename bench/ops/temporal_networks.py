"""``temporal_networks`` as RIE runs it, five encoders of 243 frames or five fusions, and at an awkward size.

For inference: its gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.ops import Layer, TemporalNetworks, temporal_networks
from posekernels.ops.temporal_networks import cost

ENCODER = [(256, 256, width) for _ in range(4) for width in (3, 1)] + [(256, 256, 1)]
ENCODERS = [[(6 * joints, 256, 3), *ENCODER] for joints in (5, 3, 3, 3, 3)]
FUSIONS = [[(1024, 1024, 1)] * 3 + [(1024, 256, 1)]] * 5
ODD = [[(13, 29, 5), (29, 7, 1)], [(6, 31, 5)]]


def case(name: str, B: int, frames: int, networks: list[cost.Layers], **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        made = {}
        for n, layers in enumerate(networks):
            made[f"x{n}"] = torch.randn(B, frames, layers[0][0], generator=g)
            for i, (Ci, Co, width) in enumerate(layers):
                made[f"weight{n}.{i}"] = torch.randn(Co, Ci, width, generator=g) / (Ci * width) ** 0.5
                made[f"affine{n}.{i}"] = torch.randn(2, Co, generator=g)
        return made

    def call(i, backend):
        if "networks" not in i:  # made once, as networks do
            i["networks"] = TemporalNetworks(
                [
                    [Layer(i[f"weight{n}.{l}"], i[f"affine{n}.{l}"], 0.2) for l in range(len(layers))]
                    for n, layers in enumerate(networks)
                ]
            )
        return temporal_networks([i[f"x{n}"] for n in range(len(networks))], i["networks"], backend=backend)

    moved = partial(cost.bytes_moved, B, frames, networks)
    size = f"{name} B={B} T={frames} N={len(networks)}"
    return OpCase("temporal_networks", size, make, call, cost.flops(B, frames, networks), moved, **extra)


CASES = [
    case("encoders", 1, 243, ENCODERS, quick=True),
    case("encoders", 64, 243, ENCODERS, dtypes=(torch.bfloat16,)),
    case("fusions", 1, 1, FUSIONS),
    case("odd", 7, 25, ODD),
]
