"""``transformer_block`` at MixSTE's two shapes, beside PyTorch's own fused attention.

For inference: its gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import OpCase
from posekernels.ops import transformer_block
from posekernels.ops.transformer_block import PARAMETERS

HEADS = 8


def eager(i: dict[str, Tensor]) -> Tensor:
    x, width = i["x"], i["x"].shape[-1:]
    h = F.layer_norm(x, width, i["norm1_weight"], i["norm1_bias"], 1e-6)
    q, k, v = F.linear(h, i["qkv_weight"], i["qkv_bias"]).unflatten(-1, (3, HEADS, -1)).movedim(-3, 0).transpose(-2, -3)
    h = F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)
    x = x + F.linear(h, i["proj_weight"], i["proj_bias"])
    h = F.layer_norm(x, width, i["norm2_weight"], i["norm2_bias"], 1e-6)
    x = x + F.linear(F.gelu(F.linear(h, i["fc1_weight"], i["fc1_bias"])), i["fc2_weight"], i["fc2_bias"])
    return F.layer_norm(x, width, i["norm3_weight"], i["norm3_bias"], 1e-6)


def case(groups: int, N: int, C: int = 512, hidden: int = 1024, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        shapes = {"qkv_weight": (3 * C, C), "proj_weight": (C, C), "fc1_weight": (hidden, C), "fc2_weight": (C, hidden)}
        shapes |= {"qkv_bias": (3 * C,), "fc1_bias": (hidden,)}
        made = {"x": torch.randn(1, groups, N, C, generator=g)}
        for name in PARAMETERS:
            shape = shapes.get(name, (C,))
            made[name] = torch.randn(shape, generator=g) * (shape[-1] ** -0.5 if len(shape) == 2 else 0.1)
        return made | {f"norm{i}_weight": torch.ones(C) for i in (1, 2, 3)}

    def call(i, backend):
        return transformer_block(i["x"], *(i[n] for n in PARAMETERS), heads=HEADS, backend=backend)

    tokens = groups * N
    flops = 2.0 * tokens * (4 * C * C + 2 * C * hidden + 2 * N * C)

    def moved(size: int) -> float:
        return size * (2 * tokens * C + 4 * C * C + 2 * C * hidden)

    return OpCase("transformer_block", f"{groups}x{N} C={C}", make, call, flops, moved, peers={"sdpa": eager}, **extra)


CASES = [
    case(243, 17, quick=True, dtypes=(torch.bfloat16,)),
    case(17, 243, dtypes=(torch.bfloat16,)),
    case(5, 31, C=80, hidden=176),
]
