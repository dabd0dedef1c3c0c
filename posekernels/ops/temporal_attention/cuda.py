"""The CUDA C++ kernels of ``temporal_attention`` (csrc/temporal_attention/temporal_attention_cuda.cu)."""

from __future__ import annotations

import torch

from ..._adapters import address, addresses, contiguous, strided_address
from ..._cuda import launch
from ..._dropout import gpu_arguments


def _arguments(q, k, v, padding, scale, causal, rate, seed):
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    padding = None if padding is None else padding.contiguous()
    B, T, H, D = q.shape
    strides = [s for t in (q, k, v) for s in t.stride()[:3]]
    seed, *mask = gpu_arguments(rate, seed, q.device)
    held = (*map(strided_address, (q, k, v)), address(padding)), (q, k, v, padding, seed)
    return *held, (address(seed), T, k.shape[1], H, D, *strides, scale, *mask, B, causal)


def temporal_attention(q, k, v, padding, scale, causal, rate, seed):
    """As ``reference.temporal_attention``."""
    held, _alive, numbers = _arguments(q, k, v, padding, scale, causal, rate, seed)
    B, T, H, _ = q.shape
    out, peaks = q.new_empty(q.shape), q.new_empty(B, H, T, 2, dtype=torch.float32)
    if out.numel():
        launch("temporal_attention_cuda", q, *held, *addresses(out, peaks), *numbers)
    return out, peaks


def temporal_attention_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed):
    """As ``reference.temporal_attention_backward``."""
    held, _alive, numbers = _arguments(q, k, v, padding, scale, causal, rate, seed)
    saved = contiguous(grad, out, peaks)
    grads = [q.new_empty(t.shape) for t in (q, k, v)]
    if out.numel():
        launch("temporal_attention_backward_cuda", q, *addresses(*saved), *held, *addresses(*grads), *numbers)
    return grads
