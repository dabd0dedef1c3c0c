"""The CUDA C++ kernels of ``sample_hypotheses``: csrc/sample_hypotheses/sample_hypotheses_cuda.cu."""

from __future__ import annotations

from torch import Tensor

from ..._adapters import addresses
from ..._cuda import launch


def sample_hypotheses(keypoints, sigma, samples, alpha, seed, first_pose, first_sample) -> Tensor:
    """As ``reference.sample_hypotheses``."""
    B, V, J = sigma.shape
    keypoints, sigma = keypoints.contiguous(), sigma.contiguous()
    y = keypoints.new_empty(B, samples, V, J, 2)
    if y.numel():
        options = (B, samples, 2 * V * J, alpha, seed, first_pose, first_sample)
        launch("sample_hypotheses_cuda", keypoints, *addresses(keypoints, sigma, y), *options)
    return y
