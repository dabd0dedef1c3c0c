"""What the adapters of every backend do with the tensors of a raw op, where None stands for one that is missing.

A kernel gets an address and sizes. It comes from here, nowhere else: ``address`` refuses a tensor whose numbers do not
lie one after the other, so that no kernel reads its neighbours' memory; ``strided_address`` is for a kernel that is
told the strides too.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor begins. Keep the tensor in a variable while the kernel runs.

    Raises:
        AssertionError: the tensor has strides: a fault of the adapter that calls this.
    """
    if tensor is None:
        return None
    if not tensor.is_contiguous():
        raise AssertionError(f"a kernel would read a tensor of strides {tensor.stride()} as if contiguous")
    return tensor.data_ptr()


def addresses(*tensors: Tensor | None) -> list[int | None]:
    return [*map(address, tensors)]


def table_of(tensors: Iterable[Tensor | None]) -> list[int]:
    """Their addresses as a table of numbers for a kernel: 0 for one that is missing."""
    return [address(tensor) or 0 for tensor in tensors]


def strided_address(tensor: Tensor | None) -> int | None:
    """Where a tensor begins, for a kernel that takes its strides."""
    return None if tensor is None else tensor.data_ptr()
