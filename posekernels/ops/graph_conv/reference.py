"""The definition of ``graph_conv``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._recompute import gradients

ACTIVATIONS = {"none": lambda h: h, "relu": F.relu, "gelu": F.gelu}


def linear(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None, modulation: Tensor | None) -> Tensor:
    """[B, J, Cout]: everything before the epilogue, sum_k A_k (M * (x W_k)) + bias."""
    product = torch.einsum("bjc,kcd->bkjd", x, weight)
    if modulation is not None:
        product = product * modulation
    mixed = torch.einsum("kij,bkjd->bid", adjacency, product)
    return mixed if bias is None else mixed + bias


def epilogue(h: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    """[B, J, Cout]: act(scale * h + shift) + residual."""
    if scale is not None:
        h = h * scale
    if shift is not None:
        h = h + shift
    h = ACTIVATIONS[activation](h)
    return h if residual is None else h + residual


def graph_conv(
    x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep
) -> tuple[Tensor, Tensor]:
    """([B, J, Cout], the value before the epilogue, or an empty tensor unless ``keep``)."""
    h = linear(x, weight, adjacency, bias, modulation)
    y = epilogue(h, scale, shift, residual, activation).contiguous()
    return y, h.contiguous() if keep else h.new_empty(0)


def graph_conv_backward(
    grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs
) -> list[Tensor]:
    """Gradients of (x, weight, adjacency, bias, modulation, scale, shift), those that ``needs`` asks for, in order."""
    tensors = (x, weight, adjacency, bias, modulation, scale, shift)
    return gradients(lambda *t: graph_conv(*t, None, activation, False)[0], tensors, (grad,), needs)
