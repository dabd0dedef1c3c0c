"""Triton kernels of ``temporal_mlp``. The math they follow is in README.md beside this file.

One program carries one sample: its state [BLOCK_C, BLOCK_T] stays in registers, in float32, through all blocks, and the
weights (about a megabyte) come from the L2 cache. Rows past C and columns past T are kept at 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import TYPE_NAMES, Compilation, dot_precision, launch_on, power_of_2, splits


@triton.jit
def _matrix(ptr, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] of a contiguous [rows, columns] matrix, 0 elsewhere."""
    r, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    mask = (r < rows)[:, None] & (c < columns)[None, :]
    return tl.load(ptr + (r * columns)[:, None] + c[None, :], mask=mask, other=0.0)


@triton.jit
def _vector(ptr, n, SIZE: tl.constexpr):
    """[SIZE] float32, 0 past n."""
    i = tl.arange(0, SIZE)
    return tl.load(ptr + i, mask=i < n, other=0.0).to(tl.float32)


@triton.jit
def _affine(ptr, C, T, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, NORM: tl.constexpr):
    """The scale or shift of the last norm as it broadcasts against [BLOCK_C, BLOCK_T]."""
    if NORM == "spatial":
        value = _vector(ptr, C, BLOCK_C)[:, None]
    elif NORM == "temporal":
        value = _vector(ptr, T, BLOCK_T)[None, :]
    else:
        value = _matrix(ptr, C, T, BLOCK_C, BLOCK_T).to(tl.float32)
    return value


@triton.jit
def _group_mean(values, size, NORM: tl.constexpr):
    """The mean of a tile, whose padding is 0, over the axis of a norm; broadcasts against it."""
    if NORM == "spatial":
        mean = (tl.sum(values, 0) / size)[None, :]
    elif NORM == "temporal":
        mean = (tl.sum(values, 1) / size)[:, None]
    else:
        mean = tl.sum(tl.sum(values, 1), 0) / size
    return mean


@triton.jit
def _normalise(values, valid, size, eps, NORM: tl.constexpr):
    """(normalised tile, 0 in the padding; 1 / sqrt(variance + eps) as it broadcasts)."""
    centred = tl.where(valid, values - _group_mean(tl.where(valid, values, 0.0), size, NORM), 0.0)
    inverse = 1.0 / tl.sqrt(_group_mean(centred * centred, size, NORM) + eps)
    return centred * inverse, inverse


@triton.jit
def _second_map(
    h, weight_ptr, bias_ptr, C, T,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, MIX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BLOCK_C, BLOCK_T] float32: F(h)."""
    dtype: tl.constexpr = weight_ptr.dtype.element_ty
    if MIX == "temporal":
        weight = tl.trans(_matrix(weight_ptr, T, T, BLOCK_T, BLOCK_T))
        z = tl.dot(h.to(dtype), weight, input_precision=PRECISION) + _vector(bias_ptr, T, BLOCK_T)[None, :]
    else:
        weight = _matrix(weight_ptr, C, C, BLOCK_C, BLOCK_C)
        z = tl.dot(weight, h.to(dtype), input_precision=PRECISION) + _vector(bias_ptr, C, BLOCK_C)[:, None]
    return z


@triton.jit
def _first_map(
    x, weight_ptr, bias_ptr, valid, T, eps, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """(normalised y, its inverse deviations) of y = A x + a."""
    weight = tl.trans(_matrix(weight_ptr, T, T, BLOCK_T, BLOCK_T))
    y = tl.dot(x.to(weight.dtype), weight, input_precision=PRECISION) + _vector(bias_ptr, T, BLOCK_T)[None, :]
    return _normalise(y, valid, T, eps, "temporal")


@triton.jit
def _block(
    x, n, weight_ptr, bias_ptr, scale_ptr, shift_ptr, pre_weight_ptr, pre_bias_ptr, pre_scale_ptr, pre_shift_ptr,
    valid, C, T, size, affine, eps,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, MIX: tl.constexpr, NORM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The state after block n."""
    h = x
    if pre_weight_ptr is not None:
        normal, _ = _first_map(
            x, pre_weight_ptr + n * T * T, pre_bias_ptr + n * T, valid, T, eps, BLOCK_T, PRECISION
        )  # fmt: skip
        scale = _vector(pre_scale_ptr + n * T, T, BLOCK_T)[None, :]
        h = tl.where(valid, x + normal * scale + _vector(pre_shift_ptr + n * T, T, BLOCK_T)[None, :], 0.0)
    M = T if MIX == "temporal" else C
    z = _second_map(h, weight_ptr + n * M * M, bias_ptr + n * M, C, T, BLOCK_C, BLOCK_T, MIX, PRECISION)
    if NORM != "none":
        normal, _ = _normalise(z, valid, size, eps, NORM)
        z = normal * _affine(scale_ptr + n * affine, C, T, BLOCK_C, BLOCK_T, NORM)
        z += _affine(shift_ptr + n * affine, C, T, BLOCK_C, BLOCK_T, NORM)
    return x + tl.where(valid, z, 0.0)


