"""The definition of ``sample_hypotheses``: plain differentiable PyTorch, any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._philox import normals

WORDS = 4  # numbers that one counter gives


def noise(shape: tuple[int, int, int, int], seed: int, first_pose: int, first_sample: int, device) -> Tensor:
    """[B, S, V, J, 2] standard normals, float64, for shape (B, S, V, J).

    The number for view v, joint j, coordinate i is number e % 4 of the counter (e // 4, sample, pose, pose >> 32),
    e = (v J + j) 2 + i: a function of the seed and of what it is for, not of how the batch was cut.
    """
    B, S, V, J = shape
    blocks = torch.arange(-(-2 * V * J // WORDS), device=device)
    samples = first_sample + torch.arange(S, device=device)[:, None]
    poses = first_pose + torch.arange(B, device=device)[:, None, None]
    numbers = normals((blocks, samples, poses & 0xFFFFFFFF, poses >> 32), seed)  # [B, S, blocks, 4]
    return numbers.flatten(2)[..., : 2 * V * J].reshape(B, S, V, J, 2)


def sample_hypotheses(
    keypoints: Tensor, sigma: Tensor, samples: int, alpha: float, seed: int, first_pose: int, first_sample: int
) -> Tensor:
    """[B, S, V, J, 2]: keypoints [B, V, J, 2] + alpha max(sigma [B, V, J], 1) noise."""
    B, V, J = sigma.shape
    eps = noise((B, samples, V, J), seed, first_pose, first_sample, keypoints.device).to(keypoints.dtype)
    spread = alpha * sigma.clamp(min=1)
    return (keypoints[:, None] + spread[:, None, ..., None] * eps).contiguous()
