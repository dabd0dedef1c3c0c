"""``norm_activation`` in C++."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, contiguous
from ..._dropout import kernel_arguments
from ..._native import core
from .._cpu import not_float32


def refuses(x, *_rest) -> str | None:
    return "takes at least one row and one channel" if x.numel() == 0 else not_float32(x)


def norm_activation(x, weight, bias, eps, slope, rate, seed) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = contiguous(x, weight, bias)
    C = x.shape[-1]
    y, mean, var = torch.empty_like(x), x.new_empty(C), x.new_empty(C)
    options = x.numel() // C, C, eps, slope, *kernel_arguments(rate, seed)
    core.norm_activation(torch.get_num_threads(), *addresses(x, weight, bias, y, mean, var), *options)
    return y, mean, var


def norm_activation_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed) -> tuple[Tensor, ...]:
    given = contiguous(grad, x, weight, bias, mean, var)
    C = x.shape[-1]
    grads = torch.empty_like(given[1]), x.new_empty(C), x.new_empty(C)
    options = x.numel() // C, C, eps, slope, *kernel_arguments(rate, seed)
    core.norm_activation_backward(torch.get_num_threads(), *addresses(*given, *grads), *options)
    return grads
