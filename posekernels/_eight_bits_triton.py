"""Triton kernel of ``eight_bits``: a product of float8_e4m3fn rows, scales and bias behind it. Compiled for sm_90."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._triton import compilation, launch_on
from .eight_bits import quantise

_FEW, _MANY = (
    {"BLOCK_M": rows, "BLOCK_N": 128, "BLOCK_K": 128, "num_warps": rows // 16, "num_stages": 3} for rows in (64, 128)
)
_FEW_ROWS = 4096


@triton.jit
def _product_kernel(
    x_ptr,  # [rows, K] float8_e4m3fn
    x_scale_ptr,  # [rows] float32
    weight_ptr,  # [N, K] float8_e4m3fn
    weight_scale_ptr,  # [N] float32
    bias_ptr,  # [N], or None
    y_ptr,  # [rows, N]
    rows, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows, blocks of columns)
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    xs = (x_ptr + row * K)[:, None] + k[None, :]
    weights = (weight_ptr + column * K)[None, :] + k[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, K, BLOCK_K):
        inside = first + k < K
        x = tl.load(xs + first, mask=(row < rows)[:, None] & inside[None, :], other=0.0)
        weight = tl.load(weights + first, mask=(column < N)[None, :] & inside[:, None], other=0.0)
        # Hopper's units keep 14 bits of an eight-bit sum: each BLOCK_K is summed apart and added in float32. Not by
        # ``max_num_imprecise_acc``, for which Triton 3.9 reads the sums before it has waited for them.
        total += tl.dot(x, weight)
    x_scale = tl.load(x_scale_ptr + row, mask=row < rows, other=0.0)
    weight_scale = tl.load(weight_scale_ptr + column, mask=column < N, other=0.0)
    total = total * x_scale[:, None] * weight_scale[None, :]
    if bias_ptr is not None:
        total += tl.load(bias_ptr + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    mask = (row < rows)[:, None] & (column < N)[None, :]
    tl.store((y_ptr + row * N)[:, None] + column[None, :], total, mask=mask)


def product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """As ``eight_bits.reference``; PyTorch quantises ``x``."""
    (rows, K), N = x.shape, len(weight)
    quantised, row_scale = quantise(x)
    quantised, weight = quantised.contiguous(), weight.contiguous()
    y = x.new_empty(rows, N)
    plan = _FEW if rows <= _FEW_ROWS else _MANY
    if rows:
        with launch_on(x):
            _product_kernel[(triton.cdiv(rows, plan["BLOCK_M"]), triton.cdiv(N, plan["BLOCK_N"]))](
                quantised, row_scale, weight, scale, bias, y, rows, N, K, **plan
            )
    return y


_TYPES = {"x_ptr": "*fp8e4nv:16", "weight_ptr": "*fp8e4nv:16", "N": "i32:16", "K": "i32:16"}
_TYPES |= {"x_scale_ptr": "*fp32:16", "weight_scale_ptr": "*fp32:16"}
AOT = [  # sm_90 alone: sm_80 has no such products
    compilation(f"fp8/product_{plan['BLOCK_M']}", _product_kernel, dtype, plan, _TYPES)
    for plan in (_FEW, _MANY)
    for dtype in (torch.float32, torch.bfloat16)
]
