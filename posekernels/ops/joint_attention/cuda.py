"""The CUDA C++ kernels of ``joint_attention``: csrc/joint_attention/joint_attention_cuda.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, strided_address
from ..._cuda import launch


def _views(q, k, v, mask) -> tuple[list[Tensor | None], list[int]]:
    """(q, k, v, mask), channels contiguous; and their strides, those of the mask last."""
    tensors = [t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v)]
    strides = [s for t in tensors for s in t.stride()[:3]]
    return [*tensors, mask], strides + ([0, 0, 0] if mask is None else list(mask.stride()))


def joint_attention(q, k, v, mask, scale) -> Tensor:
    """As ``reference.joint_attention``."""
    (*held, mask), strides = _views(q, k, v, mask)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if out.numel():
        views = (*map(strided_address, held), *strides[:9], strided_address(mask), *strides[9:])
        launch("joint_attention_cuda", q, *views, *addresses(out), *q.shape, scale)
    return out


def joint_attention_backward(grad, q, k, v, mask, scale) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.joint_attention_backward``."""
    (*held, mask), strides = _views(q, k, v, mask)
    grad = grad.contiguous()
    grads = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    if grad.numel():
        held = map(strided_address, held)
        views = (*addresses(grad), *held, *strides[:9], strided_address(mask), *strides[9:])
        launch("joint_attention_backward_cuda", q, *views, *addresses(*grads), *q.shape, scale)
    return grads
