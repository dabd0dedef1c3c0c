"""HTNet at one pose, 64, and 400 (200 hypotheses and their mirror images)."""

from __future__ import annotations

import torch

from bench.cases import ModelCase, keypoints
from posekernels.models import create

MULTIPLY_ADDS = 37_919_856  # per pose, published size


CASES = [
    ModelCase(
        "htnet",
        make=lambda: create("htnet"),
        inputs=keypoints(1),
        batches=(1, 64, 400),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks",
        dtypes=(torch.bfloat16,),
    )
]
