"""``graph_conv`` in C++: the adapters between tensors and ``csrc/graph_conv/graph_conv_cpu.cpp``.

16 bits are computed in float32, and rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, wide
from ..._native import core
from ..._packing import packed
from .._cpu import not_narrow

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}  # gemm.h, Activation
MAX_MATRICES = 16


def refuses(x: Tensor, weight: Tensor, *tensors) -> str | None:
    """Why the C++ kernels cannot take a call's tensors, or None. All have one dtype: the public function sees to it."""
    if weight.shape[0] > MAX_MATRICES:
        return f"takes up to {MAX_MATRICES} matrices, got {weight.shape[0]}"
    return not_narrow(x, weight, *(t for t in tensors if isinstance(t, Tensor)))


def refuses_backward(grad: Tensor, h: Tensor, *args) -> str | None:
    """Why the C++ kernels cannot take a call of the gradient, or None."""
    return refuses(*args)


def graph_conv(
    x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep
) -> tuple[Tensor, Tensor]:
    """As ``reference.graph_conv``."""
    B, J, Cin = x.shape
    K, _, Cout = weight.shape
    dtype, (x, *others) = x.dtype, wide(x, adjacency, bias, modulation, scale, shift, residual)
    panels = packed(weight)
    y = x.new_empty(B, J, Cout)
    h = torch.empty_like(y) if keep else x.new_empty(0)
    core.graph_conv_forward(
        torch.get_num_threads(),
        *addresses(x, panels, *others, y, h if keep else None),
        *(B, J, Cin, Cout, K),
        ACTIVATIONS[activation],
    )
    return y.to(dtype), h.to(dtype)


def graph_conv_backward(
    grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs
) -> list[Tensor]:
    """As ``reference.graph_conv_backward``."""
    B, J, Cin = x.shape
    K, _, Cout = weight.shape
    inputs = (x, weight, adjacency, bias, modulation, scale, shift)
    dtype = x.dtype
    grad, h, x, *others = wide(grad, h if h.numel() else None, x, adjacency, modulation, scale, shift)
    gradients = [x.new_empty(t.shape) if n else None for t, n in zip(inputs, needs, strict=True)]
    panels, transposes = packed(weight), packed(weight, transposed=True) if needs[0] else None
    core.graph_conv_backward(
        torch.get_num_threads(),
        *addresses(grad, h, x, panels, transposes, *others, *gradients),
        *(B, J, Cin, Cout, K),
        ACTIVATIONS[activation],
    )
    return [g.to(dtype) for g in gradients if g is not None]
