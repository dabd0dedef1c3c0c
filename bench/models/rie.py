"""RIE, stage 3, 243 frames, 256 channels: the shape of the released ground-truth model."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create

MULTIPLY_ADDS = 95_100_000  # per window


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, 243, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


CASES = [
    ModelCase(
        "rie",
        make=lambda: create("rie", stage=3),
        inputs=inputs,
        batches=(1, 8, 64),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=128,
        dtypes=(torch.bfloat16,),
    )
]
