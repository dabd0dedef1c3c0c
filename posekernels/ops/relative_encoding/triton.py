"""Triton kernels of ``relative_encoding``: a launch for all parts (for every 16 of them), forward and backward."""

from __future__ import annotations

import dataclasses
import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._tables import table
from ..._triton import Compilation, compilation, launch_on, power_of_2
from ..strided_temporal_conv.triton import _of as one_of

_MOST = 16  # parts of a launch forward


@triton.jit
def _encoding_fwd_kernel(
    x_ptr,  # [B, T, J, F] contiguous
    joints_ptr,  # [sum of size] int32: the parts, one after the other
    out_ptr,  # [B, T, 3 size F]; like first and size a tuple, an entry per part
    first,  # of the part, in joints_ptr
    size,
    rows,  # B T
    T,
    JF,  # J F
    F,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of rows, parts)
    part = tl.program_id(1)
    width = one_of(size, part) * F
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (column < 3 * width)[None, :]
    kind = column // width  # 0 raw, 1 minus the root, 2 minus the middle frame
    place = column % width
    own = tl.load(joints_ptr + one_of(first, part) + place // F, mask=column < 3 * width, other=0) * F + place % F
    middle = row // T * T + T // 2
    y = tl.load(x_ptr + (row * JF)[:, None] + own[None, :], mask=mask, other=0.0)
    from_row = tl.where((kind == 1)[None, :], row[:, None], middle[:, None])
    from_column = tl.where(kind == 1, place % F, own)
    taken = tl.load(x_ptr + from_row * JF + from_column[None, :], mask=mask & (kind > 0)[None, :], other=0.0)
    y = y.to(tl.float32) - taken.to(tl.float32)
    tl.store(one_of(out_ptr, part) + (row * (3 * width))[:, None] + column[None, :], y, mask=mask)


@triton.jit
def _encoding_bwd_kernel(
    grad_ptr,  # [B, T, width]: all parts side by side
    joints_ptr,  # [places] int32
    starts_ptr,  # [places] int32: column of the place's raw block
    steps_ptr,  # [places] int32: from there to the next block
    out_ptr,  # [B, T, J, F]
    T,
    JF,  # J F
    F,
    places,
    width,
    BLOCK_T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (B,): the middle frame sums over its window
    first = tl.program_id(0).to(tl.int64) * T
    column = tl.arange(0, BLOCK)
    joint = column // F
    middle_row = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, T, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        there = (t < T)[:, None] & (column < JF)[None, :]
        total = tl.zeros((BLOCK_T, BLOCK), tl.float32)
        for i in range(places):
            own = there & (joint == tl.load(joints_ptr + i))[None, :]
            root = there & (joint == 0)[None, :]
            at = grad_ptr + ((first + t) * width)[:, None] + (tl.load(starts_ptr + i) + column % F)[None, :]
            step = tl.load(steps_ptr + i)
            raw = tl.load(at, mask=own, other=0.0).to(tl.float32)
            to_root = tl.load(at + step, mask=own | root, other=0.0).to(tl.float32)
            to_middle = tl.load(at + 2 * step, mask=own, other=0.0).to(tl.float32)
            total += raw + to_middle + tl.where(own, to_root, 0.0) - tl.where(root, to_root, 0.0)
            middle_row -= tl.sum(to_middle, 0)
        middle_row += tl.sum(tl.where((t == T // 2)[:, None], total, 0.0), 0)
        mask = there & (t != T // 2)[:, None]
        tl.store(out_ptr + ((first + t) * JF)[:, None] + column[None, :], total, mask=mask)
    tl.store(out_ptr + (first + T // 2) * JF + column, middle_row, mask=column < JF)


def relative_encoding(x, joints, sizes) -> list[Tensor]:
    """As ``reference.relative_encoding``."""
    B, T, J, F = x.shape
    x = x.contiguous()
    results = [x.new_empty(B, T, 3 * F * size) for size in sizes]
    firsts = list(itertools.accumulate(sizes, initial=0))
    parts = [i for i, out in enumerate(results) if out.numel()]
    for some in (parts[i : i + _MOST] for i in range(0, len(parts), _MOST)):
        out, first, size = (tuple(values[i] for i in some) for values in (results, firsts, sizes))
        BLOCK = triton.next_power_of_2(3 * F * max(size))
        ROWS = power_of_2(1024 // BLOCK, 1, 64)
        with launch_on(x):
            _encoding_fwd_kernel[(triton.cdiv(B * T, ROWS), len(some))](
                x, table(joints, x.device, torch.int32), out, first, size, B * T, T, J * F, F, ROWS=ROWS, BLOCK=BLOCK,
                num_warps=4,
            )  # fmt: skip
    return results


def relative_encoding_backward(grads, x, joints, sizes) -> Tensor:
    """As ``reference.relative_encoding_backward``."""
    B, T, J, F = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    starts, steps, first = [], [], 0
    for size in sizes:
        starts += [first + i * F for i in range(size)]
        steps += [size * F] * size
        first += 3 * size * F
    tables = [table(numbers, x.device, torch.int32) for numbers in (joints, starts, steps)]
    grad = torch.cat(list(grads), -1)
    BLOCK = triton.next_power_of_2(J * F)
    BLOCK_T = power_of_2(T, 1, max(1, 1024 // BLOCK))
    with launch_on(x):
        _encoding_bwd_kernel[(B,)](
            grad, *tables, out, T, J * F, F, len(joints), first, BLOCK_T=BLOCK_T, BLOCK=BLOCK, num_warps=4
        )
    return out


def _compilations() -> list[Compilation]:
    """RIE's five parts of 17 joints."""
    found = []
    tables = dict.fromkeys(("joints_ptr", "starts_ptr", "steps_ptr"), "*i32:16")
    for dtype in (torch.float32, torch.bfloat16):
        forward, backward = {"ROWS": 32, "BLOCK": 32}, {"BLOCK_T": 16, "BLOCK": 64}
        usual = compilation("relative_encoding/fwd", _encoding_fwd_kernel, dtype, forward, tables, matrix_units=False)
        types = {a: (t,) * 5 if a in ("out_ptr", "first", "size") else t for a, t in usual.types.items()}
        found.append(dataclasses.replace(usual, types=types))
        found.append(
            compilation("relative_encoding/bwd", _encoding_bwd_kernel, dtype, backward, tables, matrix_units=False)
        )
    return found


AOT = _compilations()
