"""MixSTE at the published size: chunks of 243 frames."""

from __future__ import annotations

import torch

from bench.cases import ModelCase, keypoints
from posekernels.models import create

MULTIPLY_ADDS = 147.4e9  # per chunk


CASES = [
    ModelCase(
        "mixste",
        make=lambda: create("mixste"),
        inputs=keypoints(243),
        batches=(1, 2, 4),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=1,
        dtypes=(torch.bfloat16,),
    )
]
