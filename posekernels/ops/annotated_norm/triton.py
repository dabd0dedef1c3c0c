"""Triton kernels of ``annotated_norm``: a program owns whole rows. The math is in README.md beside this file.

The forward kernel knows PyTorch's layer norm too (biased variance, eps under the root), which differs in one line:
fused blocks take their norms from here, through ``layer_norm``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._dropout import Seed, gpu_arguments
from ..._triton import (
    Compilation,
    centred_rows,
    compilation,
    keep_elements,
    launch_on,
    layer_norm_rows,
    load_rows,
    row_plan,
    row_vector,
    splits,
    store_rows,
)


@triton.jit
def _annotated_norm_fwd_kernel(
    x_ptr,  # [N, C], rows x_row apart
    residual_ptr,  # [N, C] or None
    scale_ptr,  # [C]
    shift_ptr,  # [C]
    y_ptr,  # [N, C]
    total_ptr,  # [N, C]: their sum, or None
    N, C, x_row,
    eps,
    seed_ptr,
    threshold,
    factor,
    LAYER: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_C)
    total = load_rows(x_ptr, x_row, row, N, column, C)
    if residual_ptr is not None:
        if DROPOUT:
            keep = keep_elements((row * C)[:, None] + column[None, :], seed_ptr, 0, threshold)
            total = tl.where(keep, total * factor, 0.0)
        total += load_rows(residual_ptr, C, row, N, column, C)
        if total_ptr is not None:
            total = total.to(total_ptr.dtype.element_ty).to(tl.float32)  # what backward will read
            store_rows(total_ptr, C, total, row, N, column, C)
    if LAYER:
        y = layer_norm_rows(total, scale_ptr, shift_ptr, column, C, eps)
    else:
        centred, squares = centred_rows(total, column, C)
        y = centred / (tl.sqrt(squares / (C - 1)) + eps)[:, None]
        y = y * row_vector(scale_ptr, column, C) + row_vector(shift_ptr, column, C)
    store_rows(y_ptr, C, y, row, N, column, C)


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
    seed_ptr,
    threshold,
    factor,
    DROPOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (programs,): each takes `blocks` blocks of rows
    column = tl.arange(0, BLOCK_C)
    scale = row_vector(scale_ptr, column, C)
    sum_scale = tl.zeros((BLOCK_C,), tl.float32)
    sum_shift = tl.zeros((BLOCK_C,), tl.float32)
    for block in range(blocks):
        row = (tl.program_id(0).to(tl.int64) * blocks + block) * BLOCK_R + tl.arange(0, BLOCK_R)
        centred, squares = centred_rows(load_rows(total_ptr, C, row, N, column, C), column, C)
        std = tl.sqrt(squares / (C - 1))
        grad = load_rows(grad_ptr, C, row, N, column, C)
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
                through += load_rows(grad_total_ptr, C, row, N, column, C)
            if grad_residual_ptr is not None:
                store_rows(grad_residual_ptr, C, through, row, N, column, C)
            if grad_x_ptr is not None:
                if DROPOUT:
                    keep = keep_elements((row * C)[:, None] + column[None, :], seed_ptr, 0, threshold)
                    through = tl.where(keep, through * factor, 0.0)
                store_rows(grad_x_ptr, C, through, row, N, column, C)
    at = partial_ptr + tl.program_id(0) * 2 * C + column
    tl.store(at, sum_scale, mask=column < C)
    tl.store(at + C, sum_shift, mask=column < C)


def _launch(x, residual, scale, shift, y, total, eps, layer: bool, rate: float = 0.0, seed: Seed = 0) -> None:
    """Fill y and, unless it is None, total."""
    N, C = x.shape
    if N:
        plan = row_plan(C)
        with launch_on(x):
            _annotated_norm_fwd_kernel[(triton.cdiv(N, plan["BLOCK_R"]),)](
                x, residual, scale, shift, y, total, N, C, x.stride(0), eps, *gpu_arguments(rate, seed, x.device),
                LAYER=layer, DROPOUT=rate > 0, **plan,
            )  # fmt: skip


def annotated_norm(x, residual, scale, shift, eps, rate, seed):
    """As ``reference.annotated_norm``."""
    x, residual, scale, shift = contiguous(x, residual, scale, shift)
    y = torch.empty_like(x)
    total = None if residual is None else torch.empty_like(x)
    _launch(x, residual, scale, shift, y, total, eps, False, rate, seed)
    return y, x.new_empty(0) if total is None else total


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None = None, out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """PyTorch's layer norm of x + residual, in one pass: what other ops' Triton backends share.

    Args:
        x: [N, C], rows anywhere, channels side by side.
        weight, bias: [C].
        residual: [N, C] contiguous; the sum is made in float32.
        out: [N, C] contiguous: takes the norm, and the sum is not written.
    Returns:
        The norm, and x + residual where that is written; [N, C] contiguous.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    total = None if residual is None or out is not None else torch.empty_like(y)
    _launch(x, residual, weight.contiguous(), bias.contiguous(), y, total, eps, True)
    return y, total


