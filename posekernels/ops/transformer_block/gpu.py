"""``transformer_block`` on a GPU, whichever kernels run it. Rows stay where they lie: nothing is copied to attend."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention

# (x, weight, bias, eps, residual or None, where to put the norm or None) -> (norm(x + residual), x + residual or None)
Norm = Callable[[Tensor, Tensor, Tensor, float, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]]


def transformer_block(
    x: Tensor, weights: list[Tensor | None], heads: int, scale: float, eps: float, backend: str, norm: Norm
) -> Tensor:
    """As ``reference.transformer_block``; the result lies in memory as ``torch.empty_like(x)`` does.

    Args:
        backend: of the attention.
        norm: layer norm of rows, [R, C].
    """
    gain1, shift1, qkv, qkv_bias, proj, proj_bias, gain2, shift2, fc1, fc1_bias, fc2, fc2_bias, gain3, shift3 = weights
    y = torch.empty_like(x)
    order = (*sorted(range(x.dim() - 1), key=y.stride, reverse=True), x.dim() - 1)
    if not y.permute(order).is_contiguous():  # channels are not the innermost axis
        return y.copy_(transformer_block(x.contiguous(), weights, heads, scale, eps, backend, norm))
    if x.numel() == 0:
        return y
    # In memory: batch, the N tokens of a group, then groups that lie inside a token, as joints do where frames attend.
    at, C = order.index(x.dim() - 2), x.shape[-1]
    sizes = [x.shape[axis] for axis in order]
    inside = torch.Size(sizes[at + 1 : -1]).numel()
    tokens = (-1, sizes[at], inside * heads, C // heads)
    rows, out = x.permute(order).reshape(-1, C).contiguous(), y.permute(order).view(-1, C)  # views where x is dense
    h, _ = norm(rows, gain1, shift1, eps, None, None)
    if inside == 1:
        q, k, v = F.linear(h, qkv, qkv_bias).view(-1, sizes[at], 3, heads, C // heads).unbind(2)
    else:  # projected apart, (group, head) is one axis with one stride, and attention writes rows in their order
        biases = (None,) * 3 if qkv_bias is None else qkv_bias.chunk(3)
        q, k, v = (F.linear(h, w, b).view(tokens) for w, b in zip(qkv.chunk(3), biases))
    mixed = attention(q, k, v, scale=scale, backend=backend).view(-1, C)
    h, rows = norm(F.linear(mixed, proj, proj_bias), gain2, shift2, eps, rows, None)
    h = torch.ops.aten.gelu_(F.linear(h, fc1, fc1_bias))
    h = F.linear(h, fc2, fc2_bias)
    if gain3 is None:
        torch.add(rows, h, out=out)
    else:
        norm(h, gain3, shift3, eps, rows, out)
    return y
