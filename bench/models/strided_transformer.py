"""Strided Transformer, 243 frames: one window, 8, 64; a training step; the refine module; and a video frame by frame.

The timed training step has no dropout. Its masks here are functions of a seed, which the eager form spells out in
integer arithmetic that no user of eager PyTorch would pay for; without them the comparison is hardest for the kernels.
"""

from __future__ import annotations

import torch

from bench.cases import ModelCase, keypoints
from posekernels.models import create, stream

MULTIPLY_ADDS = 659_600_000 - 3_170_000  # per window: rows that nobody reads, and the full head, left out
REFINE = 1024 * (6 + 2) * 17  # per frame


def network():
    net = create("strided_transformer", frames=243, dropout=0.0, embedding_dropout=0.0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):  # statistics as after training
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net


inputs = keypoints(243)


def push(net, inputs):
    """The next frame of a video; what a frame costs does not depend on how many came before."""
    (frames,) = inputs
    if not hasattr(net, "video"):
        net.video = stream(net, 0)
        for frame in frames[:-1]:
            net.video.push(frame)
    return net.video.push(frames[-1])


CASES = [
    ModelCase(
        "strided_transformer",
        make=network,
        inputs=inputs,
        batches=(1, 8, 64),
        flops=lambda batch: 2.0 * MULTIPLY_ADDS * batch,
        training_batch=64,
        dtypes=(torch.bfloat16,),
    ),
    ModelCase(
        "strided_refine",
        make=lambda: create("strided_refine"),
        inputs=lambda batch: tuple(torch.randn(2, batch, 1, 17, 3, generator=torch.Generator().manual_seed(0))),
        batches=(1, 64, 256),
        flops=lambda batch: 2.0 * REFINE * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks",
    ),
    ModelCase(
        "strided_transformer stream",
        make=network,
        inputs=lambda _: (inputs(1)[0][0, :4],),
        batches=(1,),
        flops=lambda _: 2.0 * MULTIPLY_ADDS,
        run=push,
        unit="frame",
    ),
]
