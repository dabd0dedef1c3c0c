"""Triton kernels of ``annotated_norm``: a program owns whole rows. The math is in README.md beside this file."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..._dropout import threshold
from ..._triton import TYPE_NAMES, Compilation, keep_elements, launch_on, splits


@triton.jit
def _rows(ptr, row, rows, column, C):
    """[len(row), len(column)] float32; 0 outside."""
    mask = (row < rows)[:, None] & (column < C)[None, :]
    return tl.load((ptr + row * C)[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_rows(ptr, value, row, rows, column, C):
    mask = (row < rows)[:, None] & (column < C)[None, :]
    tl.store((ptr + row * C)[:, None] + column[None, :], value, mask=mask)


@triton.jit
def _row_vector(ptr, column, C):
    return tl.load(ptr + column, mask=column < C, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _moments(total, column, C):
    """(deviation from the mean, 0 past C; unbiased std) of each row."""
    mean = tl.sum(total, 1) / C
    centred = tl.where((column < C)[None, :], total - mean[:, None], 0.0)
    return centred, tl.sqrt(tl.sum(centred * centred, 1) / (C - 1))


@triton.jit
def _annotated_norm_fwd_kernel(
    x_ptr,  # [N, C]
    residual_ptr,  # [N, C] or None
    scale_ptr,  # [C]
    shift_ptr,  # [C]
    y_ptr,  # [N, C]
    total_ptr,  # [N, C], written where there is a residual
    N, C,
    eps,
    seed,
    threshold,
    factor,
    DROPOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_C)
    total = _rows(x_ptr, row, N, column, C)
    if residual_ptr is not None:
        if DROPOUT:
            keep = keep_elements((row * C)[:, None] + column[None, :], seed, 0, threshold)
            total = tl.where(keep, total * factor, 0.0)
        total += _rows(residual_ptr, row, N, column, C)
        total = total.to(total_ptr.dtype.element_ty).to(tl.float32)  # what backward will read
        _store_rows(total_ptr, total, row, N, column, C)
    centred, std = _moments(total, column, C)
    y = centred / (std + eps)[:, None] * _row_vector(scale_ptr, column, C) + _row_vector(shift_ptr, column, C)
    _store_rows(y_ptr, y, row, N, column, C)


@triton.jit
def _annotated_norm_bwd_kernel(
    grad_ptr,  # [N, C]
    grad_total_ptr,  # [N, C] or None
    total_ptr,  # [N, C]
    scale_ptr,  # [C]
    grad_x_ptr,  # [N, C] or None
    grad_residual_ptr,  # [N, C] or None
    partial_ptr,  # [programs, 2, C] float32: sums of grad * unit, and of grad
    N, C, blocks,
    eps,
    seed,
    threshold,
    factor,
    DROPOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (programs,): each takes `blocks` blocks of rows
    column = tl.arange(0, BLOCK_C)
    scale = _row_vector(scale_ptr, column, C)
    sum_scale = tl.zeros((BLOCK_C,), tl.float32)
    sum_shift = tl.zeros((BLOCK_C,), tl.float32)
    for block in range(blocks):
        row = (tl.program_id(0).to(tl.int64) * blocks + block) * BLOCK_R + tl.arange(0, BLOCK_R)
        centred, std = _moments(_rows(total_ptr, row, N, column, C), column, C)
        grad = _rows(grad_ptr, row, N, column, C)
        inverse = 1.0 / (std + eps)
        sum_scale += tl.sum(grad * centred * inverse[:, None], 0)
        sum_shift += tl.sum(grad, 0)
        if (grad_x_ptr is not None) or (grad_residual_ptr is not None):
            weighted = grad * scale
            along = tl.sum(weighted * centred, 1)
            constant = std == 0.0  # the std of a constant row counts as a constant
            slope = tl.where(constant, 0.0, along * inverse / ((C - 1) * tl.where(constant, 1.0, std)))
            through = (weighted - (tl.sum(weighted, 1) / C)[:, None] - centred * slope[:, None]) * inverse[:, None]
            if grad_total_ptr is not None:
                through += _rows(grad_total_ptr, row, N, column, C)
            if grad_residual_ptr is not None:
                _store_rows(grad_residual_ptr, through, row, N, column, C)
            if grad_x_ptr is not None:
                if DROPOUT:
                    keep = keep_elements((row * C)[:, None] + column[None, :], seed, 0, threshold)
                    through = tl.where(keep, through * factor, 0.0)
                _store_rows(grad_x_ptr, through, row, N, column, C)
    at = partial_ptr + tl.program_id(0) * 2 * C + column
    tl.store(at, sum_scale, mask=column < C)
    tl.store(at + C, sum_shift, mask=column < C)


def _plan(C: int) -> dict:
    BLOCK_C = triton.next_power_of_2(C)
    return {"BLOCK_R": max(1, min(16, 1024 // BLOCK_C)), "BLOCK_C": BLOCK_C, "num_warps": 4}


def annotated_norm(x, residual, scale, shift, eps, rate, seed):
    """As ``reference.annotated_norm``."""
    x, residual, scale, shift = (None if t is None else t.contiguous() for t in (x, residual, scale, shift))
    y = torch.empty_like(x)
    total = None if residual is None else torch.empty_like(x)
    N, C = x.shape
    if N:
        plan = _plan(C)
        with launch_on(x):
            _annotated_norm_fwd_kernel[(triton.cdiv(N, plan["BLOCK_R"]),)](
                x, residual, scale, shift, y, total, N, C, eps, seed, threshold(rate), 1 / (1 - rate),
                DROPOUT=rate > 0, **plan,
            )  # fmt: skip
    return y, x.new_empty(0) if total is None else total


def annotated_norm_backward(grad, grad_total, total, scale, eps, rate, seed, needs):
    """As ``reference.annotated_norm_backward``. Sums over rows are made in two stages, without atomics."""
    grad, grad_total, total, scale = (None if t is None else t.contiguous() for t in (grad, grad_total, total, scale))
    N, C = total.shape
    plan = _plan(C)
    tiles = triton.cdiv(N, plan["BLOCK_R"])
    blocks = triton.cdiv(tiles, splits(total, tiles, 1)) if tiles else 0
    programs = triton.cdiv(tiles, blocks) if tiles else 0
    grad_x = torch.empty_like(total) if needs[0] else None
    grad_residual = torch.empty_like(total) if needs[1] else None
    partial = torch.empty(programs, 2, C, dtype=torch.float32, device=total.device)
    if programs:
        with launch_on(total):
            _annotated_norm_bwd_kernel[(programs,)](
                grad, grad_total, total, scale, grad_x, grad_residual, partial, N, C, blocks, eps, seed,
                threshold(rate), 1 / (1 - rate), DROPOUT=rate > 0, **plan,
            )  # fmt: skip
    sums = partial.sum(0).to(scale.dtype)
    found = (grad_x, grad_residual, sums[0], sums[1])
    return [g.clone() if i > 1 else g for i, (g, need) in enumerate(zip(found, needs)) if need]


def _compilations() -> list[Compilation]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, kernel in (("fwd", _annotated_norm_fwd_kernel), ("bwd", _annotated_norm_bwd_kernel)):
            for dropout in (False, True):
                plan = _plan(256)
                constants = {k: v for k, v in plan.items() if k.startswith("BLOCK")} | {"DROPOUT": dropout}
                types = {"seed": "i64", "threshold": "i64", "eps": "fp32", "factor": "fp32", "C": "i32:16"}
                types["partial_ptr"] = "*fp32:16"
                for argument in kernel.arg_names:
                    if argument in constants:
                        types[argument] = "constexpr"
                    else:
                        pointer = argument.endswith("_ptr")
                        types.setdefault(argument, f"*{TYPE_NAMES[dtype]}:16" if pointer else "i32")
                label = f"annotated_norm/{name}-256{'-dropout' if dropout else ''}/{TYPE_NAMES[dtype]}"
                types = {argument: types[argument] for argument in kernel.arg_names}
                found.append(Compilation(label, kernel, types, constants, plan["num_warps"], matrix_units=False))
    return found


AOT = _compilations()
