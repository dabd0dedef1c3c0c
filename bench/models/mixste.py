"""MixSTE at the published size: chunks of 243 frames."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create

MULTIPLY_ADDS = 147.4e9  # per chunk


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, 243, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


CASES = [
    ModelCase(
        "mixste",
        make=lambda: create("mixste"),
        inputs=inputs,
        batches=(1,),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=1,
        dtypes=(torch.bfloat16,),
    )
]
