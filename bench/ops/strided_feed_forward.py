"""``strided_feed_forward`` at the sizes of the Strided Transformer with 243 frames."""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.ops import strided_feed_forward

NAMES = ("x", "weight1", "bias1", "weight2", "bias2", "residual")


def case(B: int, T: int, C: int, N: int, taps: int, stride: int, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {
            "x": torch.randn(B, T, C, generator=g),
            "weight1": torch.randn(N, C, generator=g) / C**0.5,
            "bias1": torch.randn(N, generator=g),
            "weight2": torch.randn(C, N, taps, generator=g) / (N * taps) ** 0.5,
            "bias2": torch.randn(C, generator=g),
            "residual": torch.randn(B, T, C, generator=g),
        }

    def call(i, backend):
        return strided_feed_forward(*(i[n] for n in NAMES), stride=stride, backend=backend)

    def products(i):
        """What the first of the two matrix products takes in the vendor's library (cuBLAS, MKL): a floor."""
        return torch.matmul(i["x"].flatten(0, 1), i["weight1"].mT)

    outputs = (T - 1) // stride + 1
    read = T if stride < taps else min(T, outputs * taps)
    flops = 2.0 * B * N * C * (read + outputs * taps)
    moved = B * C * (read + 2 * outputs) + C * N * (1 + taps)
    size = f"B={B} T={T} {C}->{N} taps={taps} stride={stride}"
    peers = {"products": products}
    return OpCase(
        "strided_feed_forward", size, make, call, flops, lambda b: moved * b, NAMES, peers, ("products",), **extra
    )


CASES = [
    case(1, 243, 256, 512, 3, 3, quick=True),
    case(16, 243, 256, 512, 1, 1),
    case(16, 243, 256, 512, 3, 3),
    case(64, 81, 256, 512, 3, 9),
    case(5, 31, 33, 70, 3, 2),
]
