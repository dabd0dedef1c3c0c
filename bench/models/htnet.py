"""HTNet at one pose, 64, and 400 (200 hypotheses and their mirror images)."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create

MULTIPLY_ADDS = 37_919_856  # per pose, published size


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, 1, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


CASES = [
    ModelCase(
        "htnet",
        make=lambda: create("htnet"),
        inputs=inputs,
        batches=(1, 64, 400),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks",
        dtypes=(torch.bfloat16,),
    )
]
