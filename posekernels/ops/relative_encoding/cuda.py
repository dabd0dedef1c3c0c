"""``relative_encoding`` in CUDA C++ (csrc/relative_encoding/relative_encoding_cuda.cu): one launch for all parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, table_of
from ..._cuda import launch
from .cpu import _numbers


def relative_encoding(x: Tensor, joints: list[int], sizes: list[int]) -> list[Tensor]:
    """As ``reference.relative_encoding``."""
    B, T, J, F = x.shape
    x = x.contiguous()
    parts = [x.new_empty(B, T, 3 * F * size) for size in sizes]
    (_a, table), (_j, order), (_s, counts) = map(_numbers, (table_of(parts), joints, sizes))
    if x.numel():
        launch("relative_encoding_cuda", x, *addresses(x), table, order, counts, len(sizes), B, T, J, F)
    return parts


def relative_encoding_backward(grads: list[Tensor], x: Tensor, joints: list[int], sizes: list[int]) -> Tensor:
    """As ``reference.relative_encoding_backward``."""
    B, T, J, F = x.shape
    grads = [g.contiguous() for g in grads]
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    (_a, table), (_j, order), (_s, counts) = map(_numbers, (table_of(grads), joints, sizes))
    if x.numel():
        launch("relative_encoding_backward_cuda", x, table, order, counts, *addresses(grad_x), len(sizes), B, T, J, F)
    return grad_x
