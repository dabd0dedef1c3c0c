"""What the adapters to the C++ kernels share."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import not_on

NARROW = (torch.float32, torch.float16, torch.bfloat16)


def not_narrow(*tensors: Tensor | None) -> str | None:
    """Why an op that computes 16 bits in float32, and rounds, cannot take these tensors on the CPU, or None."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in NARROW:
            return f"takes float32, float16 or bfloat16, got {tensor.dtype}"
    return not_on("cpu", *tensors)


def not_float32(*tensors: Tensor | None, or_bfloat16: bool = False) -> str | None:
    """Why the C++ kernels of an op cannot take these tensors, or None: they take float32 on the CPU."""
    for tensor in tensors:
        if tensor is None or tensor.dtype is torch.float32 or (or_bfloat16 and tensor.dtype is torch.bfloat16):
            continue
        return f"takes float32{' or bfloat16' if or_bfloat16 else ''}, got {tensor.dtype}"
    return not_on("cpu", *tensors)
