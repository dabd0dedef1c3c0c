"""WS-ANL's light lifter and its variance models at one pose, 64, and 400."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create

MULTIPLY_ADDS = {"mgcn_lw": 2_572_899, "variance_gcn": 19_184_194, "variance_linear": 11_456}  # per pose


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, 1, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


CASES = [
    ModelCase(
        name,
        make=lambda name=name: create(name),
        inputs=inputs,
        batches=(1, 64, 400),
        flops=lambda batch, count=count: 2.0 * count * batch,
        training_batch=256,
    )
    for name, count in MULTIPLY_ADDS.items()
]
