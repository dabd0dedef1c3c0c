"""``joint_attention`` in C++: ``csrc/joint_attention/joint_attention_cpu.cpp``. bfloat16 is computed in float32."""

from __future__ import annotations

import torch

from ..._adapters import address, addresses, strided_address
from ..._native import core
from .._cpu import not_float32


def refuses(q, k, v, mask, scale):
    return not_float32(q, k, v, or_bfloat16=True)


def refuses_backward(grad, q, k, v, mask, scale):
    return not_float32(grad, q, k, v, or_bfloat16=True)


def _views(tensors, mask):
    """Addresses and strides of q, k, v and the mask, and the tensors they belong to (keep them alive)."""
    tensors = [t if t.stride(3) == 1 else t.contiguous() for t in tensors]
    arguments = []
    for t in tensors:
        arguments += (strided_address(t), *t.stride()[:3])
    arguments += (None, 0, 0, 0) if mask is None else (strided_address(mask), *mask.stride())
    return tensors, arguments


def joint_attention(q, k, v, mask, scale):
    if q.dtype == torch.bfloat16:
        return joint_attention(q.float(), k.float(), v.float(), mask, scale).bfloat16()
    _alive, views = _views((q, k, v), mask)
    y = torch.empty_like(q, memory_format=torch.contiguous_format)
    core.joint_attention(torch.get_num_threads(), *views, address(y), *q.shape, scale)
    return y


def joint_attention_backward(grad, q, k, v, mask, scale):
    if q.dtype == torch.bfloat16:
        grads = joint_attention_backward(grad.float(), q.float(), k.float(), v.float(), mask, scale)
        return tuple(g.bfloat16() for g in grads)
    _alive, views = _views((q, k, v), mask)
    grad = grad.contiguous()
    grads = tuple(torch.empty_like(grad) for _ in range(3))
    core.joint_attention_backward(torch.get_num_threads(), address(grad), *views, *addresses(*grads), *q.shape, scale)
    return grads
