"""``temporal_attention`` at the sizes of the Strided Transformer (heads of 32) and of MixSTE (heads of 64)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.cases import OpCase
from posekernels.ops import temporal_attention


def sdpa(i: dict) -> torch.Tensor:
    """PyTorch's own attention."""
    q, k, v = (i[n].transpose(1, 2) for n in "qkv")
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def case(B: int, T: int, H: int, D: int, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {n: torch.randn(B, T, H, D, generator=g) for n in "qkv"}

    def call(i, backend):
        return temporal_attention(i["q"], i["k"], i["v"], backend=backend)

    flops = 4.0 * B * H * T * T * D
    size = f"B={B} T={T} H={H} D={D}"
    moved = 4 * B * T * H * D
    return OpCase(
        "temporal_attention", size, make, call, flops, lambda b: moved * b, ("q", "k", "v"), {"sdpa": sdpa}, **extra
    )


CASES = [
    case(1, 243, 8, 32, quick=True),
    case(16, 243, 8, 32, dtypes=(torch.bfloat16,)),
    case(8, 351, 8, 32),
    case(17, 243, 8, 64),
    case(3, 27, 5, 40),
]
