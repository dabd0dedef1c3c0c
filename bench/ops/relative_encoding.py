"""``relative_encoding`` of RIE's five parts."""

from __future__ import annotations

from functools import partial

import torch

from bench.cases import OpCase
from posekernels.models.rie import PARTS
from posekernels.ops import relative_encoding
from posekernels.ops.relative_encoding import cost

PARTS_17 = tuple(PARTS["h36m-17"].values())
SIZES = [len(part) for part in PARTS_17]


def case(B: int, T: int, **extra) -> OpCase:
    return OpCase(
        "relative_encoding",
        f"B={B} T={T} J=17",
        lambda: {"x": torch.randn(B, T, 17, 2, generator=torch.Generator().manual_seed(0))},
        lambda inputs, backend: relative_encoding(inputs["x"], PARTS_17, backend=backend),
        cost.flops(B, T, 2, SIZES),
        partial(cost.bytes_moved, B, T, 17, 2, SIZES),
        ("x",),
        **extra,
    )


CASES = [case(1, 243, quick=True), case(128, 243), case(7, 31), case(1024, 243, gpu_only=True)]
