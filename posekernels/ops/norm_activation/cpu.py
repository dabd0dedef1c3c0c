"""``norm_activation`` in C++."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dropout import kernel_arguments
from ..._native import core


def norm_activation(x, weight, bias, eps, slope, rate, seed) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    C = x.shape[-1]
    y, mean, var = torch.empty_like(x), x.new_empty(C), x.new_empty(C)
    addresses = [t.data_ptr() for t in (x, weight, bias, y, mean, var)]
    rows = x.numel() // C
    core.norm_activation(torch.get_num_threads(), *addresses, rows, C, eps, slope, *kernel_arguments(rate, seed))
    return y, mean, var


def norm_activation_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed) -> tuple[Tensor, ...]:
    given = [t.contiguous() for t in (grad, x, weight, bias, mean, var)]
    C = x.shape[-1]
    grads = torch.empty_like(given[1]), x.new_empty(C), x.new_empty(C)
    addresses = [t.data_ptr() for t in (*given, *grads)]
    rows = x.numel() // C
    core.norm_activation_backward(
        torch.get_num_threads(), *addresses, rows, C, eps, slope, *kernel_arguments(rate, seed)
    )
    return grads
