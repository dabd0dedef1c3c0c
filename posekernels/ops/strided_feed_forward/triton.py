"""Triton kernels of ``strided_feed_forward``. Their math, and what they move, is in README.md beside this file.

Two products forward, hidden units between them: the first only for frames that a tap reads, the second gathers its
rows. Backward, the one product that gathers and masks is a kernel; the plain ones are PyTorch's.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..._adapters import contiguous
from ..._dropout import gpu_arguments, seed_tensor
from ..._triton import Compilation, compilation, dot_precision, keep_elements, launch_on, power_of_2
from ...prepared import derived
from ..dropout.triton import dropout
from .products import gradients


@triton.jit
def _hidden_kernel(
    x_ptr,  # [B, T, C]
    weight_ptr,  # [N, C]
    bias_ptr,  # [N]
    hidden_ptr,  # [B, T, N]
    T, C, N,
    rows,  # frames to compute: B * T, or B * outputs * TAPS where some frames are read by no tap
    outputs, stride, seed_ptr, threshold, factor,
    SPARSE: tl.constexpr, TAPS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows * blocks of N,)
    blocks = tl.cdiv(N, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    unit = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < rows
    if SPARSE:
        frame = row // TAPS % outputs * stride + row % TAPS - TAPS // 2
        inside = inside & (frame >= 0) & (frame < T)
        row = row // (TAPS * outputs) * T + frame
    h = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, C, BLOCK_K):
        channel = start + tl.arange(0, BLOCK_K)
        x = tl.load(
            (x_ptr + row * C)[:, None] + channel[None, :], mask=inside[:, None] & (channel < C)[None, :], other=0.0
        )
        weight = tl.load(
            (weight_ptr + unit * C)[None, :] + channel[:, None],
            mask=(unit < N)[None, :] & (channel < C)[:, None],
            other=0.0,
        )
        h = tl.dot(x, weight, h, input_precision=PRECISION)
    h += tl.load(bias_ptr + unit, mask=unit < N, other=0.0).to(tl.float32)[None, :]
    h = tl.where(h < 0, 0.0, h)
    if DROPOUT:
        keep = keep_elements((row * N)[:, None] + unit[None, :], seed_ptr, 0, threshold)
        h = tl.where(keep, h * factor, 0.0)
    tl.store((hidden_ptr + row * N)[:, None] + unit[None, :], h, mask=inside[:, None] & (unit < N)[None, :])


@triton.jit
def _conv_kernel(
    hidden_ptr,  # [B, T, N]
    weight_ptr,  # [TAPS, O, N]: as it is read
    bias_ptr,  # [O]
    residual_ptr,  # [B, T, O] or None
    y_ptr,  # [B, outputs, O]
    T, N, O,
    rows,  # B * outputs
    outputs, stride, seed_ptr, threshold, factor,
    TAPS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows * blocks of O,)
    blocks = tl.cdiv(O, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    first = row // outputs * T  # of the clip
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(TAPS):
        frame = row % outputs * stride + k - TAPS // 2
        inside = (row < rows) & (frame >= 0) & (frame < T)
        for start in range(0, N, BLOCK_K):
            unit = start + tl.arange(0, BLOCK_K)
            h = tl.load(
                (hidden_ptr + (first + frame) * N)[:, None] + unit[None, :],
                mask=inside[:, None] & (unit < N)[None, :],
                other=0.0,
            )
            weight = tl.load(
                (weight_ptr + (k * O + column) * N)[None, :] + unit[:, None],
                mask=(column < O)[None, :] & (unit < N)[:, None],
                other=0.0,
            )
            y = tl.dot(h, weight, y, input_precision=PRECISION)
    y += tl.load(bias_ptr + column, mask=column < O, other=0.0).to(tl.float32)[None, :]
    if DROPOUT:
        keep = keep_elements((row * O)[:, None] + column[None, :], seed_ptr, 1, threshold)
        y = tl.where(keep, y * factor, 0.0)
    mask = (row < rows)[:, None] & (column < O)[None, :]
    if residual_ptr is not None:
        at = (residual_ptr + (first + row % outputs * stride) * O)[:, None] + column[None, :]
        y += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store((y_ptr + row * O)[:, None] + column[None, :], y, mask=mask)


@triton.jit
def _grad_hidden_kernel(
    grad_ptr,  # [B, outputs, O]
    hidden_ptr,  # [B, T, N]
    weight_ptr,  # [O, N, TAPS]
    grad_hidden_ptr,  # [B, T, N]
    T, N, O,
    rows,  # B * T
    outputs, stride, factor,
    TAPS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # grid (blocks of frames * blocks of N,): every frame asks which outputs read it
    blocks = tl.cdiv(N, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    unit = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    g = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(TAPS):
        offset = row % T + TAPS // 2 - k  # stride * output, where it is that
        output = offset // stride
        inside = (row < rows) & (offset >= 0) & (offset % stride == 0) & (output < outputs)
        for start in range(0, O, BLOCK_K):
            column = start + tl.arange(0, BLOCK_K)
            grad = tl.load(
                (grad_ptr + (row // T * outputs + output) * O)[:, None] + column[None, :],
                mask=inside[:, None] & (column < O)[None, :],
                other=0.0,
            )
            weight = tl.load(
                (weight_ptr + column * N * TAPS)[:, None] + (unit * TAPS + k)[None, :],
                mask=(column < O)[:, None] & (unit < N)[None, :],
                other=0.0,
            )
            g = tl.dot(grad, weight, g, input_precision=PRECISION)
    mask = (row < rows)[:, None] & (unit < N)[None, :]
    at = (row * N)[:, None] + unit[None, :]
    hidden = tl.load(hidden_ptr + at, mask=mask, other=0.0)
    # ReLU and dropout left a zero where nothing flows back
    tl.store(grad_hidden_ptr + at, tl.where(hidden == 0, 0.0, g * factor), mask=mask)


_MANY = 132  # programs: with fewer a large card is not filled, and they take smaller tiles


def _plan(precision: str, rows: int, columns: int, depth: int) -> dict:
    M, N = 32 if precision == "tf32x3" else 64, power_of_2(columns, 16, 64)
    if triton.cdiv(rows, M) * triton.cdiv(columns, N) < _MANY:
        M, N = 32, min(N, 32)
    return {
        "BLOCK_M": M,
        "BLOCK_N": N,
        "BLOCK_K": power_of_2(depth, 16, 32),
        "num_warps": 4,
        "num_stages": 2,
    }


def _grid(rows: int, columns: int, plan: dict) -> tuple[int]:
    return (triton.cdiv(rows, plan["BLOCK_M"]) * triton.cdiv(columns, plan["BLOCK_N"]),)


def strided_feed_forward(x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep):
    """As ``reference.strided_feed_forward``."""
    by_tap = derived("strided_feed_forward in Triton", lambda: weight2.permute(2, 0, 1).contiguous(), weight2)
    x, weight1, bias1, bias2, residual = contiguous(x, weight1, bias1, bias2, residual)
    B, T, C = x.shape
    N, (O, _, TAPS) = weight1.shape[0], weight2.shape
    outputs = (T - 1) // stride + 1
    sparse = stride > TAPS
    # in frames that no tap reads nobody looks at the hidden units, but backward takes zeros from there
    hidden = x.new_zeros(B, T, N) if sparse and keep else x.new_empty(B, T, N)
    y = x.new_empty(B, outputs, O)
    if y.numel():
        precision = dot_precision(x.dtype)
        rows = B * outputs * TAPS if sparse else B * T
        seed = seed_tensor(seed, x.device) if hidden_rate or rate else None
        with launch_on(x):
            plan = _plan(precision, rows, N, C)
            _hidden_kernel[_grid(rows, N, plan)](
                x, weight1, bias1, hidden, T, C, N, rows, outputs, stride,
                *gpu_arguments(hidden_rate, seed, x.device), SPARSE=sparse, TAPS=TAPS, DROPOUT=hidden_rate > 0,
                PRECISION=precision, **plan,
            )  # fmt: skip
            plan = _plan(precision, B * outputs, O, N)
            _conv_kernel[_grid(B * outputs, O, plan)](
                hidden, by_tap, bias2, residual, y, T, N, O, B * outputs, outputs, stride,
                *gpu_arguments(rate, seed, x.device), TAPS=TAPS, DROPOUT=rate > 0, PRECISION=precision, **plan,
            )  # fmt: skip
    return y, hidden if keep else x.new_empty(0)


def strided_feed_forward_backward(grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs):
    """As ``reference.strided_feed_forward_backward``."""
    grad, hidden, x, weight1, weight2 = contiguous(grad, hidden, x, weight1, weight2)
    B, T, C = x.shape
    N, (O, _, TAPS) = weight1.shape[0], weight2.shape
    outputs = grad.shape[1]
    if not grad.numel():
        shapes = (x.shape, weight1.shape, (N,), weight2.shape, (O,))
        return [x.new_zeros(shape) for shape, need in zip(shapes, needs) if need]
    precision = dot_precision(x.dtype)
    grad_hidden = torch.empty_like(hidden) if any(needs[:3]) else None
    if rate > 0:
        grad = dropout(grad, rate, seed, stream=1)
    with launch_on(x):
        if grad_hidden is not None:
            plan = _plan(precision, B * T, N, O)
            _grad_hidden_kernel[_grid(B * T, N, plan)](
                grad, hidden, weight2, grad_hidden, T, N, O, B * T, outputs, stride, 1 / (1 - hidden_rate),
                TAPS=TAPS, PRECISION=precision, **plan,
            )  # fmt: skip
    return gradients(grad, grad_hidden, hidden, x, weight1, TAPS, stride, needs)


def _compilations() -> list[Compilation]:
    """Every kernel at the sizes of a vanilla and of a strided layer, with dropout and without."""
    found = []
    types = dict.fromkeys(("C", "N", "O"), "i32:16")
    for dtype, precision in ((torch.bfloat16, "ieee"), (torch.float32, "tf32")):
        for taps, sparse in ((1, False), (3, True)):
            for name, kernel, sizes in (
                ("hidden", _hidden_kernel, (512, 256)),
                ("conv", _conv_kernel, (256, 512)),
                ("grad_hidden", _grad_hidden_kernel, (512, 256)),
            ):
                for drops in (False, True)[: 1 if name == "grad_hidden" else 2]:
                    plan = _plan(precision, 1 << 20, *sizes)
                    plan |= {"TAPS": taps, "PRECISION": precision, "SPARSE": sparse, "DROPOUT": drops}
                    label = f"strided_feed_forward/{name}-{taps}{'-dropout' if drops else ''}"
                    two = (name, taps, drops, precision) == ("conv", 3, True, "tf32")  # registers, on sm_90
                    spills = 8 if two else 0
                    found.append(compilation(label, kernel, dtype, plan, types, spills_accepted=spills))
    return found


AOT = _compilations()
