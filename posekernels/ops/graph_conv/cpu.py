"""``graph_conv`` in C++: the adapters between tensors and ``csrc/graph_conv/graph_conv_cpu.cpp``. Float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import address
from ..._dispatch import not_on
from ..._native import core
from ..._packing import packed

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}  # gemm.h, Activation
MAX_MATRICES = 16


def refuses(x: Tensor, weight: Tensor, *tensors) -> str | None:
    """Why the C++ kernels cannot take a call's tensors, or None. All have one dtype: the public function sees to it."""
    if x.dtype is not torch.float32:
        return f"takes float32, got {x.dtype}"
    if weight.shape[0] > MAX_MATRICES:
        return f"takes up to {MAX_MATRICES} matrices, got {weight.shape[0]}"
    return not_on("cpu", x, weight, *(t for t in tensors if isinstance(t, Tensor)))


def refuses_backward(grad: Tensor, h: Tensor, *args) -> str | None:
    """Why the C++ kernels cannot take a call of the gradient, or None."""
    return refuses(*args)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def graph_conv(
    x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep
) -> tuple[Tensor, Tensor]:
    """As ``reference.graph_conv``."""
    B, J, Cin = x.shape
    K, _, Cout = weight.shape
    x, adjacency, bias, modulation = x.contiguous(), adjacency.contiguous(), _contiguous(bias), _contiguous(modulation)
    scale, shift, residual = _contiguous(scale), _contiguous(shift), _contiguous(residual)
    panels = packed(weight)
    y = x.new_empty(B, J, Cout)
    h = torch.empty_like(y) if keep else x.new_empty(0)
    core.graph_conv_forward(
        torch.get_num_threads(),
        x.data_ptr(),
        panels.data_ptr(),
        adjacency.data_ptr(),
        address(bias),
        address(modulation),
        address(scale),
        address(shift),
        address(residual),
        y.data_ptr(),
        h.data_ptr() if keep else None,
        *(B, J, Cin, Cout, K),
        ACTIVATIONS[activation],
    )
    return y, h


def graph_conv_backward(
    grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs
) -> list[Tensor]:
    """As ``reference.graph_conv_backward``."""
    B, J, Cin = x.shape
    K, _, Cout = weight.shape
    inputs = (x, weight, adjacency, bias, modulation, scale, shift)
    gradients = [
        torch.empty_like(t, memory_format=torch.contiguous_format) if n else None
        for t, n in zip(inputs, needs, strict=True)
    ]
    grad, h, x, adjacency = grad.contiguous(), h.contiguous(), x.contiguous(), adjacency.contiguous()
    modulation, scale, shift = _contiguous(modulation), _contiguous(scale), _contiguous(shift)
    panels, transposes = packed(weight), packed(weight, transposed=True) if needs[0] else None
    core.graph_conv_backward(
        torch.get_num_threads(),
        grad.data_ptr(),
        h.data_ptr() if h.numel() else None,
        x.data_ptr(),
        panels.data_ptr(),
        address(transposes),
        adjacency.data_ptr(),
        address(modulation),
        address(scale),
        address(shift),
        *map(address, gradients),
        *(B, J, Cin, Cout, K),
        ACTIVATIONS[activation],
    )
    return [g for g in gradients if g is not None]