def annotated_norm_backward(grad, grad_total, total, scale, eps, rate, seed, needs):
    """As ``reference.annotated_norm_backward``. Sums over rows are made in two stages, without atomics."""
    grad, grad_total, total, scale = contiguous(grad, grad_total, total, scale)
    N, C = total.shape
    plan = row_plan(C)
    tiles = triton.cdiv(N, plan["BLOCK_R"])
    blocks = triton.cdiv(tiles, splits(total, tiles, 1)) if tiles else 0
    programs = triton.cdiv(tiles, blocks) if tiles else 0
    grad_x = torch.empty_like(total) if needs[0] else None
    grad_residual = torch.empty_like(total) if needs[1] else None
    partial = torch.empty(programs, 2, C, dtype=torch.float32, device=total.device)
    if programs:
        with launch_on(total):
            _annotated_norm_bwd_kernel[(programs,)](
                grad, grad_total, total, scale, grad_x, grad_residual, partial, N, C, blocks, eps,
                *gpu_arguments(rate, seed, total.device), DROPOUT=rate > 0, **plan,
            )  # fmt: skip
    sums = partial.sum(0).to(scale.dtype)
    found = (grad_x, grad_residual, sums[0], sums[1])
    return [g.clone() if i > 1 else g for i, (g, need) in enumerate(zip(found, needs)) if need]


_TYPES = {"eps": "fp32", "C": "i32:16", "x_row": "i32:16"}
_TYPES["partial_ptr"] = "*fp32:16"


def _compilation(name: str, kernel, dtype: torch.dtype, C: int, **constants) -> Compilation:
    return compilation(name, kernel, dtype, row_plan(C) | constants, _TYPES, matrix_units=False)


def layer_norm_compilations(op: str, C: int, *, sums: bool) -> list[Compilation]:
    """``layer_norm`` of rows of C, as ``op`` uses it: of one matrix; of a sum, and of one that is not written."""
    kinds = {"norm": ("residual_ptr", "total_ptr")} | ({"add_norm": (), "last_norm": ("total_ptr",)} if sums else {})
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for label, left_out in kinds.items():
            constants = dict.fromkeys(left_out) | {"LAYER": True, "DROPOUT": False}
            found.append(_compilation(f"{op}/{label}-{C}", _annotated_norm_fwd_kernel, dtype, C, **constants))
    return found


def _compilations() -> list[Compilation]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for dropout in (False, True):
            name = f"-256{'-dropout' if dropout else ''}"
            forward, backward = _annotated_norm_fwd_kernel, _annotated_norm_bwd_kernel
            found.append(_compilation(f"annotated_norm/fwd{name}", forward, dtype, 256, LAYER=False, DROPOUT=dropout))
            found.append(_compilation(f"annotated_norm/bwd{name}", backward, dtype, 256, DROPOUT=dropout))
    return found


AOT = _compilations()
