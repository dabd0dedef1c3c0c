"""``relative_encoding`` in C++."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from ..._adapters import address, table_of
from ..._native import core
from .._cpu import not_float32


def refuses(x, *_rest) -> str | None:
    return not_float32(x, or_bfloat16=True)


def refuses_backward(grads, x, *_rest) -> str | None:
    return not_float32(x)


def _numbers(values) -> tuple[array, int]:
    """64-bit numbers where C++ can read them; keep the array while its address is in use."""
    numbers = array("q", values)
    return numbers, numbers.buffer_info()[0]


def relative_encoding(x: Tensor, joints: list[int], sizes: list[int]) -> list[Tensor]:
    B, T, J, F = x.shape
    x = x.contiguous()
    parts = [x.new_empty(B, T, 3 * F * size) for size in sizes]
    (_a, places), (_j, order), (_s, counts) = map(_numbers, (table_of(parts), joints, sizes))
    kernel = core.relative_encoding_bf16 if x.dtype is torch.bfloat16 else core.relative_encoding
    kernel(torch.get_num_threads(), address(x), places, order, counts, len(sizes), B, T, J, F)
    return parts


def relative_encoding_backward(grads: list[Tensor], x: Tensor, joints: list[int], sizes: list[int]) -> Tensor:
    B, T, J, F = x.shape
    grads = [g.contiguous() for g in grads]
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    (_a, places), (_j, order), (_s, counts) = map(_numbers, (table_of(grads), joints, sizes))
    threads = torch.get_num_threads()
    core.relative_encoding_backward(threads, places, order, counts, address(grad_x), len(sizes), B, T, J, F)
    return grad_x
