"""Attention in plain PyTorch, for references."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

_local = threading.local()


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """References call ``scaled_dot_product_attention`` inside, as users of PyTorch do: for the benchmark's peers.

    It is 2 to 3 times as fast on a CPU, and no definition: it loses NaNs there, and is differentiated once only.
    """
    _local.fused = True
    try:
        yield
    finally:
        _local.fused = False


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """[..., T, H, D], contiguous: softmax(scale * q kᵀ) v, each head by itself; ``k`` and ``v`` [..., S, H, D]."""
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    if getattr(_local, "fused", False):
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    else:
        out = (q @ k.mT * scale).softmax(-1) @ v
    return out.transpose(-2, -3).contiguous()
