"""RIE, stage 3, 243 frames, 256 channels, the shape of the released ground-truth model; and what it does with videos.

The timed training iteration has its dropout: in the eager form PyTorch draws the masks, as a user of it would.
"""

from __future__ import annotations

import torch

from bench.cases import ModelCase, keypoints
from bench.models.strided_transformer import push
from posekernels.models import create
from posekernels.models.lifting import window_rows

MULTIPLY_ADDS = 95_100_000  # per window


inputs = keypoints(243)


def every_window(net, inputs) -> torch.Tensor:
    """A video as a user of a network of windows runs it: 64 windows at a time."""
    (video,) = inputs
    rows = window_rows(len(video), net.frames, net.target)
    return torch.cat([net(video[part]) for part in rows.split(64)])[:, 0]


CASES = [
    ModelCase(
        "rie",
        make=lambda: create("rie", stage=3),
        inputs=inputs,
        batches=(1, 8, 64),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=128,
        unchecked_training="dropout draws other masks",
        dtypes=(torch.bfloat16,),
    ),
    ModelCase(
        "rie video",
        make=lambda: create("rie", stage=3),
        inputs=lambda frames: (torch.rand(frames, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,),
        batches=(500,),
        flops=lambda frames: 2.0 * MULTIPLY_ADDS * frames,
        run=lambda net, inputs: net.sequence(*inputs),
        plain=every_window,
        unit="frames",
    ),
    ModelCase(
        "rie stream",
        make=lambda: create("rie", stage=3),
        inputs=lambda _: (inputs(1)[0][0, :4],),
        batches=(1,),
        flops=lambda _: 2.0 * MULTIPLY_ADDS,
        run=push,
        unit="frame",
    ),
]
