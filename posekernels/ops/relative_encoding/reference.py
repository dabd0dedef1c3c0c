"""The definition of ``relative_encoding``: plain differentiable PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._recompute import gradients
from ..._tables import table


def relative_encoding(x: Tensor, joints: list[int], sizes: list[int]) -> list[Tensor]:
    """[B, T, J, F] -> one [B, T, 3 * F * size] per part: raw, minus the root, minus the middle frame."""
    encodings = (x, x - x[:, :, :1], x - x[:, x.shape[1] // 2, None])
    parts, first = [], 0
    for size in sizes:
        part = table(joints[first : first + size], x.device)
        parts.append(torch.cat([encoding.index_select(2, part).flatten(2) for encoding in encodings], dim=-1))
        first += size
    return parts


def relative_encoding_backward(grads: list[Tensor], x: Tensor, joints: list[int], sizes: list[int]) -> Tensor:
    """The gradient of ``x``."""
    return gradients(lambda x: relative_encoding(x, joints, sizes), (x,), grads)[0]
