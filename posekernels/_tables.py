"""Small tables of numbers on a device: sent there once, and kept.

Numbers in a list, as an index or in ``torch.tensor(..., device=...)``, go from ordinary host memory to the GPU in every
call: the host waits for it, and a CUDA graph cannot record it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .prepared import captured, outside_inference_mode


@functools.lru_cache(maxsize=256)
def _kept(numbers: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    with outside_inference_mode():  # autograd keeps indices
        return torch.tensor(numbers, dtype=dtype, device=device)


def table(numbers: Sequence, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """``torch.tensor(numbers, dtype=dtype, device=device)``, the same tensor every time: do not write to it.

    Args:
        numbers: numbers, or tuples of them.
    """
    if captured():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _kept(tuple(numbers), dtype, device)
