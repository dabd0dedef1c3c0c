"""What the adapters to the C++ kernels share."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import not_on


def not_float32(*tensors: Tensor | None) -> str | None:
    """Why the C++ kernels of an op cannot take these tensors, or None: they take float32 on the CPU."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype is not torch.float32:
            return f"takes float32, got {tensor.dtype}"
    return not_on("cpu", *tensors)


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor begins, for a kernel; None for none."""
    return None if tensor is None else tensor.data_ptr()


def addresses(*tensors: Tensor | None) -> list[int | None]:
    return [address(tensor) for tensor in tensors]