@triton.jit
def _temporal_mlp_fwd_kernel(
    x_ptr,  # [B, C, T]
    weight_ptr,  # [N, T, T] or [N, C, C]
    bias_ptr,  # [N, T] or [N, C]
    scale_ptr,  # [N, affine] or None
    shift_ptr,
    pre_weight_ptr,  # [N, T, T] or None
    pre_bias_ptr,  # [N, T]
    pre_scale_ptr,
    pre_shift_ptr,
    y_ptr,  # [B, C, T]
    saved_ptr,  # [B, N, C, T] float32 or None: every block's input
    C,
    T,
    N,
    size,  # how many values the last norm runs over
    affine,  # numbers in one block's scale
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    c, t = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T)
    valid = (c < C)[:, None] & (t < T)[None, :]
    offset = (c * T)[:, None] + t[None, :]
    x = tl.load(x_ptr + b * C * T + offset, mask=valid, other=0.0).to(tl.float32)
    for n in range(N):
        if saved_ptr is not None:
            tl.store(saved_ptr + (b * N + n) * C * T + offset, x, mask=valid)
        x = _block(
            x, n, weight_ptr, bias_ptr, scale_ptr, shift_ptr, pre_weight_ptr, pre_bias_ptr, pre_scale_ptr,
            pre_shift_ptr, valid, C, T, size, affine, eps, BLOCK_C, BLOCK_T, MIX, NORM, PRECISION,
        )  # fmt: skip
    tl.store(y_ptr + b * C * T + offset, x, mask=valid)


