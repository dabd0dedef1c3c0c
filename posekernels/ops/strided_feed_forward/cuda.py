"""The CUDA C++ kernels of ``strided_feed_forward`` (csrc/strided_feed_forward/strided_feed_forward_cuda.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, contiguous
from ..._cuda import launch
from ..._dropout import gpu_arguments, seed_tensor
from ...prepared import derived
from ..dropout.cuda import dropout
from .products import gradients


def _by_tap(weight2: Tensor, *order: int) -> Tensor:
    """[O, N, taps] with the taps first, so that every tap's rows are read in order."""
    return derived(("by tap", *order), lambda: weight2.detach().permute(order).contiguous(), weight2)


def strided_feed_forward(x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep):
    """As ``reference.strided_feed_forward``."""
    B, T, C = x.shape
    N, (O, _, taps) = weight1.shape[0], weight2.shape
    held = contiguous(x, weight1, bias1, _by_tap(weight2, 2, 0, 1), bias2, residual)
    y = x.new_empty(B, (T - 1) // stride + 1, O)
    # in frames that no tap reads nobody looks at the hidden units, but backward takes zeros from there
    hidden = x.new_zeros(B, T, N) if keep and stride > taps else x.new_empty(B, T, N)
    if y.numel():
        seed = seed_tensor(seed, x.device) if hidden_rate or rate else None
        launch(
            "strided_feed_forward_cuda",
            x,
            *addresses(*held, hidden, y, seed),
            *(B, T, C, N, O, taps, stride),
            *gpu_arguments(hidden_rate, seed, x.device)[1:],
            *gpu_arguments(rate, seed, x.device)[1:],
        )
    return y, hidden if keep else x.new_empty(0)


def strided_feed_forward_backward(grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs):
    """As ``reference.strided_feed_forward_backward``; the products that gather nothing are PyTorch's."""
    grad, hidden, x, weight1, weight2 = contiguous(grad, hidden, x, weight1, weight2)
    B, T, _ = x.shape
    N, (O, _, taps) = weight1.shape[0], weight2.shape
    if rate > 0 and grad.numel():
        grad = dropout(grad, rate, seed, stream=1)
    grad_hidden = torch.empty_like(hidden) if any(needs[:3]) else None
    if grad_hidden is not None and grad_hidden.numel():
        by_tap = _by_tap(weight2, 2, 1, 0)
        launch(
            "strided_feed_forward_hidden_grad_cuda",
            grad,
            *addresses(grad, hidden, by_tap, grad_hidden),
            *(B, T, N, O, taps, stride, 1 / (1 - hidden_rate)),
        )
    return gradients(grad, grad_hidden, hidden, x, weight1, taps, stride, needs)
