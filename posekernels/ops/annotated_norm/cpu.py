"""``annotated_norm`` on the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..._adapters import addresses, contiguous
from ..._dropout import kernel_arguments
from .._cpu import not_float32


def refuses(x, residual, scale, shift, eps, rate, seed) -> str | None:
    return not_float32(x, residual, scale, shift)


def refuses_backward(grad, grad_total, total, scale, eps, rate, seed, needs) -> str | None:
    return not_float32(grad, grad_total, total, scale)


def annotated_norm(x, residual, scale, shift, eps, rate, seed) -> tuple[Tensor, Tensor]:
    held = contiguous(x, residual, scale, shift)
    y = torch.empty_like(held[0])
    total = None if residual is None else torch.empty_like(y)
    _native.core.annotated_norm(
        torch.get_num_threads(), *addresses(*held, y, total), *x.shape, eps, *kernel_arguments(rate, seed)
    )
    return y, x.new_empty(0) if total is None else total


def annotated_norm_backward(grad, grad_total, total, scale, eps, rate, seed, needs) -> list[Tensor]:
    held = contiguous(grad, grad_total, total, scale)
    shapes = (total.shape, total.shape, scale.shape, scale.shape)
    grads = [total.new_empty(shape) if need else None for shape, need in zip(shapes, needs)]
    _native.core.annotated_norm_backward(
        torch.get_num_threads(), *addresses(*held, *grads), *total.shape, eps, *kernel_arguments(rate, seed)
    )
    return [g for g in grads if g is not None]
