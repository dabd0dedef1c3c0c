"""The definition of ``strided_temporal_conv``: plain differentiable PyTorch, one group at a time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..._recompute import gradients


def width_of(weight: Tensor) -> int:
    """Frames under the filter; [Co, Ci] is a filter of one frame."""
    return weight.shape[2] if weight.dim() == 3 else 1


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[B, T, Ci] -> [B, T // w, Co]: a product over non-overlapping windows."""
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    windows = x.unflatten(1, (-1, weight.shape[2])).flatten(2)  # [B, T // w, w * Ci]
    return F.linear(windows, weight.permute(0, 2, 1).flatten(1), bias)


def epilogue(y: Tensor, scale, shift, residual, slope: float, stride: int, tap: int) -> Tensor:
    """lrelu(scale * y + shift) + residual[:, tap::stride]."""
    if scale is not None:
        y = y * scale
    if shift is not None:
        y = y + shift
    if slope != 1:
        y = F.leaky_relu(y, slope)
    return y if residual is None else y + residual[:, tap::stride]


def at(values: list[Tensor], i: int) -> Tensor | None:
    """Group ``i`` of a list that is empty where there is nothing."""
    return values[i] if values else None


def strided_temporal_conv(x, weight, bias, scale, shift, residual, slope, stride, tap) -> list[Tensor]:
    """Every group; ``bias``, ``scale``, ``shift``, ``residual`` are lists, empty where there is none."""
    return [
        epilogue(
            convolution(x[i], weight[i], at(bias, i)), *(at(v, i) for v in (scale, shift, residual)), slope, stride, tap
        ).contiguous()
        for i in range(len(x))
    ]


def strided_temporal_conv_backward(grads, x, weight, bias, needs) -> list[Tensor]:
    """Gradients of the bare convolution: those of (x, weight, bias) that ``needs`` asks for, group after group."""
    groups = zip(grads, x, weight, bias or [None] * len(x))
    return [g for grad, *inputs in groups for g in gradients(convolution, inputs, (grad,), [*needs, False][:3])]
