"""``joint_attention`` at the head widths of HTNet, GCNdiff and MixSTE, 17 clips of 243 frames; counted at one clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.cases import OpCase
from posekernels.ops import joint_attention


def case(B: int, N: int, H: int, D: int, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {name: torch.randn(B, N, H, D, generator=g) for name in "qkv"}

    def sdpa(i):
        q, k, v = (i[name].transpose(1, 2) for name in "qkv")
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    return OpCase(
        "joint_attention",
        f"B={B} N={N} H={H} D={D}",
        make,
        lambda i, backend: joint_attention(i["q"], i["k"], i["v"], backend=backend),
        4 * B * H * N * N * D,
        lambda size: 4 * B * N * H * D * size,
        ("q", "k", "v"),
        {"sdpa": sdpa},
        **extra,
    )


CASES = [
    case(4131, 17, 8, 10, quick=True),
    case(4131, 17, 8, 24),
    case(4131, 17, 8, 64),
    case(243, 17, 8, 10, counted_only=True),
    case(243, 17, 8, 24, counted_only=True),
    case(243, 17, 8, 64, counted_only=True),
    case(7, 31, 3, 13),
]
