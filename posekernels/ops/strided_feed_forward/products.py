"""The part of the GPU backends' backward pass that gathers nothing: products of PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gradients(grad, grad_hidden, hidden, x, weight1, taps: int, stride: int, needs) -> list[Tensor]:
    """Gradients of (x, weight1, bias1, weight2, bias2), those that ``needs`` asks for, in order.

    Args:
        grad: [B, T', O] of the second layer's result. grad_hidden: [B, T, N] of the first's, before ReLU; may be None
            where none of the first three is needed.
        hidden, x: [B, T, N] and [B, T, C], as in forward.
    """
    results = []
    if needs[0]:
        results.append(grad_hidden @ weight1)
    if needs[1]:
        results.append(grad_hidden.flatten(0, 1).T @ x.flatten(0, 1))
    if needs[2]:
        results.append(grad_hidden.sum((0, 1), dtype=torch.float32).to(x.dtype))
    if needs[3]:
        padded, flat = F.pad(hidden, (0, 0, taps // 2, taps // 2)), grad.flatten(0, 1)
        last = stride * (grad.shape[1] - 1) + 1
        results.append(torch.stack([flat.T @ padded[:, k : k + last : stride].flatten(0, 1) for k in range(taps)], -1))
    if needs[4]:
        results.append(grad.sum((0, 1), dtype=torch.float32).to(x.dtype))
    return results
