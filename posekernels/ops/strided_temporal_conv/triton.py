"""Triton kernels of ``strided_temporal_conv``: products over non-overlapping windows, a launch for every group.

A window of w frames of [B, T, Ci] is one row of w Ci numbers, frame after frame, as it lies in memory: column ``depth``
of that row is channel depth % Ci of frame depth // Ci. A filter [Co, Ci, w] is read in that order; nothing is copied.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import PRECISIONS, compilation, dot_precision, launch_on, power_of_2, splits
from .reference import at, width_of


@triton.jit
def _tile(ptr, row, rows, column, columns):
    """[len(row), len(column)] of a [rows, columns] matrix; row is int64; 0 outside."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load((ptr + row * columns)[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def _filter(ptr, out, Co, depth, Ci, width):
    """[len(out), len(depth)] of the filters; 0 outside."""
    mask = (out < Co)[:, None] & (depth < Ci * width)[None, :]
    place = depth % Ci * width + depth // Ci
    return tl.load((ptr + out * (Ci * width))[:, None] + place[None, :], mask=mask, other=0.0)


@triton.jit
def _vector(ptr, column, columns):
    """[1, len(column)] float32."""
    return tl.load(ptr + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _conv_fwd_kernel(
    x_ptr,  # [rows, width Ci]
    weight_ptr,  # [Co, Ci, width]
    bias_ptr,  # [Co] or None
    scale_ptr,  # [Co] or None
    shift_ptr,  # [Co] or None
    residual_ptr,  # [rows stride, Co] or None
    out_ptr,  # [rows, Co]
    rows,  # windows
    Ci,
    Co,
    width,
    stride,
    tap,
    slope,
    LEAKY: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # grid (blocks of rows * blocks of Co,)
    blocks = tl.cdiv(Co, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    out = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, Ci * width, BLOCK_K):
        depth = start + tl.arange(0, BLOCK_K)
        x = _tile(x_ptr, row, rows, depth, Ci * width)
        weight = _filter(weight_ptr, out, Co, depth, Ci, width)
        y = tl.dot(x, tl.trans(weight), y, input_precision=PRECISION)
    if bias_ptr is not None:
        y += _vector(bias_ptr, out, Co)
    if scale_ptr is not None:
        y *= _vector(scale_ptr, out, Co)
    if shift_ptr is not None:
        y += _vector(shift_ptr, out, Co)
    if LEAKY:
        y = tl.where(y > 0, y, y * slope)
    mask = (row < rows)[:, None] & (out < Co)[None, :]
    if residual_ptr is not None:
        place = ((row * stride + tap) * Co)[:, None] + out[None, :]
        y += tl.load(residual_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + (row * Co)[:, None] + out[None, :], y, mask=mask)


@triton.jit
def _conv_bwd_x_kernel(
    grad_ptr,  # [rows, Co]
    weight_ptr,  # [Co, Ci, width]
    grad_x_ptr,  # [rows, width Ci]
    rows,
    Ci,
    Co,
    width,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # grid (blocks of rows * blocks of width Ci,)
    blocks = tl.cdiv(Ci * width, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    depth = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, Co, BLOCK_K):
        out = start + tl.arange(0, BLOCK_K)
        grad = _tile(grad_ptr, row, rows, out, Co)
        weight = _filter(weight_ptr, out, Co, depth, Ci, width)
        y = tl.dot(grad, weight, y, input_precision=PRECISION)
    mask = (row < rows)[:, None] & (depth < Ci * width)[None, :]
    tl.store(grad_x_ptr + (row * (Ci * width))[:, None] + depth[None, :], y, mask=mask)


@triton.jit
def _conv_bwd_weight_kernel(
    grad_ptr,  # [rows, Co]
    x_ptr,  # [rows, width Ci]
    partial_ptr,  # [splits, Co, Ci, width] float32
    rows,
    Ci,
    Co,
    width,
    tiles_per_split,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # grid (blocks of Co * blocks of width Ci, splits). BLOCK_M of Co, BLOCK_N of width Ci, BLOCK_K rows at a time.
    blocks = tl.cdiv(Ci * width, BLOCK_N)
    out = tl.program_id(0) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    depth = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    first = tl.program_id(1).to(tl.int64) * tiles_per_split * BLOCK_K
    for tile in range(tiles_per_split):
        row = first + tile * BLOCK_K + tl.arange(0, BLOCK_K)
        grad = _tile(grad_ptr, row, rows, out, Co)
        x = _tile(x_ptr, row, rows, depth, Ci * width)
        y = tl.dot(tl.trans(grad), x, y, input_precision=PRECISION)
    place = (out * (Ci * width))[:, None] + (depth % Ci * width + depth // Ci)[None, :]
    mask = (out < Co)[:, None] & (depth < Ci * width)[None, :]
    part = partial_ptr + tl.program_id(1).to(tl.int64) * Co * (Ci * width)
    tl.store(part + place, y, mask=mask)


def _plan(precision: str, dtype: torch.dtype, M: int, N: int, K: int) -> dict[str, int]:
    """Tile sizes and warps of a product [M, K] x [K, N]; no card has tuned them."""
    three = precision == "tf32x3"  # every operand twice in registers
    return {
        "BLOCK_M": power_of_2(M, 16, 64),
        "BLOCK_N": power_of_2(N, 16, 32 if three else 64),
        "BLOCK_K": power_of_2(K, 16, 64 if dtype != torch.float32 else 32),
        "num_warps": 4,
    }


def strided_temporal_conv(x, weight, bias, scale, shift, residual, slope, stride, tap) -> list[Tensor]:
    """As ``reference.strided_temporal_conv``."""
    results = []
    for i in range(len(x)):
        a, w, b, s, t, r = (
            v if v is None else v.contiguous()
            for v in (x[i], weight[i], at(bias, i), at(scale, i), at(shift, i), at(residual, i))
        )
        width, Ci, Co = width_of(w), w.shape[1], w.shape[0]
        y = a.new_empty(a.shape[0], a.shape[1] // width, Co)
        if y.numel():
            rows, precision = y.shape[0] * y.shape[1], dot_precision(a.dtype)
            plan = _plan(precision, a.dtype, rows, Co, width * Ci)
            grid = (triton.cdiv(rows, plan["BLOCK_M"]) * triton.cdiv(Co, plan["BLOCK_N"]),)
            with launch_on(a):
                _conv_fwd_kernel[grid](
                    a, w, b, s, t, r, y, rows, Ci, Co, width, stride, tap, slope,
                    LEAKY=slope != 1, PRECISION=precision, **plan,
                )  # fmt: skip
        results.append(y)
    return results


def strided_temporal_conv_backward(grads, x, weight, bias, needs) -> list[Tensor]:
    """As ``reference.strided_temporal_conv_backward``. Sums over rows are made in two stages, without atomics."""
    need_x, need_weight, need_bias = (*needs, False)[:3]
    results = []
    for i, grad in enumerate(grads):
        grad, a, w = grad.contiguous(), x[i].contiguous(), weight[i].contiguous()
        width, Ci, Co = width_of(w), w.shape[1], w.shape[0]
        rows, depth, precision = grad.shape[0] * grad.shape[1], width * Ci, dot_precision(a.dtype)
        empty = not (rows and depth and Co)
        with launch_on(a):
            if need_x:
                grad_x = torch.zeros_like(a) if empty else torch.empty_like(a)
                if not empty:
                    plan = _plan(precision, a.dtype, rows, depth, Co)
                    grid = (triton.cdiv(rows, plan["BLOCK_M"]) * triton.cdiv(depth, plan["BLOCK_N"]),)
                    _conv_bwd_x_kernel[grid](grad, w, grad_x, rows, Ci, Co, width, PRECISION=precision, **plan)
                results.append(grad_x)
            if need_weight and empty:
                results.append(torch.zeros_like(w))
            elif need_weight:
                plan = _plan(precision, a.dtype, Co, depth, rows)
                blocks = triton.cdiv(Co, plan["BLOCK_M"]) * triton.cdiv(depth, plan["BLOCK_N"])
                tiles = triton.cdiv(rows, plan["BLOCK_K"])
                per_split = triton.cdiv(tiles, splits(a, tiles, blocks))
                parts = triton.cdiv(tiles, per_split)
                partial = torch.empty(parts, *w.shape, dtype=torch.float32, device=a.device)
                _conv_bwd_weight_kernel[(blocks, parts)](
                    grad, a, partial, rows, Ci, Co, width, per_split, PRECISION=precision, **plan
                )
                results.append(partial.sum(0).to(w.dtype))
            if need_bias:
                results.append(grad.sum((0, 1)))
    return results


AOT = [  # RIE's inner layers (256 channels, 3 frames)
    compilation(
        f"strided_temporal_conv/{name}",
        kernel,
        dtype,
        _plan(precision, dtype, 4096, 4096, 4096) | {"PRECISION": precision, "LEAKY": True},
        {"partial_ptr": "*fp32:16", "slope": "fp32", "Ci": "i32:16", "Co": "i32:16"},
    )
    for dtype, precision in PRECISIONS
    for name, kernel in (
        ("fwd", _conv_fwd_kernel),
        ("bwd_x", _conv_bwd_x_kernel),
        ("bwd_weight", _conv_bwd_weight_kernel),
    )
]
