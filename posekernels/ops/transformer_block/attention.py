"""The op that takes so many tokens: shared by ``transformer_block`` on a GPU and by networks in training."""

from __future__ import annotations

from torch import Tensor

from ..joint_attention import MAX_HEAD, MAX_TOKENS, joint_attention
from ..temporal_attention import temporal_attention


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, backend: str | None = None) -> Tensor:
    """softmax(q k' scale) v for [B, N, H, D], by ``joint_attention`` or, for many tokens, ``temporal_attention``."""
    few = q.shape[1] <= MAX_TOKENS and q.shape[3] <= MAX_HEAD
    return (joint_attention if few else temporal_attention)(q, k, v, scale=scale, backend=backend)
