"""The definition of ``annotated_norm``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dropout import dropout
from ..._recompute import gradients


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
    through, grad_scale, grad_shift = gradients(
        lambda total, scale, shift: norm(total, scale, shift, eps), (total, scale, torch.zeros_like(scale)), (grad,)
    )
    if grad_total is not None:
        through = through + grad_total
    found = (lambda: dropout(through, rate, seed).contiguous(), lambda: through, lambda: grad_scale, lambda: grad_shift)
    return [make() for make, need in zip(found, needs) if need]