@triton.jit
def _temporal_mlp_bwd_kernel(
    grad_ptr,  # [B, C, T] float32: of the block's result, becomes that of its input
    saved_ptr,  # [B, N, C, T] float32
    weight_ptr,  # of this block from here on
    bias_ptr,
    scale_ptr,
    shift_ptr,
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    pre_shift_ptr,
    partial_ptr,  # [splits, weight | bias | scale | shift | pre_weight | pre_bias | pre_scale | pre_shift] float32
    B,
    C,
    T,
    N,
    n,
    size,
    affine,
    partial_size,
    samples_per_split,
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # grid (splits,): block n for the samples of this split, one after the other.
    c, t = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T)
    valid = (c < C)[:, None] & (t < T)[None, :]
    offset = (c * T)[:, None] + t[None, :]
    dtype: tl.constexpr = weight_ptr.dtype.element_ty
    M = T if MIX == "temporal" else C
    BLOCK_M: tl.constexpr = BLOCK_T if MIX == "temporal" else BLOCK_C
    weight_sum = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)
    bias_sum = tl.zeros((BLOCK_M,), tl.float32)
    scale_sum = tl.zeros((BLOCK_C, BLOCK_T), tl.float32)  # reduced over the right axes at the end
    shift_sum = tl.zeros((BLOCK_C, BLOCK_T), tl.float32)
    pre_weight_sum = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    pre_bias_sum = tl.zeros((BLOCK_T,), tl.float32)
    pre_scale_sum = tl.zeros((BLOCK_T,), tl.float32)
    pre_shift_sum = tl.zeros((BLOCK_T,), tl.float32)
    for i in range(samples_per_split):
        b = tl.program_id(0).to(tl.int64) * samples_per_split + i
        mine = (c < tl.where(b < B, C, 0))[:, None] & (t < T)[None, :]
        x = tl.load(saved_ptr + (b * N + n) * C * T + offset, mask=mine, other=0.0)
        grad = tl.load(grad_ptr + b * C * T + offset, mask=mine, other=0.0)
        h = x
        if pre_weight_ptr is not None:
            first, first_inverse = _first_map(x, pre_weight_ptr, pre_bias_ptr, valid, T, eps, BLOCK_T, PRECISION)
            pre_scale = _vector(pre_scale_ptr, T, BLOCK_T)[None, :]
            h = tl.where(valid, x + first * pre_scale + _vector(pre_shift_ptr, T, BLOCK_T)[None, :], 0.0)
        dz = grad
        if NORM != "none":
            z = _second_map(h, weight_ptr, bias_ptr, C, T, BLOCK_C, BLOCK_T, MIX, PRECISION)
            normal, inverse = _normalise(z, valid, size, eps, NORM)
            scale_sum += grad * normal
            shift_sum += grad
            v = grad * _affine(scale_ptr, C, T, BLOCK_C, BLOCK_T, NORM)
            dz = v - _group_mean(v, size, NORM) - normal * _group_mean(v * normal, size, NORM)
            dz = tl.where(mine, dz * inverse, 0.0)
        if MIX == "temporal":
            bias_sum += tl.sum(dz, 0)
            weight_sum = tl.dot(tl.trans(dz).to(dtype), h.to(dtype), weight_sum, input_precision=PRECISION)
            weight = _matrix(weight_ptr, T, T, BLOCK_T, BLOCK_T)
            dh = tl.dot(dz.to(dtype), weight, input_precision=PRECISION)
        else:
            bias_sum += tl.sum(dz, 1)
            weight_sum = tl.dot(dz.to(dtype), tl.trans(h).to(dtype), weight_sum, input_precision=PRECISION)
            weight = tl.trans(_matrix(weight_ptr, C, C, BLOCK_C, BLOCK_C))
            dh = tl.dot(weight, dz.to(dtype), input_precision=PRECISION)
        grad += dh
        if pre_weight_ptr is not None:
            pre_scale_sum += tl.sum(dh * first, 0)
            pre_shift_sum += tl.sum(dh, 0)
            v = dh * pre_scale
            dy = v - _group_mean(v, T, "temporal") - first * _group_mean(v * first, T, "temporal")
            dy = tl.where(mine, dy * first_inverse, 0.0)
            pre_bias_sum += tl.sum(dy, 0)
            pre_weight_sum = tl.dot(tl.trans(dy).to(dtype), x.to(dtype), pre_weight_sum, input_precision=PRECISION)
            pre_weight = _matrix(pre_weight_ptr, T, T, BLOCK_T, BLOCK_T)
            grad += tl.dot(dy.to(dtype), pre_weight, input_precision=PRECISION)
        tl.store(grad_ptr + b * C * T + offset, grad, mask=mine)

    out = partial_ptr + tl.program_id(0).to(tl.int64) * partial_size
    m = tl.arange(0, BLOCK_M)
    tl.store(out + (m * M)[:, None] + m[None, :], weight_sum, mask=(m < M)[:, None] & (m < M)[None, :])
    out += M * M
    tl.store(out + m, bias_sum, mask=m < M)
    out += M
    if NORM == "spatial":
        tl.store(out + c, tl.sum(scale_sum, 1), mask=c < C)
        tl.store(out + affine + c, tl.sum(shift_sum, 1), mask=c < C)
    if NORM == "temporal":
        tl.store(out + t, tl.sum(scale_sum, 0), mask=t < T)
        tl.store(out + affine + t, tl.sum(shift_sum, 0), mask=t < T)
    if NORM == "all":
        tl.store(out + offset, scale_sum, mask=valid)
        tl.store(out + affine + offset, shift_sum, mask=valid)
    out += 2 * affine
    if pre_weight_ptr is not None:
        tl.store(out + _square(t, T), pre_weight_sum, mask=(t < T)[:, None] & (t < T)[None, :])
        out += T * T
        tl.store(out + t, pre_bias_sum, mask=t < T)
        tl.store(out + T + t, pre_scale_sum, mask=t < T)
        tl.store(out + 2 * T + t, pre_shift_sum, mask=t < T)


@triton.jit
def _square(t, T):
    """Offsets of a square [T, T] matrix."""
    return (t * T)[:, None] + t[None, :]


