"""``strided_temporal_conv`` in C++: one task list for all groups; the weights packed once per tensor."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from ..._adapters import contiguous, table_of
from ..._native import core
from ..._packing import packed
from ...prepared import derived
from .._cpu import not_float32
from .products import strided_temporal_conv_backward as strided_temporal_conv_backward
from .reference import at, width_of


def refuses(x, *_rest) -> str | None:
    if len(x) > 64:
        return f"takes at most 64 groups, got {len(x)}"
    return not_float32(*x, or_bfloat16=True)


def refuses_backward(grads, x, *_rest) -> str | None:
    return refuses(x)


def _windows_by_channels(weight: Tensor) -> Tensor:
    """[Co, Ci, w] -> [w * Ci, Co]: the matrix that windows of frames are multiplied by."""
    return weight.permute(2, 1, 0).reshape(-1, weight.shape[0]) if weight.dim() == 3 else weight.T


def strided_temporal_conv(x, weight, bias, scale, shift, residual, slope, stride, tap) -> list[Tensor]:
    half = x[0].dtype is torch.bfloat16
    width = width_of(weight[0])
    B, T, _ = x[0].shape
    rows = B * (T // width)
    results, table, alive = [], array("q"), []
    for i, w in enumerate(weight):
        N = w.shape[0]
        a = x[i].contiguous()
        y = a.new_empty(B, T // width, N)
        panels = packed(w, dtype=a.dtype, arrange=_windows_by_channels)
        *vectors, add = contiguous(*(at(values, i) for values in (bias, scale, shift, residual)))
        if half:
            vectors = [None if v is None else derived("float32", v.float, v) for v in vectors]
        sums = a.new_empty(rows, N, dtype=torch.float32) if half else None
        tensors = (a, panels, *vectors, add, y, sums)
        table.extend(table_of(tensors))
        table.append(a.shape[2] * width)
        table.append(N)
        alive.append(tensors)
        results.append(y)
    run = core.strided_temporal_conv_bf16 if half else core.strided_temporal_conv
    run(torch.get_num_threads(), table.buffer_info()[0], len(weight), rows, slope, stride, tap)
    return results
