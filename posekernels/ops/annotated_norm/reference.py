"""The definition of ``annotated_norm``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dropout import dropout


def norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """[..., C]: scale * (x - mean) / (std + eps) + shift, over the last axis, with the *unbiased* std."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    varies = variance > 0  # the root has no derivative at 0: a constant row's std counts as a constant
    std = torch.where(varies, variance, 1).sqrt() * varies
    return scale * centred / (std + eps) + shift


def annotated_norm(x, residual, scale, shift, eps, rate, seed) -> tuple[Tensor, Tensor]:
    """(y [N, C], the sum dropout(x) + residual that was normalised; an empty tensor without a residual)."""
    total = x if residual is None else dropout(x, rate, seed) + residual
    return norm(total, scale, shift, eps).contiguous(), x.new_empty(0) if residual is None else total


def annotated_norm_backward(grad, grad_total, total, scale, eps, rate, seed, needs) -> list[Tensor]:
    """Gradients of (x, residual, scale, shift), those that ``needs`` asks for, in order; see the README.

    ``grad_total`` is the gradient of the second output, the sum, or None.
    """
    count = total.shape[-1]
    centred = total - total.mean(-1, keepdim=True)
    std = (centred.square().sum(-1, keepdim=True) / (count - 1)).sqrt()
    inverse = 1 / (std + eps)
    results = []
    if needs[0] or needs[1]:
        weighted = grad * scale
        along = (weighted * centred).sum(-1, keepdim=True)
        constant = std == 0  # the std of a constant row counts as a constant
        slope = along * inverse / ((count - 1) * std.masked_fill(constant, 1)) * ~constant
        through = (weighted - weighted.mean(-1, keepdim=True) - centred * slope) * inverse
        if grad_total is not None:
            through = through + grad_total
        if needs[0]:
            results.append(dropout(through, rate, seed).contiguous())
        if needs[1]:
            results.append(through.contiguous())
    if needs[2]:
        results.append((grad * centred * inverse).sum(0))
    if needs[3]:
        results.append(grad.sum(0))
    return results
