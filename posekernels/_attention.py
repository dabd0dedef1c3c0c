"""Attention as plain PyTorch has it fastest, for references."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """[..., T, H, D], contiguous: softmax(scale * q kᵀ) v, each head by itself; ``k`` and ``v`` [..., S, H, D].

    PyTorch's fused form where nothing is differentiated: it can be differentiated once, and a reference any number of
    times.
    """
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    watched = torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    if torch.is_grad_enabled() or watched:
        out = ((q * scale) @ k.mT).softmax(-1) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.transpose(-2, -3).contiguous()
