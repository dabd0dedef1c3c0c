"""Triton kernels of ``strided_temporal_conv``: products over non-overlapping windows, one forward launch for 16 groups.

A window of w frames of [B, T, Ci] is one row of w Ci numbers, frame after frame, as it lies in memory: column ``depth``
of that row is channel depth % Ci of frame depth // Ci. A filter [Co, Ci, w] is read in that order; nothing is copied.
"""

from __future__ import annotations

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import PRECISIONS, Compilation, compilation, dot_precision, launch_on, load_tile, power_of_2, splits
from .groups import Group, groups_of, rows_of
from .reference import width_of

_MOST = 16  # groups of a launch


@triton.jit
def _filter(ptr, out, Co, depth, Ci, width):
    """[len(out), len(depth)] of the filters; 0 outside."""
    mask = (out < Co)[:, None] & (depth < Ci * width)[None, :]
    place = depth % Ci * width + depth // Ci
    return tl.load((ptr + out * (Ci * width))[:, None] + place[None, :], mask=mask, other=0.0)


@triton.jit
def _vector(ptr, column, columns, otherwise):
    """[1, len(column)] float32; ``otherwise`` from ``columns`` on."""
    return tl.load(ptr + column, mask=column < columns, other=otherwise).to(tl.float32)[None, :]


@triton.jit
def _of(values, group):
    """values[group] of a tuple, for a group that only the running program knows."""
    found = values[0]
    for i in tl.static_range(1, len(values)):
        found = tl.where(group == i, values[i], found)
    return found


@triton.jit
def _conv_fwd_kernel(
    x_ptr,  # [rows, width Ci], rows ``pitch`` apart; like every argument a tuple, an entry per group
    weight_ptr,  # [Co, Ci, width]
    bias_ptr,  # [Co], as scale and shift
    scale_ptr,
    shift_ptr,
    residual_ptr,  # [rows stride, Co]
    out_ptr,  # [rows, Co]
    rows,  # windows
    pitch,
    Ci,
    Co,
    width,
    stride,
    tap,
    parts,  # which of bias, scale, shift and residual the group has, a bit each
    slope,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # grid (blocks of rows * blocks of Co, summed over groups,). The table of pointers and sizes is the kernel's
    # parameters: in device memory it would cost a copy a call, whose source a CUDA graph would need to stay alive. And
    # pointers keep their alignment through ``tl.where``, which numbers cast to pointers do not have.
    group, first, end = 0, 0, 0
    for i in tl.static_range(len(rows)):
        group, first = tl.where(tl.program_id(0) >= end, i, group), tl.where(tl.program_id(0) >= end, end, first)
        end += tl.cdiv(rows[i], BLOCK_M) * tl.cdiv(Co[i], BLOCK_N)
    windows, channels, columns, taps, has = (
        _of(rows, group), _of(Ci, group), _of(Co, group), _of(width, group), _of(parts, group)
    )  # fmt: skip
    x_of, pitch_of, weight_of = _of(x_ptr, group), _of(pitch, group), _of(weight_ptr, group)
    blocks = tl.cdiv(columns, BLOCK_N)
    tile = tl.program_id(0) - first
    row = (tile // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    out = tile % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, channels * taps, BLOCK_K):
        depth = start + tl.arange(0, BLOCK_K)
        x = load_tile(x_of, pitch_of, row, windows, depth, channels * taps)
        weight = _filter(weight_of, out, columns, depth, channels, taps)
        y = tl.dot(x, tl.trans(weight), y, input_precision=PRECISION)
    y += _vector(_of(bias_ptr, group), out, columns * (has & 1), 0.0)  # of what the group has not, nothing is read
    y *= _vector(_of(scale_ptr, group), out, columns * (has >> 1 & 1), 1.0)
    y += _vector(_of(shift_ptr, group), out, columns * (has >> 2 & 1), 0.0)
    y = tl.where(y > 0, y, y * _of(slope, group))
    mask = (row < windows)[:, None] & (out < columns)[None, :]
    place = ((row * _of(stride, group) + _of(tap, group)) * columns)[:, None] + out[None, :]
    added = (row < windows * (has >> 3))[:, None] & (out < columns)[None, :]
    y += tl.load(_of(residual_ptr, group) + place, mask=added, other=0.0).to(tl.float32)
    tl.store(_of(out_ptr, group) + (row * columns)[:, None] + out[None, :], y, mask=mask)


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
        grad = load_tile(grad_ptr, Co, row, rows, out, Co)
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
        grad = load_tile(grad_ptr, Co, row, rows, out, Co)
        x = load_tile(x_ptr, Ci * width, row, rows, depth, Ci * width)
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


def _launch(groups: list[Group]) -> list[Tensor]:
    tensors, numbers = [], []
    for group in groups:
        (Co, Ci), width = group.weight.shape[:2], width_of(group.weight)
        x, pitch = rows_of(group.x, width)
        y = x.new_empty(x.shape[0], x.shape[1] // width, Co)
        vectors = [y if v is None else v.contiguous() for v in group[2:6]]  # any address does for one not there
        parts = sum(1 << i for i, v in enumerate(group[2:6]) if v is not None)
        tensors.append((x, group.weight.contiguous(), *vectors, y))
        numbers.append((y.shape[0] * y.shape[1], pitch, Ci, Co, width, group.stride, group.tap, parts, group.slope))
    rows, _, Ci, Co, width, *_ = columns = list(zip(*numbers))
    x, precision = tensors[0][0], dot_precision(tensors[0][0].dtype)
    plan = _plan(precision, x.dtype, max(rows), max(Co), max(c * w for c, w in zip(Ci, width)))
    tiles = sum(triton.cdiv(m, plan["BLOCK_M"]) * triton.cdiv(n, plan["BLOCK_N"]) for m, n in zip(rows, Co))
    if tiles:
        with launch_on(x):
            _conv_fwd_kernel[(tiles,)](*zip(*tensors), *columns, PRECISION=precision, **plan)
    return [made[-1] for made in tensors]


def run(groups: list[Group]) -> list[Tensor]:
    """The results [B, T // w, Co] of networks side by side; sizes may differ from one to the next."""
    return [y for first in range(0, len(groups), _MOST) for y in _launch(groups[first : first + _MOST])]


def strided_temporal_conv(*args) -> list[Tensor]:
    """As ``reference.strided_temporal_conv``."""
    return run(groups_of(*args))


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


def _compilations() -> list[Compilation]:
    """RIE's inner layers (256 channels, 3 frames): the five parts in one launch."""
    found = []
    for dtype, precision in PRECISIONS:
        plan = _plan(precision, dtype, 4096, 4096, 4096) | {"PRECISION": precision}
        types = {"partial_ptr": "*fp32:16", "slope": "fp32", "Ci": "i32:16", "Co": "i32:16", "pitch": "i32:16"}
        usual = compilation("strided_temporal_conv/fwd", _conv_fwd_kernel, dtype, plan, types)
        grouped = {a: t if t == "constexpr" else (t,) * 5 for a, t in usual.types.items()}
        found.append(dataclasses.replace(usual, types=grouped))
        for name, kernel in (("bwd_x", _conv_bwd_x_kernel), ("bwd_weight", _conv_bwd_weight_kernel)):
            found.append(compilation(f"strided_temporal_conv/{name}", kernel, dtype, plan, types))
    return found


AOT = _compilations()
