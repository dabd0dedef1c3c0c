"""The definition of ``temporal_mlp``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._recompute import gradients

NORMS = ("spatial", "temporal", "all", "none")  # over the coordinates, over time, over both


def blocks(x, weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift, mix, norm, eps) -> Tensor:
    """[B, C, T] through every block; see the public function for the arguments."""
    for n in range(weight.shape[0]):
        h = x
        if pre_weight is not None:
            y = F.linear(x, pre_weight[n], pre_bias[n])
            h = x + F.layer_norm(y, y.shape[2:], pre_scale[n], pre_shift[n], eps)
        if mix == "temporal":
            z = F.linear(h, weight[n], bias[n])
        else:
            z = F.linear(h.transpose(1, 2), weight[n], bias[n]).transpose(1, 2)
        if norm == "spatial":
            z = F.layer_norm(z.transpose(1, 2), z.shape[1:2], scale[n], shift[n], eps).transpose(1, 2)
        elif norm != "none":
            z = F.layer_norm(z, z.shape[1:] if norm == "all" else z.shape[2:], scale[n], shift[n], eps)
        x = x + z  # the block's input, not h: the first map reaches the result only through the second
    return x


def temporal_mlp(*args) -> tuple[Tensor, Tensor]:
    """([B, C, T], an empty tensor: the reference keeps nothing for the backward pass)."""
    *inputs, _keep = args
    y = blocks(*inputs)
    return y.contiguous() if y is not inputs[0] else y.clone(), y.new_empty(0, dtype=torch.float32)


def temporal_mlp_backward(grad, saved, *args) -> list[Tensor]:
    """Gradients of x and the eight parameters, those that ``needs`` (the last argument) asks for, in order."""
    *inputs, mix, norm, eps, needs = args
    return gradients(lambda *tensors: blocks(*tensors, mix, norm, eps), inputs, (grad,), needs)


def branch(h, stack, weight_out, bias_out, inverse, mix, norm, eps, run=blocks) -> Tensor:
    """[B, S, C]: state [B, C, T] through one stack and its output layer, the first S frames of the inverse."""
    y = run(h, *stack, mix, norm, eps).transpose(1, 2)
    return inverse @ F.linear(y, weight_out, bias_out)


def temporal_mlp_forecast(
    history, transform, inverse, weight_in, bias_in, main, weight_out, bias_out, side, side_weight_out, side_bias_out,
    mix, norm, eps, run=blocks,
) -> Tensor:  # fmt: skip
    """[B, S, C]; see the public function for the arguments. ``run`` is what takes the state through a stack."""
    h = F.linear(transform @ history, weight_in, bias_in).transpose(1, 2)
    future = branch(h, main, weight_out, bias_out, inverse, mix, norm, eps, run)
    if side:
        future = future + branch(h, side, side_weight_out, side_bias_out, inverse, mix, norm, eps, run)
    return future + history[:, -1:]
