"""``strided_temporal_conv`` in C++: one task list for all groups; the weights packed once per tensor."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from ..._derived import derived
from ..._native import core
from ..._packing import packed
from .reference import width_of


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
        vectors = [values[i] if values else None for values in (bias, scale, shift)]
        if half:
            vectors = [None if v is None else derived("float32", v.float, v) for v in vectors]
        add = residual[i].contiguous() if residual else None
        sums = torch.empty(rows, N) if half else None
        tensors = (a, panels, *vectors, add, y, sums)
        table.extend(0 if t is None else t.data_ptr() for t in tensors)
        table.append(a.shape[2] * width)
        table.append(N)
        alive.append(tensors)
        results.append(y)
    run = core.strided_temporal_conv_bf16 if half else core.strided_temporal_conv
    run(torch.get_num_threads(), table.buffer_info()[0], len(weight), rows, slope, stride, tap)
    return results


def strided_temporal_conv_backward(grads, x, weight, bias, needs) -> list[Tensor]:
    """PyTorch's own products, as they are what all of it costs; nothing of the forward pass is computed again."""
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
