"""``encoder_layer`` at the Strided Transformer's first and fourth layers with 243 frames, and at an awkward size.

For inference: its gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.ops import encoder_layer


def case(B: int, T: int, taps: int, stride: int, C: int = 256, N: int = 512, heads: int = 8, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)

        def linear(out, inside, *rest):
            return torch.randn(out, inside, *rest, generator=g) / inside**0.5, torch.randn(out, generator=g) * 0.2

        norm = [torch.ones(C), torch.zeros(C)]
        attention = [t for _ in range(4) for t in linear(C, C)]
        parameters = [*norm, *attention, *norm, *linear(N, C), *linear(C, N, taps)]
        values = {f"p{i:02d}": t for i, t in enumerate(parameters)}
        return {"z": torch.randn(B, T, C, generator=g), **values}

    def call(i, backend):
        parameters = [i[f"p{n:02d}"] for n in range(16)]
        return encoder_layer(i["z"], None, *parameters, heads=heads, stride=stride, backend=backend)

    outputs = (T - 1) // stride + 1
    read = T if stride < taps else min(T, outputs * taps)  # frames that are queries
    flops = 2.0 * B * (2 * T * C * C + read * (2 * C * C + 2 * T * C + N * C) + outputs * taps * N * C)
    moved = B * C * (T + outputs) + 4 * C * C + N * C * (1 + taps)
    size = f"B={B} T={T} taps={taps} stride={stride}"
    return OpCase("encoder_layer", size, make, call, flops, lambda b: moved * b, **extra)


CASES = [
    case(1, 243, 1, 1, quick=True),
    case(16, 243, 1, 1, dtypes=(torch.bfloat16,)),
    case(16, 243, 3, 3),
    case(64, 81, 3, 9),
    case(3, 31, 3, 2, C=66, N=70, heads=3),
]
