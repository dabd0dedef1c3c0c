"""``encoder_layer`` on the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..._adapters import addresses, contiguous
from .._cpu import not_float32
from ..strided_feed_forward import frames_out

KERNELS = {torch.float32: "encoder_layer", torch.bfloat16: "encoder_layer_bf16"}


def refuses(z, position, parameters, heads, stride, eps) -> str | None:
    return not_float32(z, position, *parameters, or_bfloat16=True)


def encoder_layer(
    z: Tensor, position: Tensor | None, parameters: list[Tensor], heads: int, stride: int, eps: float
) -> Tensor:
    B, T, C = z.shape
    N, taps = parameters[12].shape[0], parameters[14].shape[2]
    y = z.new_empty(B, frames_out(T, stride), C)
    held = contiguous(z, position, y, *parameters)
    kernel = getattr(_native.core, KERNELS[z.dtype])
    kernel(torch.get_num_threads(), *addresses(*held), B, T, C, N, heads, taps, stride, eps)
    return y
