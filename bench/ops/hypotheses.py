"""Sampling, merging, scoring and aligning hypotheses: one picture and 512 pictures, 200 hypotheses each."""

from __future__ import annotations

import torch

from bench.cases import OpCase
from posekernels.ops import best_hypothesis, merge_hypotheses, procrustes_error, sample_hypotheses
from posekernels.pose.skeleton import H36M_17

J = 17
PHILOX = 10 * 2 * 6 + 60  # integer and float operations per four numbers, about


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
        **extra,
    )


CASES = [
    sample(1, 200, quick=True),
    sample(512, 200),
    merge(512, 200),
    best(512, 200),
    align(500, 200),
    align(7, 13, quick=True),
]
