"""``temporal_mlp`` on the C++ kernels (csrc/temporal_mlp/temporal_mlp_cpu.cpp). 16 bits are computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import address, addresses, strided_address, wide
from ..._dispatch import tensors_in
from ..._native import core
from ...prepared import derived
from .._cpu import not_narrow

NORMS = {"spatial": 0, "temporal": 1, "all": 2, "none": 3}


def refuses(*args) -> str | None:
    return not_narrow(*tensors_in(args))


def refuses_backward(grad, saved, *args) -> str | None:
    from . import kept_nothing

    return kept_nothing(grad, saved, *args) or refuses(grad, *args)


def temporal_mlp(x, *args) -> tuple[Tensor, Tensor]:
    """(y [B, C, T], every block's input as tiles [tiles, N, C, T, lanes], or an empty tensor unless ``keep``)."""
    *parameters, mix, norm, eps, keep = args
    dtype, threads, (x, *parameters) = x.dtype, torch.get_num_threads(), wide(x, *parameters)
    B, C, T = x.shape
    N = parameters[0].shape[0]
    lanes = core.temporal_mlp_lanes(threads)
    y = torch.empty_like(x)
    saved = x.new_empty((-(-B // lanes), N, C, T, lanes) if keep else 0)
    pointers = addresses(x, *parameters, y, saved if keep else None)
    core.temporal_mlp(threads, *pointers, B, C, T, N, mix == "spatial", NORMS[norm], eps)
    return y.to(dtype), saved


def temporal_mlp_backward(grad, saved, x, *args) -> list[Tensor]:
    """Gradients of x and the eight parameters, those that ``needs`` asks for, in order."""
    *parameters, mix, norm, eps, needs = args
    threads, (grad, saved, *parameters) = torch.get_num_threads(), wide(grad, saved, *parameters)
    B, C, T = x.shape
    N = parameters[0].shape[0]
    grads = [grad.new_empty(t.shape) if need else None for t, need in zip((x, *parameters), needs)]
    count = sum(t.numel() for t in parameters if t is not None)
    partial = grad.new_empty(core.temporal_mlp_groups(threads, B), count)
    pointers = addresses(grad, saved, *parameters, *grads, partial)
    core.temporal_mlp_backward(threads, *pointers, B, C, T, N, mix == "spatial", NORMS[norm], eps)
    return [g.to(x.dtype) for g in grads if g is not None]


def _kept_wide(*tensors: Tensor | None) -> list[Tensor | None]:
    """As ``wide``, made once for a state of the weights: in 16 bits it takes a third of a single window's time."""
    if tensors[0].dtype is torch.float32:
        return wide(*tensors)
    given = [t for t in tensors if t is not None]
    made = iter(derived("wide", lambda: wide(*given), *given))
    return [t if t is None else next(made) for t in tensors]


def temporal_mlp_forecast(
    history, transform, inverse, weight_in, bias_in, main, weight_out, bias_out, side, side_weight_out, side_bias_out,
    mix, norm, eps,
) -> Tensor:  # fmt: skip
    """[B, S, C]."""
    dtype, history = history.dtype, history.float()
    B, T, C = history.shape
    S = inverse.shape[0]
    future = history.new_empty(B, S, C)
    stacks = [*main, weight_out, bias_out, *(side or [None] * 8), side_weight_out, side_bias_out]
    tensors = _kept_wide(transform, inverse, weight_in, bias_in, *stacks)
    strides = (history.stride(0), history.stride(1), history.stride(2))
    core.temporal_mlp_forecast(
        torch.get_num_threads(),
        strided_address(history),
        *strides,
        *addresses(*tensors),
        address(future),
        *(B, C, T, S, main[0].shape[0], side[0].shape[0] if side else 0),
        mix == "spatial",
        NORMS[norm],
        eps,
    )
    return future.to(dtype)
