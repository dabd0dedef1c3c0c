"""Sampling, merging, scoring and aligning hypotheses: one picture and 512 pictures, 200 hypotheses each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.cases import OpCase
from bench.peers import Unavailable
from posekernels.ops import best_hypothesis, merge_hypotheses, procrustes_error, sample_hypotheses
from posekernels.pose.skeleton import H36M_17

J = 17
PHILOX = 10 * 2 * 6 + 60  # integer and float operations per four numbers, about


def torch_randn(i: dict[str, Tensor], S: int) -> Tensor:
    """Noise as a user of PyTorch draws it: its own generator, a product and a sum."""
    x, spread = i["x"], 0.005 * i["sigma"].clamp(min=1)
    return torch.randn(len(x), S, *x.shape[1:]).mul_(spread[:, None, ..., None]).add_(x[:, None])


def numpy_svd(i: dict[str, Tensor]) -> Tensor:
    """[B, S]: aligned errors, one NumPy SVD per picture's hypotheses, in float64 as the published program has it."""
    if i["poses"].requires_grad:
        raise Unavailable("NumPy has no gradients")
    errors = []
    for poses, target in zip(i["poses"].double().numpy(), i["target"].double().numpy()):
        x = np.broadcast_to(target, poses.shape)
        mean_x, mean_y = x.mean(1, keepdims=True), poses.mean(1, keepdims=True)
        x0, y0 = x - mean_x, poses - mean_y
        norm_x, norm_y = (np.sqrt((a**2).sum((1, 2), keepdims=True)) for a in (x0, y0))
        u, s, vt = np.linalg.svd((x0 / norm_x).transpose(0, 2, 1) @ (y0 / norm_y))
        v = vt.transpose(0, 2, 1)
        sign = np.sign(np.linalg.det(v @ u.transpose(0, 2, 1)))
        v[:, :, -1] *= sign[:, None]
        s[:, -1] *= sign
        scale = s.sum(1)[:, None, None] * norm_x / norm_y
        aligned = scale * (y0 @ (v @ u.transpose(0, 2, 1))) + mean_x
        errors.append(np.linalg.norm(aligned - x, axis=-1).mean(-1))
    return torch.from_numpy(np.stack(errors)).to(i["poses"])


def sample(B: int, S: int, **extra) -> OpCase:
    def make():
        g = torch.Generator().manual_seed(0)
        return {"x": torch.rand(B, 2, J, 2, generator=g), "sigma": 2 * torch.rand(B, 2, J, generator=g)}

    def call(i, backend):
        return sample_hypotheses(i["x"], i["sigma"], S, alpha=0.005, seed=1, backend=backend)

    return OpCase(
        "sample_hypotheses",
        f"B={B} S={S}",
        make,
        call,
        B * S * J * PHILOX,
        lambda size: B * S * 4 * J * size,
        ("x", "sigma"),
        {"torch.randn": lambda i: torch_randn(i, S)},
        unchecked=("torch.randn",),
        compiles=False,
        **extra,
    )


def merge(B: int, S: int, **extra) -> OpCase:
    def make():
        return {"poses": torch.randn(B, S, 2, J, 3, generator=torch.Generator().manual_seed(0))}

    def call(i, backend):
        return merge_hypotheses(i["poses"], H36M_17.mirrored, backend=backend)

    count = B * S * J * 3
    return OpCase(
        "merge_hypotheses", f"B={B} S={S}", make, call, 2 * count, lambda size: 3 * count * size, ("poses",), **extra
    )


def _poses(B: int, S: int):
    g = torch.Generator().manual_seed(0)
    return {"poses": torch.randn(B, S, J, 3, generator=g), "target": torch.randn(B, J, 3, generator=g)}


def best(B: int, S: int, **extra) -> OpCase:
    return OpCase(
        "best_hypothesis",
        f"B={B} S={S}",
        lambda: _poses(B, S),
        lambda i, backend: best_hypothesis(i["poses"], i["target"], backend=backend).error,
        10 * B * S * J,
        lambda size: B * (S + 1) * J * 3 * size,
        ("poses", "target"),
        **extra,
    )


def align(B: int, S: int, **extra) -> OpCase:
    return OpCase(
        "procrustes",
        f"B={B} S={S}",
        lambda: _poses(B, S),
        lambda i, backend: procrustes_error(i["poses"], i["target"][:, None], backend=backend),
        B * S * (60 * J + 2000),
        lambda size: B * (S + 1) * J * 3 * size,
        ("poses", "target"),
        {"numpy svd": numpy_svd},
        **extra,
    )


CASES = [
    sample(1, 200, quick=True),
    sample(512, 200),
    sample(7, 13),
    merge(1, 200, quick=True),
    merge(512, 200),
    merge(7, 13),
    best(1, 200, quick=True),
    best(512, 200),
    best(7, 13),
    align(1, 200),
    align(500, 200),
    align(7, 13, quick=True),
]
