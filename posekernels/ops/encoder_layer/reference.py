"""The definition of ``encoder_layer``, in terms of the ops it is made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..._dropout import Seed
from ..annotated_norm import annotated_norm
from ..strided_feed_forward import strided_feed_forward
from ..temporal_attention import temporal_attention


def encoder_layer(
    z: Tensor,
    position: Tensor | None,
    parameters: list[Tensor],
    heads: int,
    stride: int,
    eps: float,
    rate: float = 0.0,
    seed: Seed = 0,
    backend: str = "reference",
) -> Tensor:
    """[B, T, C] -> [B, T', C]; ``parameters`` in the order of ``PARAMETERS``. Dropout takes seeds seed to seed + 2."""
    scale1, shift1, wq, bq, wk, bk, wv, bv, wo, bo, scale2, shift2, w1, b1, w2, b2 = parameters
    if position is not None:
        z = z + position[: z.shape[1]]
    u = annotated_norm(z, scale1, shift1, eps=eps, backend=backend)
    q, k, v = (F.linear(u, w, b).unflatten(-1, (heads, -1)) for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    mixed = temporal_attention(q, k, v, dropout=rate, seed=seed, backend=backend).flatten(2)
    branch = F.linear(mixed, wo, bo)
    u, z = annotated_norm(branch, scale2, shift2, z, eps=eps, dropout=rate, seed=seed + 1, backend=backend)
    return strided_feed_forward(
        u, w1, b1, w2, b2, z, stride=stride, hidden_dropout=rate, dropout=rate, seed=seed + 2, backend=backend
    )
