"""Triton kernel of ``dropout``: a program draws the words of its elements, four to a counter."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._dropout import Seed, gpu_arguments
from ..._triton import compilation, keep_words, launch_on

_PLAN = {"BLOCK": 1024, "num_warps": 4}


@triton.jit
def _dropout_kernel(
    x_ptr,  # [count]
    y_ptr,  # [count]
    seed_ptr,  # [] int64
    count, stream, threshold, factor,
    BLOCK: tl.constexpr,
):  # fmt: skip
    # grid (blocks of elements,)
    counter = tl.program_id(0).to(tl.int64) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    element = (counter * 4)[:, None] + tl.arange(0, 4)[None, :]
    x = tl.load(x_ptr + element, mask=element < count, other=0.0).to(tl.float32)
    y = tl.where(keep_words(counter, seed_ptr, stream, threshold), x * factor, 0.0)
    tl.store(y_ptr + element, y, mask=element < count)


def dropout(x: Tensor, rate: float, seed: Seed, stream: int = 0) -> Tensor:
    """As ``reference.dropout``; ``stream`` tells apart the masks of one seed."""
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        seed, threshold, factor = gpu_arguments(rate, seed, x.device)
        with launch_on(x):
            _dropout_kernel[(triton.cdiv(x.numel(), _PLAN["BLOCK"]),)](
                x, y, seed, x.numel(), stream, threshold, factor, **_PLAN
            )
    return y


AOT = [
    compilation("dropout/fwd", _dropout_kernel, dtype, _PLAN, matrix_units=False)
    for dtype in (torch.float32, torch.bfloat16)
]
