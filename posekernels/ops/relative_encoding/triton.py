"""Triton kernels of ``relative_encoding``: a launch for every part forward, one for all of them backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._tables import table
from ..._triton import compilation, launch_on, power_of_2


@triton.jit
def _encoding_fwd_kernel(
    x_ptr,  # [B, T, J, F] contiguous
    joints_ptr,  # [size] int32: the part
    out_ptr,  # [B, T, 3 size F]
    rows,  # B T
    T,
    JF,  # J F
    F,
    size,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (column < 3 * size * F)[None, :]
    kind = column // (size * F)  # 0 raw, 1 minus the root, 2 minus the middle frame
    place = column % (size * F)
    own = tl.load(joints_ptr + place // F, mask=column < 3 * size * F, other=0) * F + place % F
    middle = row // T * T + T // 2
    y = tl.load(x_ptr + (row * JF)[:, None] + own[None, :], mask=mask, other=0.0)
    from_row = tl.where((kind == 1)[None, :], row[:, None], middle[:, None])
    from_column = tl.where(kind == 1, place % F, own)
    taken = tl.load(x_ptr + from_row * JF + from_column[None, :], mask=mask & (kind > 0)[None, :], other=0.0)
    y = y.to(tl.float32) - taken.to(tl.float32)
    tl.store(out_ptr + (row * (3 * size * F))[:, None] + column[None, :], y, mask=mask)


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
    results, first = [], 0
    for size in sizes:
        out = x.new_empty(B, T, 3 * F * size)
        if out.numel():
            part = table(joints[first : first + size], x.device, torch.int32)
            BLOCK = triton.next_power_of_2(3 * F * size)
            ROWS = power_of_2(1024 // BLOCK, 1, 64)
            with launch_on(x):
                _encoding_fwd_kernel[(triton.cdiv(B * T, ROWS),)](
                    x, part, out, B * T, T, J * F, F, size, ROWS=ROWS, BLOCK=BLOCK, num_warps=4
                )
        results.append(out)
        first += size
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


_TABLES = dict.fromkeys(("joints_ptr", "starts_ptr", "steps_ptr"), "*i32:16")
AOT = [  # 17 joints
    compilation(f"relative_encoding/{name}", kernel, dtype, plan, _TABLES, matrix_units=False)
    for dtype in (torch.float32, torch.bfloat16)
    for name, kernel, plan in (
        ("fwd", _encoding_fwd_kernel, {"ROWS": 32, "BLOCK": 32}),
        ("bwd", _encoding_bwd_kernel, {"BLOCK_T": 16, "BLOCK": 64}),
    )
]
