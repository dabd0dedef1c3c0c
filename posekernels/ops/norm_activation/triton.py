"""Triton kernels of ``norm_activation``. Sums over rows go by parts that are merged, without atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._dropout import gpu_arguments
from ..._triton import compilation, keep_elements, launch_on, row_vector, splits

_PLAN = {"BLOCK_R": 32, "BLOCK_C": 64}
_MOST_PARTS = 32  # of the rows, merged in one tile


@triton.jit
def _place(part, tile, tiles, rows, C, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Element numbers [BLOCK_R, BLOCK_C] of tile ``tile`` of a part of ``tiles`` tiles, and which of them are there."""
    row = (part * tiles + tile).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    return (row * C)[:, None] + column[None, :], (row < rows)[:, None] & (column < C)[None, :]


@triton.jit
def _vector(ptr, C, BLOCK_C: tl.constexpr):
    """[1, BLOCK_C] float32: the columns of this program."""
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    return row_vector(ptr, column, C)


@triton.jit
def _moments_kernel(
    x_ptr,  # [rows, C]
    partial_ptr,  # [parts, 2, C] float32: mean of the part, sum of its squared distances from it
    rows, C, tiles,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of C, parts)
    part = tl.program_id(1)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for tile in range(tiles):
        at, there = _place(part, tile, tiles, rows, C, BLOCK_R, BLOCK_C)
        total += tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
    count = tl.minimum(rows - part * tiles * BLOCK_R, tiles * BLOCK_R)
    mean = tl.sum(total, 0) / count
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for tile in range(tiles):
        at, there = _place(part, tile, tiles, rows, C, BLOCK_R, BLOCK_C)
        d = tl.where(there, tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32) - mean[None, :], 0.0)
        total += d * d
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    out = partial_ptr + part.to(tl.int64) * 2 * C + column
    tl.store(out, mean, mask=column < C)
    tl.store(out + C, tl.sum(total, 0), mask=column < C)


@triton.jit
def _merge_kernel(
    partial_ptr,  # [parts, 2, C] float32
    moments_ptr,  # [2, C] float32: mean, biased variance
    parts, rows, C,
    rows_per_part,
    PARTS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of C,)
    part = tl.arange(0, PARTS)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (part < parts)[:, None] & (column < C)[None, :]
    count = tl.where(part < parts, tl.minimum(rows - part * rows_per_part, rows_per_part), 0).to(tl.float32)[:, None]
    at = partial_ptr + (part * 2 * C)[:, None] + column[None, :]
    means = tl.load(at, mask=mask, other=0.0)
    squares = tl.load(at + C, mask=mask, other=0.0)
    mean = tl.sum(means * count, 0) / rows
    d = means - mean[None, :]
    tl.store(moments_ptr + column, mean, mask=column < C)
    tl.store(moments_ptr + C + column, tl.sum(squares + count * d * d, 0) / rows, mask=column < C)


@triton.jit
def _apply_kernel(
    x_ptr,  # [rows, C]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    moments_ptr,  # [2, C] float32
    y_ptr,  # [rows, C]
    rows, C, eps, slope, seed_ptr, threshold, factor,
    DROPOUT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of C, *_rows_grid(rows))
    at, there = _place(tl.program_id(2) * tl.num_programs(1) + tl.program_id(1), 0, 1, rows, C, BLOCK_R, BLOCK_C)
    inverse = 1.0 / tl.sqrt(_vector(moments_ptr + C, C, BLOCK_C) + eps)
    x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
    z = (x - _vector(moments_ptr, C, BLOCK_C)) * inverse * _vector(weight_ptr, C, BLOCK_C)
    z += _vector(bias_ptr, C, BLOCK_C)
    z = tl.where(z > 0, z, z * slope)
    if DROPOUT:
        z = tl.where(keep_elements(at, seed_ptr, 0, threshold), z * factor, 0.0)
    tl.store(y_ptr + at, z, mask=there)


