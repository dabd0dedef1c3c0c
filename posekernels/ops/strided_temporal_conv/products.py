"""The backward pass of ``strided_temporal_conv`` on every backend but Triton: PyTorch's own products.

They are plain matrix products over the same windows, and nothing of the forward pass is computed again.
"""

from __future__ import annotations

from torch import Tensor

from .reference import width_of


def strided_temporal_conv_backward(grads, x, weight, bias, needs) -> list[Tensor]:
    """As ``reference.strided_temporal_conv_backward``."""
    results = []
    for grad, a, w in zip(grads, x, weight):
        width = width_of(w)
        rows, grad = a.reshape(-1, width * a.shape[2]), grad.flatten(0, 1)  # the windows; their results
        matrix = w.permute(0, 2, 1).reshape(w.shape[0], -1) if w.dim() == 3 else w  # [Co, w * Ci]
        if needs[0]:
            results.append((grad @ matrix).view_as(a))
        if needs[1]:
            found = grad.T @ rows
            if w.dim() == 3:
                found = found.view(w.shape[0], width, w.shape[1]).permute(0, 2, 1).contiguous()
            results.append(found)
        if bias and needs[2]:
            results.append(grad.sum(0))
    return results
