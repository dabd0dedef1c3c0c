"""``temporal_attention`` on the C++ kernels. bfloat16 is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..._adapters import address, addresses, strided_address
from ..._dispatch import not_on
from ..._dropout import kernel_arguments
from .._cpu import not_float32


def refuses(q, k, v, padding, scale, causal, rate, seed) -> str | None:
    return not_float32(q, k, v, or_bfloat16=True) or not_on("cpu", padding)


def refuses_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed) -> str | None:
    return refuses(q, k, v, padding, scale, causal, rate, seed) or not_on("cpu", grad, out, peaks)


def _arguments(q, k, v, padding, scale, causal, rate, seed):
    """Addresses of q, k, v and padding, the numbers that follow the pointers, and the tensors, to be kept alive."""
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    padding = None if padding is None else padding.contiguous()
    B, T, H, D = q.shape
    strides = [s for t in (q, k, v) for s in t.stride()[:3]]
    numbers = (B, T, k.shape[1], H, D, *strides, scale, causal, *kernel_arguments(rate, seed))
    return (*map(strided_address, (q, k, v)), address(padding)), numbers, (q, k, v, padding)


def temporal_attention(q, k, v, padding, scale, causal, rate, seed) -> tuple[Tensor, Tensor]:
    if q.dtype == torch.bfloat16:
        options = (padding, scale, causal, rate, seed)
        out, peaks = temporal_attention(q.float(), k.float(), v.float(), *options)
        return out.bfloat16(), peaks
    held, numbers, _alive = _arguments(q, k, v, padding, scale, causal, rate, seed)
    B, T, H, _ = q.shape
    out, peaks = q.new_empty(q.shape), q.new_empty(B, H, T, 2)
    _native.core.temporal_attention(torch.get_num_threads(), *held, *addresses(out, peaks), *numbers)
    return out, peaks


def temporal_attention_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed) -> list[Tensor]:
    if q.dtype == torch.bfloat16:
        wide, options = (t.float() for t in (grad, out, peaks, q, k, v)), (padding, scale, causal, rate, seed)
        return [g.bfloat16() for g in temporal_attention_backward(*wide, *options)]
    held, numbers, _alive = _arguments(q, k, v, padding, scale, causal, rate, seed)
    grads = [q.new_empty(t.shape) for t in (q, k, v)]
    grad = grad.contiguous()
    _native.core.temporal_attention_backward(
        torch.get_num_threads(), address(grad), *held, *addresses(*grads), *numbers
    )
    return grads
