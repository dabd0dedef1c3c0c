"""GCNdiff, one evaluation at one pose, a chunk of 243 frames and 1024; the frame setting's GCNpose beside it."""

from __future__ import annotations

import torch

from bench.cases import ModelCase
from models import create

DENOISER, LIFTER = 12.998e6, 12.60e6  # multiply-adds per pose


def poses(batch: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch, 17, 5, generator=g), torch.full((batch,), 12)


def keypoints(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


CASES = [
    ModelCase(
        "gcndiff",
        make=lambda: create("gcndiff"),
        inputs=poses,
        batches=(1, 243, 1024),
        flops=lambda batch: 2 * DENOISER * batch,
        training_batch=256,
    ),
    ModelCase(
        "gcnpose",
        make=lambda: create("gcnpose"),
        inputs=keypoints,
        batches=(1, 243, 1024),
        flops=lambda batch: 2 * LIFTER * batch,
    ),
]
