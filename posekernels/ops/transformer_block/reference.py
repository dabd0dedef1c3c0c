"""The definition of ``transformer_block``: plain differentiable PyTorch, any device."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..._attention import attend


def transformer_block(x: Tensor, weights: list[Tensor | None], heads: int, scale: float, eps: float) -> Tensor:
    """[..., N, C] -> [..., N, C]; ``weights`` in the order of ``PARAMETERS``."""
    (gain1, shift1, qkv, qkv_bias, proj, proj_bias, gain2, shift2, fc1, fc1_bias, fc2, fc2_bias, gain3, shift3) = (
        weights
    )
    width = x.shape[-1:]
    h = F.linear(F.layer_norm(x, width, gain1, shift1, eps), qkv, qkv_bias)
    q, k, v = h.unflatten(-1, (3, heads, -1)).movedim(-3, 0)  # each [..., N, H, C/H]
    x = x + F.linear(attend(q, k, v, scale).flatten(-2), proj, proj_bias)
    h = F.gelu(F.linear(F.layer_norm(x, width, gain2, shift2, eps), fc1, fc1_bias))
    x = x + F.linear(h, fc2, fc2_bias)
    return x if gain3 is None else F.layer_norm(x, width, gain3, shift3, eps)
