"""The definition of ``joint_attention``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._attention import attend
from ..._recompute import gradients


def joint_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """[B, N, H, D]: softmax(q kᵀ scale) v for every head; ``mask`` is [B, N, N]."""
    if mask is None:
        return attend(q, k, v, scale)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * scale
    scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(~mask[:, None], 0)  # a query that may attend to nothing receives 0
    return torch.einsum("bhnm,bmhd->bnhd", weights, v).contiguous()


def joint_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (q, k, v)."""
    return tuple(gradients(lambda *qkv: joint_attention(*qkv, mask, scale), (q, k, v), (grad,)))