@triton.jit
def _output(
    x, weight_ptr, bias_ptr, inverse, C, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """[BLOCK_C, BLOCK_S]: W_out (x G^T) + b (row sums of G): the inverse first, so that only S slots are mixed."""
    dtype: tl.constexpr = weight_ptr.dtype.element_ty
    short = tl.dot(x.to(dtype), tl.trans(inverse), input_precision=PRECISION)
    weight = _matrix(weight_ptr, C, C, BLOCK_C, BLOCK_C)
    mixed = tl.dot(weight, short.to(dtype), input_precision=PRECISION)
    return mixed + _vector(bias_ptr, C, BLOCK_C)[:, None] * tl.sum(inverse.to(tl.float32), 1)[None, :]


@triton.jit
def _temporal_mlp_forecast_kernel(
    history_ptr,  # [B, T, C]
    transform_ptr,  # [T, T]
    inverse_ptr,  # [S, T]
    weight_in_ptr,  # [C, C]
    bias_in_ptr,  # [C]
    weight_ptr,  # the main stack
    bias_ptr,
    scale_ptr,
    shift_ptr,
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    pre_shift_ptr,
    weight_out_ptr,
    bias_out_ptr,
    side_weight_ptr,  # the second stack, or None
    side_bias_ptr,
    side_scale_ptr,
    side_shift_ptr,
    side_pre_weight_ptr,
    side_pre_bias_ptr,
    side_pre_scale_ptr,
    side_pre_shift_ptr,
    side_weight_out_ptr,
    side_bias_out_ptr,
    future_ptr,  # [B, S, C]
    C,
    T,
    S,
    N,
    side_N,
    size,
    affine,
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    # grid (B,): the whole network for one sample.
    b = tl.program_id(0).to(tl.int64)
    c, t, s = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_S)
    valid = (c < C)[:, None] & (t < T)[None, :]
    dtype: tl.constexpr = weight_ptr.dtype.element_ty
    seen = tl.load(history_ptr + b * T * C + c[:, None] + (t * C)[None, :], mask=valid, other=0.0)
    frequencies = tl.dot(seen, tl.trans(_matrix(transform_ptr, T, T, BLOCK_T, BLOCK_T)), input_precision=PRECISION)
    weight_in = _matrix(weight_in_ptr, C, C, BLOCK_C, BLOCK_C)
    start = tl.dot(weight_in, frequencies.to(dtype), input_precision=PRECISION)
    start = tl.where(valid, start + _vector(bias_in_ptr, C, BLOCK_C)[:, None], 0.0)
    inverse = _matrix(inverse_ptr, S, T, BLOCK_S, BLOCK_T)
    x = start
    for n in range(N):
        x = _block(
            x, n, weight_ptr, bias_ptr, scale_ptr, shift_ptr, pre_weight_ptr, pre_bias_ptr, pre_scale_ptr,
            pre_shift_ptr, valid, C, T, size, affine, eps, BLOCK_C, BLOCK_T, MIX, NORM, PRECISION,
        )  # fmt: skip
    future = _output(x, weight_out_ptr, bias_out_ptr, inverse, C, BLOCK_C, PRECISION)
    if side_weight_ptr is not None:
        x = start
        for n in range(side_N):
            x = _block(
                x, n, side_weight_ptr, side_bias_ptr, side_scale_ptr, side_shift_ptr, side_pre_weight_ptr,
                side_pre_bias_ptr, side_pre_scale_ptr, side_pre_shift_ptr,
                valid, C, T, size, affine, eps, BLOCK_C, BLOCK_T, MIX, NORM, PRECISION,
            )  # fmt: skip
        future += _output(x, side_weight_out_ptr, side_bias_out_ptr, inverse, C, BLOCK_C, PRECISION)
    last = tl.load(history_ptr + b * T * C + (T - 1) * C + c, mask=c < C, other=0.0).to(tl.float32)
    place = future_ptr + b * S * C + c[:, None] + (s * C)[None, :]
    tl.store(place, future + last[:, None], mask=(c < C)[:, None] & (s < S)[None, :])


def _sizes(C: int, T: int, mix: str, norm: str) -> dict[str, int]:
    """What the last norm runs over, and the numbers in one block's scale."""
    size, affine = {"spatial": (C, C), "temporal": (T, T), "all": (C * T, C * T), "none": (1, 0)}[norm]
    return {"size": size, "affine": affine}


def _plan(C: int, T: int, mix: str, norm: str, precision: str) -> dict:
    """Tile sizes and warps. A fixed rule; the largest that compile without spills, no card has tuned them yet."""
    blocks = {"BLOCK_C": power_of_2(C, 16, 1024), "BLOCK_T": power_of_2(T, 16, 1024)}
    return {"MIX": mix, "NORM": norm, "PRECISION": precision, "num_warps": 8} | blocks


def _contiguous(tensors):
    return [t if t is None else t.contiguous() for t in tensors]


def temporal_mlp(x, *args) -> tuple[Tensor, Tensor]:
    """As ``reference.temporal_mlp``; keeps every block's input, [B, N, C, T] float32."""
    *parameters, mix, norm, eps, keep = args
    x, parameters = x.contiguous(), _contiguous(parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    y = torch.empty_like(x)
    saved = torch.empty((B, N, C, T), dtype=torch.float32, device=x.device) if keep else None
    if y.numel():
        plan = _plan(C, T, mix, norm, dot_precision(x.dtype))
        with launch_on(x):
            _temporal_mlp_fwd_kernel[(B,)](
                x, *parameters, y, saved, C, T, N, **_sizes(C, T, mix, norm), eps=eps, **plan
            )  # fmt: skip
    return y, x.new_empty(0) if saved is None else saved


def temporal_mlp_backward(grad, saved, x, *args) -> list[Tensor]:
    """As ``reference.temporal_mlp_backward``: a launch per block; sums over samples in two stages, without atomics."""
    *parameters, mix, norm, eps, needs = args
    parameters = _contiguous(parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    grad = grad.to(torch.float32, copy=True).contiguous()
    counts = [0 if t is None or not N else t.numel() // N for t in parameters]
    sums = torch.zeros((N, sum(counts)), dtype=torch.float32, device=x.device)
    if grad.numel() and N:
        parts = splits(x, B, 1)
        each = triton.cdiv(B, parts)
        parts = triton.cdiv(B, each)
        partial = torch.empty((parts, sum(counts)), dtype=torch.float32, device=x.device)
        plan = _plan(C, T, mix, norm, dot_precision(x.dtype))
        with launch_on(x):
            for n in reversed(range(N)):
                own = [t if t is None else t[n] for t in parameters]
                _temporal_mlp_bwd_kernel[(parts,)](
                    grad, saved, *own, partial, B, C, T, N, n, **_sizes(C, T, mix, norm),
                    partial_size=sum(counts), samples_per_split=each, eps=eps, **plan,
                )  # fmt: skip
                torch.sum(partial, 0, out=sums[n])
    pieces = [s.reshape(t.shape) if t is not None else None for s, t in zip(sums.split(counts, 1), parameters)]
    return [t.to(x.dtype).contiguous() for t, need in zip((grad, *pieces), needs) if need]


def temporal_mlp_forecast(
    history, transform, inverse, weight_in, bias_in, main, weight_out, bias_out, side, side_weight_out, side_bias_out,
    mix, norm, eps,
) -> Tensor:  # fmt: skip
    """As ``reference.forecast``, in one launch."""
    (B, T, C), S = history.shape, inverse.shape[0]
    side = side or [None] * 8
    tensors = _contiguous(
        (history, transform, inverse, weight_in, bias_in, *main, weight_out, bias_out, *side, side_weight_out,
         side_bias_out)
    )  # fmt: skip
    future = history.new_empty(B, S, C)
    if future.numel():
        plan = _plan(C, T, mix, norm, dot_precision(history.dtype)) | {"BLOCK_S": power_of_2(S, 16, 1024)}
        blocks = main[0].shape[0], side[0].shape[0] if side[0] is not None else 0
        with launch_on(history):
            _temporal_mlp_forecast_kernel[(B,)](
                *tensors, future, C, T, S, *blocks, **_sizes(C, T, mix, norm), eps=eps, **plan
            )  # fmt: skip
    return future


def _compilations() -> list[Compilation]:
    """Every kernel at PKD's sizes on Human3.6M (C = 66, T = 50), in every dtype and precision."""
    found = []
    for dtype, precision in (
        (torch.bfloat16, "ieee"),
        (torch.float16, "ieee"),
        (torch.float32, "tf32"),
        (torch.float32, "tf32x3"),
    ):
        for name, kernel in (
            ("fwd", _temporal_mlp_fwd_kernel),
            ("bwd", _temporal_mlp_bwd_kernel),
            ("forecast", _temporal_mlp_forecast_kernel),
        ):
            plan = _plan(66, 50, "temporal", "spatial", precision)
            constants = {k: v for k, v in plan.items() if k != "num_warps"}
            if name == "forecast":
                constants["BLOCK_S"] = 16
                constants |= {f"side_pre_{p}_ptr": None for p in ("weight", "bias", "scale", "shift")}
            types = {}
            for argument in kernel.arg_names:
                if argument in constants:
                    types[argument] = "constexpr"
                elif argument in ("saved_ptr", "partial_ptr") or (name == "bwd" and argument == "grad_ptr"):
                    types[argument] = "*fp32:16"
                elif argument.endswith("_ptr"):
                    types[argument] = f"*{TYPE_NAMES[dtype]}"
                else:
                    types[argument] = "fp32" if argument == "eps" else "i32"
            label = f"temporal_mlp/{name}/{TYPE_NAMES[dtype]}" + ("" if precision == "ieee" else f"-{precision}")
            found.append(Compilation(label, kernel, types, constants, plan["num_warps"]))
    return found


AOT = _compilations()
