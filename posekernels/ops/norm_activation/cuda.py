"""The CUDA C++ kernels of ``norm_activation`` (csrc/norm_activation/norm_activation_cuda.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import address, addresses, contiguous
from ..._cuda import launch
from ..._dropout import gpu_arguments

_MOST_PARTS, _ROWS = 64, 64  # of the rows, and rows that make a part worth its while


def _parts(rows: int) -> int:
    """Parts of the rows, none of them empty."""
    each = -(-rows // min(_MOST_PARTS, -(-rows // _ROWS)))
    return -(-rows // each)


def _partial(x: Tensor, parts: int) -> Tensor:
    return torch.empty(parts, 2, x.shape[-1], dtype=torch.float32, device=x.device)


def _moments(x: Tensor) -> Tensor:
    """Mean and biased variance over the rows of contiguous x, [2, C] float32."""
    C = x.shape[-1]
    rows = x.numel() // C
    partial, moments = _partial(x, _parts(rows)), torch.empty(2, C, dtype=torch.float32, device=x.device)
    launch("norm_activation_moments_cuda", x, *addresses(x, partial, moments), rows, C, len(partial))
    return moments


def norm_activation(x, weight, bias, eps, slope, rate, seed) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.norm_activation``."""
    x, weight, bias = contiguous(x, weight, bias)
    C = x.shape[-1]
    moments, y = _moments(x), torch.empty_like(x)
    seed, *mask = gpu_arguments(rate, seed, x.device)
    options = x.numel() // C, C, eps, slope, *mask
    launch("norm_activation_cuda", x, *addresses(x, weight, bias, moments, y, seed), *options)
    mean, var = moments.to(weight.dtype)
    return y, mean.clone(), var.clone()


def norm_activation_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed) -> tuple[Tensor, ...]:
    """As ``reference.norm_activation_backward``. In 16 bits the moments are taken again: those kept are rounded."""
    grad, x, weight, bias = contiguous(grad, x, weight, bias)
    C = x.shape[-1]
    rows = x.numel() // C
    moments = torch.stack((mean, var)) if x.dtype == torch.float32 else _moments(x)
    partial, grad_x = _partial(x, _parts(rows)), torch.empty_like(x)
    seed, *mask = gpu_arguments(rate, seed, x.device)
    given = addresses(grad, x, weight, bias, moments)
    options = rows, C, len(partial), eps, slope, *mask
    launch("norm_activation_backward_cuda", x, *given, address(partial), None, None, address(seed), *options)
    sums = partial.sum(0)
    launch("norm_activation_backward_cuda", x, *given, None, *addresses(sums, grad_x, seed), *options)
    grad_weight, grad_bias = sums.to(weight.dtype)
    return grad_x, grad_weight.clone(), grad_bias.clone()
