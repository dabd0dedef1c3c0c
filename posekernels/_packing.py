"""Weights in the layout the C++ kernels read (panels, see ``csrc/include/posekernels/gemm.h``), packed once per tensor.

When they are packed anew, and when not: see ``posekernels.prepared``. Views are new objects each time, so pack the
whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import _native
from .prepared import derived


def pack(weight: Tensor, transposed: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    """``packed``, made anew and kept by nobody: for who keeps many in one tensor."""
    core, threads = _native.core, torch.get_num_threads()
    weight = weight.detach().float()
    K, N = map(int, weight.shape[-2:])  # torch.jit.trace has tensors for sizes
    row, column = weight.stride()[-2:]
    if transposed:
        K, N, row, column = N, K, column, row
    count = weight.shape[0] if weight.dim() == 3 else 1
    matrix = weight.stride(0) if weight.dim() == 3 else 0
    if dtype is torch.float32:
        packed = weight.new_empty(count, core.gemm_packed_size(1, K, N))
        core.gemm_pack(threads, weight.data_ptr(), count, matrix, row, column, K, N, packed.data_ptr())
    else:
        packed = weight.new_empty(count, core.gemm_packed_size_bf16(1, K, N), dtype=dtype)
        for i in range(count):
            source = weight.data_ptr() + 4 * i * matrix
            core.gemm_pack_bf16(1, source, row, column, K, N, packed[i].data_ptr())
    return packed


def packed(
    weight: Tensor,
    *,
    transposed: bool = False,
    dtype: torch.dtype = torch.float32,
    arrange: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``weight`` as panels for ``gemm.h``; keep the result alive while its address is in use.

    Args:
        weight: [K, N] or [count, K, N], float32 or bfloat16 on the CPU, any strides. Kernels compute ``x @ weight``.
        transposed: pack the transpose: for an ``nn.Linear`` weight, which is [N, K], or for a gradient.
        dtype: float32, or bfloat16 for ``gemm_tile_bf16``.
        arrange: makes [K, N] of a weight stored otherwise; a function of a module, as it is part of what is kept.
    Returns:
        [count, packed size]; opaque, and private to the instruction set that runs.
    """

    def make() -> Tensor:
        matrix = weight.detach().float()
        return pack(arrange(matrix) if arrange else matrix, transposed, dtype)

    return derived((transposed, dtype, arrange), make, weight)
