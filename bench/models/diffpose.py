"""GCNdiff at one pose, a chunk of 243 frames and 1024; 50 reverse steps in one call; the frame setting's GCNpose.

Beside the 50 steps stand the loops that a user would write round the network, in PyTorch and in ONNX Runtime.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from bench.cases import ModelCase
from posekernels.models import create
from posekernels.models.diffpose import Diffusion, Sampling
from posekernels.ops import denoise_loop

DENOISER, LIFTER = 12.998e6, 12.60e6  # multiply-adds per pose
STEPS = 50


def poses(batch: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch, 17, 5, generator=g), torch.full((batch,), 12)


def keypoints(batch: int) -> tuple[Tensor, ...]:
    return (torch.rand(batch, 17, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


@cache
def schedule(steps: int) -> tuple[list[int], Tensor]:
    return Diffusion(timesteps=max(51, steps)).coefficients(Sampling(steps=steps, limit=max(steps, STEPS)))


def chain(net, inputs, steps: int = STEPS) -> Tensor:
    """All steps in one call."""
    timesteps, coefficients = schedule(steps)
    (x,) = inputs
    return denoise_loop(x, net.prepared(), net.time_shifts(timesteps), coefficients.to(x))


def loop(step, x: Tensor, steps: int = STEPS) -> Tensor:
    """The same, one call of ``step`` (x, t) -> noise after the other."""
    timesteps, coefficients = schedule(steps)
    for t, (_, _, of_x, of_e, _) in zip(timesteps, coefficients.tolist()):
        x = of_x * x + of_e * step(x, torch.full((len(x),), t, device=x.device))
    return x


def exported(net, inputs, export):
    (x,) = inputs
    session = export((x, torch.full((len(x),), 12)))
    return lambda: loop(session, x)


CASES = [
    ModelCase(
        "gcndiff",
        make=lambda: create("gcndiff"),
        inputs=poses,
        batches=(1, 243, 1024),
        flops=lambda batch: 2 * DENOISER * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks",
    ),
    ModelCase(
        "gcndiff 50 steps",
        make=lambda: create("gcndiff"),
        inputs=lambda batch: (0.5 * poses(batch)[0],),
        batches=(1, 64, 1024),
        flops=lambda batch: 2 * DENOISER * batch * STEPS,
        run=chain,
        plain=lambda net, inputs: loop(net, *inputs),
        session=exported,
        checked=16,
    ),
    ModelCase(
        "gcnpose",
        make=lambda: create("gcnpose"),
        inputs=keypoints,
        batches=(1, 243, 1024),
        flops=lambda batch: 2 * LIFTER * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks",
    ),
]
