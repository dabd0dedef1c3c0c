"""What the adapters of every backend do with the tensors of a raw op, where None stands for one that is missing.

A kernel gets an address and sizes. Addresses come from here, nowhere else: ``address`` is for tensors whose numbers lie
one after the other (``contiguous`` makes them so), ``strided_address`` for a kernel that is told the strides too.
``posekernels.testing.poisoned`` lets ``address`` refuse the others; the price of asking at every call is 5 % of a small
op.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    """In float32, contiguous: for kernels that compute 16-bit tensors in float32."""
    return [t if t is None else (t if t.dtype is torch.float32 else t.float()).contiguous() for t in tensors]


_begins = Tensor.data_ptr  # ``poisoned`` puts ``begins_contiguous`` here


def begins_contiguous(tensor: Tensor) -> int:
    """Raises AssertionError for a tensor with strides: a fault of the adapter that asks for its address."""
    if not tensor.is_contiguous():
        raise AssertionError(f"a kernel would read a tensor of strides {tensor.stride()} as if contiguous")
    return tensor.data_ptr()


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor begins. Keep the tensor in a variable while the kernel runs."""
    return None if tensor is None else _begins(tensor)


def addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else _begins(tensor) for tensor in tensors]


def table_of(tensors: Iterable[Tensor | None]) -> list[int]:
    """Their addresses as a table of numbers for a kernel: 0 for one that is missing."""
    return [0 if tensor is None else _begins(tensor) for tensor in tensors]


def strided_address(tensor: Tensor | None) -> int | None:
    """Where a tensor begins, for a kernel that takes its strides."""
    return None if tensor is None else tensor.data_ptr()


def allows_tf32() -> bool:
    """Whether PyTorch's own setting, by either of its interfaces, lets float32 products on a GPU be rounded to TF32."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"
