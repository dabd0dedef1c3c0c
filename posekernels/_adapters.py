"""What the adapters of every backend do with the tensors of a raw op, where None stands for one that is missing."""

from __future__ import annotations

from torch import Tensor


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor begins, for a kernel. Keep the tensor in a variable while the kernel runs."""
    return None if tensor is None else tensor.data_ptr()


def addresses(*tensors: Tensor | None) -> list[int | None]:
    return [address(tensor) for tensor in tensors]
