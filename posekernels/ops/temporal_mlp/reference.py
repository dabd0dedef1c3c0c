"""The definition of ``temporal_mlp``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._recompute import gradients

# The axes of [B, C, T] that the last norm of a block runs over, by its option's name.
NORM_AXES = {"spatial": (1,), "temporal": (2,), "all": (1, 2), "none": ()}


def normalise(x: Tensor, axes: tuple[int, ...], scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    """Layer norm with the biased variance; ``scale`` and ``shift`` must broadcast to ``x``."""
    variance, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + eps) * scale + shift


def blocks(x, weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift, mix, norm, eps) -> Tensor:
    """[B, C, T] through every block; see the public function for the arguments."""
    columns = {"spatial": (-1, 1), "temporal": (1, -1)}.get(norm)
    for n in range(weight.shape[0]):
        h = x
        if pre_weight is not None:
            y = F.linear(x, pre_weight[n], pre_bias[n])
            h = x + normalise(y, (2,), pre_scale[n], pre_shift[n], eps)
        if mix == "temporal":
            z = F.linear(h, weight[n], bias[n])
        else:
            z = F.linear(h.transpose(1, 2), weight[n], bias[n]).transpose(1, 2)
        if norm != "none":
            a, b = (scale[n], shift[n]) if columns is None else (scale[n].view(columns), shift[n].view(columns))
            z = normalise(z, NORM_AXES[norm], a, b, eps)
        x = x + z  # the block's input, not h: the first map reaches the result only through the second
    return x


def temporal_mlp(*args) -> tuple[Tensor, Tensor]:
    """([B, C, T], an empty tensor: the reference keeps nothing for the backward pass)."""
    *inputs, _keep = args
    y = blocks(*inputs)
    return y.contiguous() if y is not inputs[0] else y.clone(), y.new_empty(0)


def temporal_mlp_backward(grad, saved, *args) -> list[Tensor]:
    """Gradients of x and the eight parameters, those that ``needs`` (the last argument) asks for, in order."""
    *inputs, mix, norm, eps, needs = args
    return gradients(lambda *tensors: blocks(*tensors, mix, norm, eps), inputs, (grad,), needs)


def branch(h, stack, weight_out, bias_out, inverse, mix, norm, eps, run=blocks) -> Tensor:
    """[B, S, C]: state [B, C, T] through one stack and its output layer, the first S frames of the inverse."""
    y = run(h, *stack, mix, norm, eps).transpose(1, 2)
    return inverse @ F.linear(y, weight_out, bias_out)


def forecast(
    history, transform, inverse, weight_in, bias_in, main, weight_out, bias_out, side, side_weight_out, side_bias_out,
    mix, norm, eps, run=blocks,
) -> Tensor:  # fmt: skip
    """[B, S, C]; see the public function for the arguments. ``run`` is what takes the state through a stack."""
    h = F.linear(transform @ history, weight_in, bias_in).transpose(1, 2)
    future = branch(h, main, weight_out, bias_out, inverse, mix, norm, eps, run)
    if side:
        future = future + branch(h, side, side_weight_out, side_bias_out, inverse, mix, norm, eps, run)
    return future + history[:, -1:]
