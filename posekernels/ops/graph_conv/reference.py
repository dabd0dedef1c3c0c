"""The definition of ``graph_conv``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Gradients of (x, weight, adjacency, bias, modulation, scale, shift), those that ``needs`` asks for, in order.

    Written out rather than left to autograd, which does not run below a dispatch mode (a FLOP counter, say).
    """
    if h.numel() == 0 and (activation != "none" or scale is not None):
        h = linear(x, weight, adjacency, bias, modulation)
    z = h if scale is None else h * scale
    z = z if shift is None else z + shift
    if activation == "relu":
        grad = grad.masked_fill(z <= 0, 0)  # keeps what comes past a NaN, as PyTorch does
    elif activation == "gelu":
        grad = torch.ops.aten.gelu_backward(grad, z)
    found = {6: lambda: grad.sum((0, 1)), 5: lambda: (grad * h).sum((0, 1))}
    dh = grad if scale is None else grad * scale
    found[3] = lambda: dh.sum((0, 1))
    dmodulated = torch.einsum("kij,bid->bkjd", adjacency, dh)
    dproduct = dmodulated if modulation is None else dmodulated * modulation
    found[0] = lambda: torch.einsum("bkjd,kcd->bjc", dproduct, weight)
    found[1] = lambda: torch.einsum("bjc,bkjd->kcd", x, dproduct)
    if needs[2] or needs[4]:
        product = torch.einsum("bjc,kcd->bkjd", x, weight)
        modulated = product if modulation is None else product * modulation
        found[2] = lambda: torch.einsum("bid,bkjd->kij", dh, modulated)
        found[4] = lambda: (dmodulated * product).sum((0, 1))
    return [found[i]().contiguous() for i, need in enumerate(needs) if need]
