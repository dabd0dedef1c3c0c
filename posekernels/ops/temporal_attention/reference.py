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


def softmax(s: Tensor) -> tuple[Tensor, Tensor]:
    """(weights [B, H, T, S], log of their sum [B, H, T]); a query without a key has weights of 0 and a log of -inf."""
    log_sum = s.logsumexp(-1)
    nothing = (log_sum == -torch.inf)[..., None]
    # Not exp(s - log_sum): where scores are large the log has few digits behind the point, and all weights would share
    # its error.
    return s.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0), log_sum


def temporal_attention(q, k, v, padding, scale, causal, rate, seed) -> tuple[Tensor, Tensor]:
    """(out [B, T, H, D], log-sum-exp of the scores [B, H, T])."""
    weights, log_sum = softmax(scores(q, k, padding, scale, causal))
    out = torch.einsum("bhts,bshd->bthd", dropout(weights, rate, seed), v)
    return out.contiguous(), log_sum


def in_plain_sight(q, k, v, padding, scale, causal, rate, seed) -> tuple[Tensor, Tensor | None]:
    """What a call of the op runs where nothing is kept for a backward pass of ours: without the log-sum-exp."""
    if padding is None and not causal and not rate:
        return attend(q, k, v, scale), None
    return temporal_attention(q, k, v, padding, scale, causal, rate, seed)


def temporal_attention_backward(grad, out, log_sum, q, k, v, padding, scale, causal, rate, seed) -> list[Tensor]:
    """Gradients of (q, k, v)."""
    options = padding, scale, causal, rate, seed
    return gradients(lambda *qkv: temporal_attention(*qkv, *options)[0], (q, k, v), (grad,))
