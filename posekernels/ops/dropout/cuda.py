"""The CUDA C++ kernel of ``dropout`` (csrc/dropout/dropout_cuda.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses
from ..._cuda import launch
from ..._dropout import Seed, gpu_arguments


def dropout(x: Tensor, rate: float, seed: Seed, stream: int = 0) -> Tensor:
    """As ``reference.dropout``; ``stream`` tells apart the masks of one seed."""
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        seed, *numbers = gpu_arguments(rate, seed, x.device)
        launch("dropout_cuda", x, *addresses(x, y, seed), x.numel(), stream, *numbers)
    return y
