"""``strided_feed_forward`` on the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..._adapters import addresses, contiguous
from ..._dropout import kernel_arguments, threshold
from .._cpu import not_float32

KERNELS = [f"strided_feed_forward{part}" for part in ("", "_backward", "_weight1", "_weight2")]


def refuses(x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep) -> str | None:
    return not_float32(x, weight1, bias1, weight2, bias2, residual)


def refuses_backward(grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs) -> str | None:
    return not_float32(grad, hidden, x, weight1, weight2)


def strided_feed_forward(
    x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep
) -> tuple[Tensor, Tensor]:
    B, T, C = x.shape
    N, (O, _, taps) = weight1.shape[0], weight2.shape
    held = contiguous(x, weight1, bias1, weight2, bias2, residual)
    y = x.new_empty(B, (T - 1) // stride + 1, O)
    hidden = x.new_empty(B, T, N) if keep else None
    _native.core.strided_feed_forward(
        torch.get_num_threads(),
        *addresses(*held, y, hidden),
        *(B, T, C, N, O, taps, stride),
        *kernel_arguments(hidden_rate, seed),
        *kernel_arguments(rate, seed)[1:],
    )
    return y, hidden if keep else x.new_empty(0)


def strided_feed_forward_backward(
    grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs
) -> list[Tensor]:
    threads, core = torch.get_num_threads(), _native.core
    B, T, C = x.shape
    N, (O, _, taps) = weight1.shape[0], weight2.shape
    grad, hidden, x = contiguous(grad, hidden, x)
    if threshold(rate):
        dropped = torch.empty_like(grad)
        core.dropout(threads, *addresses(grad, dropped), grad.numel(), int(seed), 1, *kernel_arguments(rate, seed)[1:])
        grad = dropped
    results: list[Tensor] = []
    grad_x = torch.empty_like(x) if needs[0] else None
    if any(needs[:3]):
        grad_hidden = torch.empty_like(hidden)
        w1t, w2t = weight1.t().contiguous(), weight2.permute(1, 2, 0).contiguous()
        core.strided_feed_forward_backward(
            threads,
            *addresses(grad, hidden, w1t, w2t, grad_hidden, grad_x),
            *(B, T, C, N, O, taps, stride),
            1 / (1 - hidden_rate),
        )
    if needs[0]:
        results.append(grad_x)
    if needs[1]:
        grad_w1 = torch.empty_like(weight1, memory_format=torch.contiguous_format)
        core.strided_feed_forward_weight1(threads, *addresses(grad_hidden, x, grad_w1), B * T, N, C)
        results.append(grad_w1)
    if needs[2]:
        results.append(grad_hidden.sum((0, 1)))
    if needs[3]:
        grad_w2 = weight2.new_empty(taps, O, N)
        core.strided_feed_forward_weight2(threads, *addresses(grad, hidden, grad_w2), B, T, N, O, taps, stride)
        results.append(grad_w2.permute(1, 2, 0).contiguous())
    if needs[4]:
        results.append(grad.sum((0, 1)))
    return results
