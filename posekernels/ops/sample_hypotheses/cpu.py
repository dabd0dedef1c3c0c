"""``sample_hypotheses`` in C++: ``csrc/sample_hypotheses/sample_hypotheses_cpu.cpp``."""

from __future__ import annotations

import torch

from ..._adapters import address, contiguous
from ..._native import core
from .._cpu import not_float32


def refuses(keypoints, sigma, *_):
    return not_float32(keypoints, sigma)


def sample_hypotheses(keypoints, sigma, samples, alpha, seed, first_pose, first_sample):
    B, V, J = sigma.shape
    keypoints, sigma = contiguous(keypoints, sigma)
    y = keypoints.new_empty(B, samples, V, J, 2)
    core.sample_hypotheses(
        torch.get_num_threads(),
        address(keypoints),
        2 * V * J,
        address(sigma),
        V * J,
        address(y),
        B,
        samples,
        2 * V * J,
        alpha,
        seed,
        first_pose,
        first_sample,
    )
    return y
