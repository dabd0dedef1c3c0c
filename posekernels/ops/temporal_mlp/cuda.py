"""The CUDA C++ kernels of ``temporal_mlp`` (csrc/temporal_mlp/temporal_mlp_cuda.cu): tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, contiguous, strided_address
from ..._cuda import launch
from .cpu import NORMS
from .sums import map_gradients

_TOGETHER = 8  # residual blocks in one launch of the backward pass


def temporal_mlp(x, *args) -> tuple[Tensor, Tensor]:
    """As ``reference.temporal_mlp``, one launch; keeps every block's input, [N, B, C, T] float32."""
    *parameters, mix, norm, eps, keep = args
    x, parameters = x.contiguous(), contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    y = torch.empty_like(x)
    saved = torch.empty((N, B, C, T) if keep else 0, dtype=torch.float32, device=x.device)
    if y.numel():
        launch(
            "temporal_mlp_cuda",
            x,
            *addresses(x),
            *x.stride(),
            *addresses(None, None, None, *parameters, *[None] * 13, y, saved if keep else None),
            *(B, C, T, T, N, 0, mix == "spatial", NORMS[norm], eps),
        )
    return y, saved if keep else x.new_empty(0)


def temporal_mlp_forecast(
    history, transform, inverse, weight_in, bias_in, main, weight_out, bias_out, side, side_weight_out, side_bias_out,
    mix, norm, eps,
) -> Tensor:  # fmt: skip
    """As ``reference.temporal_mlp_forecast``: the whole network in one launch."""
    (B, T, C), S = history.shape, inverse.shape[0]
    future = history.new_empty(B, S, C)
    stacks = (*main, weight_out, bias_out, *(side or [None] * 8), side_weight_out, side_bias_out)
    tensors = contiguous(transform, weight_in, bias_in, *stacks, inverse)
    if future.numel():
        batch, row, column = history.stride()
        launch(
            "temporal_mlp_cuda",
            history,
            strided_address(history),
            *(batch, column, row),  # the state is [C, T]
            *addresses(*tensors, future, None),
            *(B, C, T, S, main[0].shape[0], side[0].shape[0] if side else 0, mix == "spatial", NORMS[norm], eps),
        )
    return future


def temporal_mlp_backward(grad, saved, x, *args) -> list[Tensor]:
    """As ``reference.temporal_mlp_backward``: a launch for 8 blocks at a time, then the sums over samples."""
    *parameters, mix, norm, eps, needs = args
    parameters = contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    grad = grad.to(torch.float32, copy=True).contiguous()
    sums = [None if t is None else torch.zeros(t.shape, dtype=torch.float32, device=x.device) for t in parameters]
    weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift = sums

    def buffer(*shape):
        return torch.empty(min(N, _TOGETHER), B, *shape, dtype=torch.float32, device=x.device)

    has_pre, has_norm = pre_weight is not None, scale is not None
    h, dz, dy = buffer(C, T), buffer(C, T), buffer(C, T) if has_pre else None
    partial = buffer(2, scale[0].numel()) if has_norm and N else None
    pre_partial = buffer(2, T) if has_pre else None
    for last in range(N if grad.numel() else 0, 0, -_TOGETHER):
        first = max(0, last - _TOGETHER)
        launch(
            "temporal_mlp_backward_cuda",
            x,
            *addresses(grad, saved, *parameters, h, dz, dy, partial, pre_partial),
            *(first, last, B, C, T, mix == "spatial", NORMS[norm], eps),
        )
        own, n = slice(first, last), last - first
        weight[own], bias[own] = map_gradients(dz[:n], h[:n], mix)
        if has_norm:
            both = partial[:n].sum(1)
            scale[own], shift[own] = both[:, 0].view_as(scale[own]), both[:, 1].view_as(shift[own])
        if has_pre:
            pre_weight[own], pre_bias[own] = map_gradients(dy[:n], saved[own], "temporal")
            pre_scale[own], pre_shift[own] = pre_partial[:n].sum(1).unbind(1)
    return [t.to(x.dtype) for t, need in zip((grad, *sums), needs) if need]
