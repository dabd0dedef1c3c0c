"""The definition of ``strided_feed_forward``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._dropout import Seed, dropout


def hidden_units(x, weight1, bias1, rate: float, seed: Seed) -> Tensor:
    """[B, T, N], after ReLU and dropout."""
    return dropout(F.relu(F.linear(x, weight1, bias1)), rate, seed, 0)


def strided_feed_forward(
    x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep
) -> tuple[Tensor, Tensor]:
    """([B, T', C], the hidden units after ReLU and dropout [B, T, N], or an empty tensor unless ``keep``)."""
    hidden = hidden_units(x, weight1, bias1, hidden_rate, seed)
    taps = weight2.shape[2]
    out = F.conv1d(hidden.transpose(1, 2), weight2, bias2, stride, padding=taps // 2).transpose(1, 2)
    out = dropout(out.contiguous(), rate, seed, 1)
    if residual is not None:
        out = out + residual[:, ::stride]
    return out.contiguous(), hidden if keep else x.new_empty(0)


def strided_feed_forward_backward(
    grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs
) -> list[Tensor]:
    """Gradients of (x, weight1, bias1, weight2, bias2), those that ``needs`` asks for, in order.

    ``hidden`` holds zeros wherever ReLU or dropout stopped a unit, so it is all the masks that are needed.
    """
    grad = dropout(grad, rate, seed, 1).transpose(1, 2)
    grad_hidden, grad_w2, grad_b2 = torch.ops.aten.convolution_backward(
        grad,
        hidden.transpose(1, 2),
        weight2,
        [weight2.shape[0]],
        [stride],
        [weight2.shape[2] // 2],
        [1],
        False,
        [0],
        1,
        [any(needs[:3]), needs[3], needs[4]],
    )
    results = []
    if any(needs[:3]):
        grad_hidden = grad_hidden.transpose(1, 2) * (hidden != 0) / (1 - hidden_rate)
    if needs[0]:
        results.append(grad_hidden @ weight1)
    if needs[1]:
        results.append(grad_hidden.flatten(0, 1).T @ x.flatten(0, 1))
    if needs[2]:
        results.append(grad_hidden.sum((0, 1)))
    results += [g for g, need in ((grad_w2, needs[3]), (grad_b2, needs[4])) if need]
    return [g.contiguous() for g in results]
