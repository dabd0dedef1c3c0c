"""``dropout`` in C++."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses
from ..._dropout import Seed, kernel_arguments
from ..._native import core
from .._cpu import not_float32


def refuses(x, *_rest) -> str | None:
    return not_float32(x)


def dropout(x: Tensor, rate: float, seed: Seed) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    seed, threshold, factor = kernel_arguments(rate, seed)
    core.dropout(torch.get_num_threads(), *addresses(x, y), x.numel(), seed, 0, threshold, factor)
    return y
