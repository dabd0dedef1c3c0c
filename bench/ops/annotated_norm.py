"""``annotated_norm`` at the sizes of the Strided Transformer and of GCNdiff."""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.ops import annotated_norm


def case(rows: int, channels: int, residual: bool, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {
            "x": torch.randn(rows, channels, generator=g),
            "scale": 1 + 0.3 * torch.randn(channels, generator=g),
            "shift": torch.randn(channels, generator=g),
            "residual": torch.randn(rows, channels, generator=g) if residual else None,
        }

    def call(i, backend):
        return annotated_norm(i["x"], i["scale"], i["shift"], i["residual"], backend=backend)

    moved = rows * channels * (4 if residual else 2) + 2 * channels
    gradients = ("x", "scale", "shift") + (("residual",) if residual else ())
    size = f"rows={rows} C={channels}{' +residual' if residual else ''}"
    return OpCase("annotated_norm", size, make, call, 9.0 * rows * channels, lambda b: moved * b, gradients, **extra)


CASES = [
    case(243, 256, False, quick=True),
    case(64 * 243, 256, True),
    case(400 * 17, 96, False),
    case(31, 33, True),
]