@triton.jit
def _before_activation(
    grad_ptr, x_ptr, weight_ptr, bias_ptr, moments_ptr, at, there, C, eps, slope, seed_ptr, threshold, factor,
    DROPOUT: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """(gradient of z, u, weight / sqrt(variance + eps)) of one tile; the gradient is 0 outside."""
    inverse = 1.0 / tl.sqrt(_vector(moments_ptr + C, C, BLOCK_C) + eps)
    weight = _vector(weight_ptr, C, BLOCK_C)
    x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
    u = (x - _vector(moments_ptr, C, BLOCK_C)) * inverse
    grad = tl.load(grad_ptr + at, mask=there, other=0.0).to(tl.float32)
    if DROPOUT:
        grad = tl.where(keep_elements(at, seed_ptr, 0, threshold), grad * factor, 0.0)
    z = u * weight + _vector(bias_ptr, C, BLOCK_C)
    return tl.where(z > 0, grad, grad * slope), u, weight * inverse


@triton.jit
def _bwd_sums_kernel(
    grad_ptr,  # [rows, C]
    x_ptr,  # [rows, C]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    moments_ptr,  # [2, C] float32
    partial_ptr,  # [parts, 2, C] float32: of the gradients of weight and bias
    rows, C, tiles, eps, slope, seed_ptr, threshold, factor,
    DROPOUT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of C, parts)
    weight = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    bias = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for tile in range(tiles):
        at, there = _place(tl.program_id(1), tile, tiles, rows, C, BLOCK_R, BLOCK_C)
        dz, u, _ = _before_activation(
            grad_ptr, x_ptr, weight_ptr, bias_ptr, moments_ptr, at, there, C, eps, slope, seed_ptr, threshold, factor,
            DROPOUT, BLOCK_C,
        )  # fmt: skip
        weight += tl.where(there, dz * u, 0.0)
        bias += dz
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    out = partial_ptr + tl.program_id(1).to(tl.int64) * 2 * C + column
    tl.store(out, tl.sum(weight, 0), mask=column < C)
    tl.store(out + C, tl.sum(bias, 0), mask=column < C)


@triton.jit
def _bwd_apply_kernel(
    grad_ptr,  # [rows, C]
    x_ptr,  # [rows, C]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    moments_ptr,  # [2, C] float32
    sums_ptr,  # [2, C] float32: the gradients of weight and bias
    grad_x_ptr,  # [rows, C]
    rows, C, eps, slope, seed_ptr, threshold, factor,
    DROPOUT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of C, *_rows_grid(rows))
    at, there = _place(tl.program_id(2) * tl.num_programs(1) + tl.program_id(1), 0, 1, rows, C, BLOCK_R, BLOCK_C)
    dz, u, scale = _before_activation(
        grad_ptr, x_ptr, weight_ptr, bias_ptr, moments_ptr, at, there, C, eps, slope, seed_ptr, threshold, factor,
        DROPOUT, BLOCK_C,
    )  # fmt: skip
    share = 1.0 / rows
    dx = dz - _vector(sums_ptr + C, C, BLOCK_C) * share - u * (_vector(sums_ptr, C, BLOCK_C) * share)
    tl.store(grad_x_ptr + at, dx * scale, mask=there)


def _rows_grid(rows: int) -> tuple[int, int]:
    """Enough programs along y and z, which end at 65,535 each, for every block of rows; a few more do nothing."""
    blocks = triton.cdiv(rows, _PLAN["BLOCK_R"])
    z = triton.cdiv(blocks, 65535)
    return triton.cdiv(blocks, max(z, 1)), z


def _parts(rows: int, C: int, like: Tensor) -> tuple[int, int, int]:
    """(blocks of columns, parts of the rows, tiles in each part)."""
    columns, tiles = triton.cdiv(C, _PLAN["BLOCK_C"]), triton.cdiv(rows, _PLAN["BLOCK_R"])
    each = triton.cdiv(tiles, min(_MOST_PARTS, splits(like, tiles, columns)))
    return columns, triton.cdiv(tiles, each), each


def _moments(x: Tensor) -> Tensor:
    """Mean and biased variance over the rows, [2, C] float32."""
    rows, C = x.shape
    columns, parts, tiles = _parts(rows, C, x)
    partial = torch.empty(parts, 2, C, dtype=torch.float32, device=x.device)
    moments = torch.empty(2, C, dtype=torch.float32, device=x.device)
    with launch_on(x):
        _moments_kernel[(columns, parts)](x, partial, rows, C, tiles, **_PLAN)
        _merge_kernel[(columns,)](
            partial, moments, parts, rows, C, tiles * _PLAN["BLOCK_R"], PARTS=_MOST_PARTS, BLOCK_C=_PLAN["BLOCK_C"]
        )
    return moments


def norm_activation(x, weight, bias, eps, slope, rate, seed) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.norm_activation``."""
    flat, C = x.flatten(0, -2).contiguous(), x.shape[-1]
    moments, y = _moments(flat), torch.empty_like(flat)
    with launch_on(x):
        _apply_kernel[(triton.cdiv(C, _PLAN["BLOCK_C"]), *_rows_grid(len(flat)))](
            flat, weight.contiguous(), bias.contiguous(), moments, y, len(flat), C,
            eps, slope, *gpu_arguments(rate, seed, x.device), DROPOUT=rate > 0, **_PLAN,
        )  # fmt: skip
    mean, var = moments.to(weight.dtype)
    return y.view(x.shape), mean.clone(), var.clone()


def norm_activation_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed):
    """As ``reference.norm_activation_backward``. In 16 bits the moments are taken again: those kept are rounded."""
    flat, flat_grad, C = x.flatten(0, -2).contiguous(), grad.flatten(0, -2).contiguous(), x.shape[-1]
    moments = torch.stack((mean, var)) if x.dtype == torch.float32 else _moments(flat)
    columns, parts, tiles = _parts(len(flat), C, x)
    partial = torch.empty(parts, 2, C, dtype=torch.float32, device=x.device)
    given = (flat_grad, flat, weight.contiguous(), bias.contiguous(), moments)
    options = (eps, slope, *gpu_arguments(rate, seed, x.device))
    grad_x = torch.empty_like(flat)
    with launch_on(x):
        _bwd_sums_kernel[(columns, parts)](*given, partial, len(flat), C, tiles, *options, DROPOUT=rate > 0, **_PLAN)
        sums = partial.sum(0)
        _bwd_apply_kernel[(columns, *_rows_grid(len(flat)))](
            *given, sums, grad_x, len(flat), C, *options, DROPOUT=rate > 0, **_PLAN
        )
    grad_weight, grad_bias = sums.to(weight.dtype)
    return grad_x.view(x.shape), grad_weight.clone(), grad_bias.clone()


_TYPES = dict.fromkeys(("partial_ptr", "moments_ptr", "sums_ptr"), "*fp32:16") | {"C": "i32:16"}
_TYPES |= dict.fromkeys(("eps", "slope"), "fp32")
AOT = [
    compilation(
        f"norm_activation/{kernel.__name__.strip('_').removesuffix('_kernel')}",
        kernel,
        dtype,
        {"DROPOUT": True, "PARTS": _MOST_PARTS, **_PLAN},
        _TYPES,
        matrix_units=False,
    )
    for dtype in (torch.float32, torch.bfloat16)
    for kernel in (_moments_kernel, _merge_kernel, _apply_kernel, _bwd_sums_kernel, _bwd_apply_kernel)
]
