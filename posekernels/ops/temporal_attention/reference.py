"""The definition of ``temporal_attention``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._attention import attend
from ..._dropout import dropout
from ..._recompute import gradients


def scores(q: Tensor, k: Tensor, padding: Tensor | None, scale: float, causal: bool) -> Tensor:
    """[B, H, T, S]: scaled products, -inf where a key may not be looked at."""
    s = torch.einsum("bthd,bshd->bhts", q, k) * scale
    T, S = s.shape[-2:]
    if causal:  # the last query sees every key
        future = torch.ones(T, S, dtype=torch.bool, device=s.device).triu(1 + S - T)
        s = s.masked_fill(future, -torch.inf)
    if padding is not None:
        s = s.masked_fill(padding[:, None, None], -torch.inf)
    return s


def softmax(s: Tensor) -> Tensor:
    """[B, H, T, S] weights; 0 for a query without a key."""
    nothing = (s == -torch.inf).all(-1, keepdim=True)
    return s.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)


def peaks(s: Tensor, scale: float) -> Tensor:
    """[B, H, T, 2] of the scores: the largest, without the size of the scale, and the sum of exp(score - largest).

    From these a backward pass has the weights again with all their digits; the logarithm of a sum of exponentials has
    few behind the point where scores are large. 0, 0 for a query without a key.
    """
    top = s.amax(-1)
    nothing = top == -torch.inf
    total = (s - top.masked_fill(nothing, 0)[..., None]).exp().sum(-1)
    return torch.stack((top.masked_fill(nothing, 0) / (abs(scale) or 1), total), -1)


def temporal_attention(q, k, v, padding, scale, causal, rate, seed) -> tuple[Tensor, Tensor]:
    """(out [B, T, H, D], ``peaks`` of its scores [B, H, T, 2], float32 of 16 bits)."""
    s = scores(q, k, padding, scale, causal)
    out = torch.einsum("bhts,bshd->bthd", dropout(softmax(s), rate, seed), v)
    wide = s.detach().to(torch.promote_types(s.dtype, torch.float32))
    return out.contiguous(), peaks(wide, scale)


def in_plain_sight(q, k, v, padding, scale, causal, rate, seed) -> tuple[Tensor, Tensor | None]:
    """What a call of the op runs where nothing is kept for a backward pass of ours: without the peaks."""
    if padding is None and not causal and not rate:
        return attend(q, k, v, scale), None
    return temporal_attention(q, k, v, padding, scale, causal, rate, seed)


def temporal_attention_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed) -> list[Tensor]:
    """Gradients of (q, k, v)."""
    options = padding, scale, causal, rate, seed
    return gradients(lambda *qkv: temporal_attention(*qkv, *options)[0], (q, k, v), (grad,))
