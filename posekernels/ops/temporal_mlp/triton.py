"""Triton kernels of ``temporal_mlp``. The math they follow is in README.md beside this file.

One program carries one sample through one block, in float32; the state (13 KB a sample) and the weights (20 KB a block)
stay in the L2 cache from launch to launch. All blocks in one kernel need more registers than there are: such a loop
spills 50 to 1000 bytes a thread at C = 66, whose 128-row tile is half padding. Tiles are 0 past C rows and T columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._triton import TYPE_NAMES, Compilation, compilation, dot_precision, launch_on, power_of_2
from . import reference
from .sums import map_gradients


@triton.jit
def _matrix(ptr, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] of a contiguous [rows, columns] matrix, 0 elsewhere."""
    r, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    mask = (r < rows)[:, None] & (c < columns)[None, :]
    return tl.load((ptr + r * columns)[:, None] + c[None, :], mask=mask, other=0.0)


@triton.jit
def _store(ptr, value, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write what ``_matrix`` reads. Addresses are made where they are used: kept, they would fill the registers."""
    r, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    mask = (r < rows)[:, None] & (c < columns)[None, :]
    tl.store((ptr + r * columns)[:, None] + c[None, :], value, mask=mask)


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
def _temporal_mlp_fwd_kernel(
    x_ptr,  # [B, C, T] float32: the state before this block
    weight_ptr,  # of this block from here on
    bias_ptr,
    scale_ptr,
    shift_ptr,
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    pre_shift_ptr,
    y_ptr,  # [B, C, T] float32: the state after it; may be x_ptr
    C,
    T,
    size,  # how many values the last norm runs over
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    valid = (tl.arange(0, BLOCK_C) < C)[:, None] & (tl.arange(0, BLOCK_T) < T)[None, :]
    h = _matrix(x_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
    if pre_weight_ptr is not None:
        h, _ = _first_map(h, pre_weight_ptr, pre_bias_ptr, valid, T, eps, BLOCK_T, PRECISION)
        h = h * _vector(pre_scale_ptr, T, BLOCK_T)[None, :] + _vector(pre_shift_ptr, T, BLOCK_T)[None, :]
        h = tl.where(valid, h + _matrix(x_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T), 0.0)
    z = _second_map(h, weight_ptr, bias_ptr, C, T, BLOCK_C, BLOCK_T, MIX, PRECISION)
    if NORM != "none":
        z, _ = _normalise(z, valid, size, eps, NORM)
        z = z * _affine(scale_ptr, C, T, BLOCK_C, BLOCK_T, NORM) + _affine(shift_ptr, C, T, BLOCK_C, BLOCK_T, NORM)
    z += _matrix(x_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
    tl.debug_barrier()  # everybody has read x
    _store(y_ptr + b * C * T, z, C, T, BLOCK_C, BLOCK_T)


@triton.jit
def _temporal_mlp_bwd_second_kernel(
    grad_ptr,  # [B, C, T] float32: of the block's result
    saved_ptr,  # [B, C, T] float32: the block's input
    weight_ptr,  # of this block from here on
    bias_ptr,
    scale_ptr,
    shift_ptr,
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    pre_shift_ptr,
    h_ptr,  # [B, C, T] float32: what the second map took
    dz_ptr,  # [B, C, T] float32: the gradient of what it gave
    partial_ptr,  # [B, 2, affine] float32: of scale and shift
    C,
    T,
    size,
    affine,
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # grid (B,): through the last norm of block n, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    c, t = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T)
    valid = (c < C)[:, None] & (t < T)[None, :]
    h = _matrix(saved_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
    if pre_weight_ptr is not None:
        first, _ = _first_map(h, pre_weight_ptr, pre_bias_ptr, valid, T, eps, BLOCK_T, PRECISION)
        first = first * _vector(pre_scale_ptr, T, BLOCK_T)[None, :] + _vector(pre_shift_ptr, T, BLOCK_T)[None, :]
        h = tl.where(valid, h + first, 0.0)
    _store(h_ptr + b * C * T, h, C, T, BLOCK_C, BLOCK_T)
    if NORM == "none":
        _store(dz_ptr + b * C * T, _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T), C, T, BLOCK_C, BLOCK_T)
    else:
        z = _second_map(h, weight_ptr, bias_ptr, C, T, BLOCK_C, BLOCK_T, MIX, PRECISION)
        normal, inverse = _normalise(z, valid, size, eps, NORM)
        grad = _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
        out = partial_ptr + b * 2 * affine
        if NORM == "spatial":
            tl.store(out + c, tl.sum(grad * normal, 1), mask=c < C)
            tl.store(out + affine + c, tl.sum(grad, 1), mask=c < C)
        elif NORM == "temporal":
            tl.store(out + t, tl.sum(grad * normal, 0), mask=t < T)
            tl.store(out + affine + t, tl.sum(grad, 0), mask=t < T)
        else:
            _store(out, grad * normal, C, T, BLOCK_C, BLOCK_T)
            _store(out + affine, grad, C, T, BLOCK_C, BLOCK_T)
        v = grad * _affine(scale_ptr, C, T, BLOCK_C, BLOCK_T, NORM)
        dz = v - _group_mean(v, size, NORM) - normal * _group_mean(v * normal, size, NORM)
        _store(dz_ptr + b * C * T, dz * inverse, C, T, BLOCK_C, BLOCK_T)


@triton.jit
def _temporal_mlp_bwd_first_kernel(
    grad_ptr,  # [B, C, T] float32: of the block's result, becomes that of its input
    saved_ptr,  # [B, C, T] float32: the block's input
    dz_ptr,  # [B, C, T] float32
    weight_ptr,  # of this block from here on
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    dy_ptr,  # [B, C, T] float32: the gradient of what the first map gave
    partial_ptr,  # [B, 2, T] float32: of pre_scale and pre_shift
    C,
    T,
    eps,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # grid (B,): through the second map and, where there is one, the first and its norm, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    c, t = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T)
    valid = (c < C)[:, None] & (t < T)[None, :]
    dtype: tl.constexpr = weight_ptr.dtype.element_ty
    dz = _matrix(dz_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T).to(dtype)
    if MIX == "temporal":
        dh = tl.dot(dz, _matrix(weight_ptr, T, T, BLOCK_T, BLOCK_T), input_precision=PRECISION)
    else:
        dh = tl.dot(tl.trans(_matrix(weight_ptr, C, C, BLOCK_C, BLOCK_C)), dz, input_precision=PRECISION)
    total = dh
    if pre_weight_ptr is not None:
        x = _matrix(saved_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
        first, inverse = _first_map(x, pre_weight_ptr, pre_bias_ptr, valid, T, eps, BLOCK_T, PRECISION)
        out = partial_ptr + b * 2 * T
        tl.store(out + t, tl.sum(dh * first, 0), mask=t < T)
        tl.store(out + T + t, tl.sum(dh, 0), mask=t < T)
        v = dh * _vector(pre_scale_ptr, T, BLOCK_T)[None, :]
        dy = v - _group_mean(v, T, "temporal") - first * _group_mean(v * first, T, "temporal")
        dy = tl.where(valid, dy * inverse, 0.0)
        _store(dy_ptr + b * C * T, dy, C, T, BLOCK_C, BLOCK_T)
        pre_weight = _matrix(pre_weight_ptr, T, T, BLOCK_T, BLOCK_T)
        total = tl.dot(dy.to(dtype), pre_weight, dh, input_precision=PRECISION)
    total += _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
    _store(grad_ptr + b * C * T, total, C, T, BLOCK_C, BLOCK_T)


def _sizes(C: int, T: int, norm: str) -> tuple[int, int]:
    """What the last norm runs over, and the numbers in one block's scale."""
    return {"spatial": (C, C), "temporal": (T, T), "all": (C * T, C * T), "none": (1, 0)}[norm]


def _plan(C: int, T: int, mix: str, norm: str, precision: str) -> dict:
    """Tile sizes and warps. A fixed rule; the largest that compile without spills, no card has tuned them yet."""
    blocks = {"BLOCK_C": power_of_2(C, 16, 1024), "BLOCK_T": power_of_2(T, 16, 1024)}
    return {"MIX": mix, "NORM": norm, "PRECISION": precision, "num_warps": 8} | blocks


def temporal_mlp(x, *args) -> tuple[Tensor, Tensor]:
    """As ``reference.temporal_mlp``, a launch per block; keeps every block's input, [N, B, C, T] float32."""
    *parameters, mix, norm, eps, keep = args
    parameters = contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    saved = torch.empty((N, B, C, T) if keep else 0, dtype=torch.float32, device=x.device)
    state = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if keep and N:
        saved[0] = state
    plan = _plan(C, T, mix, norm, dot_precision(x.dtype))
    size = _sizes(C, T, norm)[0]
    for n in range(N if x.numel() else 0):
        source, target = (saved[n], saved[n + 1] if n + 1 < N else state) if keep else (state, state)
        own = [t if t is None else t[n] for t in parameters]
        with launch_on(x):
            _temporal_mlp_fwd_kernel[(B,)](source, *own, target, C, T, size, eps=eps, **plan)
    return state.to(x.dtype), saved if keep else x.new_empty(0)


def temporal_mlp_backward(grad, saved, x, *args) -> list[Tensor]:
    """As ``reference.temporal_mlp_backward``: two launches per block and the products that sum over samples."""
    *parameters, mix, norm, eps, needs = args
    parameters = contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    grad = grad.to(torch.float32, copy=True).contiguous()
    sums = [None if t is None else torch.zeros(t.shape, dtype=torch.float32, device=x.device) for t in parameters]
    weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift = sums
    (size, affine_size), plan = _sizes(C, T, norm), _plan(C, T, mix, norm, dot_precision(x.dtype))
    h, dz, dy = (torch.empty_like(grad) for _ in range(3))
    affine = torch.empty((B, 2, affine_size), dtype=torch.float32, device=x.device)
    pre_affine = torch.empty((B, 2, T), dtype=torch.float32, device=x.device)
    for n in reversed(range(N if grad.numel() else 0)):
        own = [t if t is None else t[n] for t in parameters]
        with launch_on(x):
            _temporal_mlp_bwd_second_kernel[(B,)](
                grad, saved[n], *own, h, dz, affine, C, T, size, affine_size, eps=eps, **plan
            )  # fmt: skip
            options = {k: v for k, v in plan.items() if k != "NORM"}
            _temporal_mlp_bwd_first_kernel[(B,)](
                grad, saved[n], dz, own[0], *own[4:7], dy, pre_affine, C, T, eps=eps, **options
            )  # fmt: skip
        weight[n : n + 1], bias[n : n + 1] = map_gradients(dz[None], h[None], mix)
        if scale is not None:
            both = affine.sum(0)
            scale[n], shift[n] = both[0].view_as(scale[n]), both[1].view_as(shift[n])
        if pre_weight is not None:
            pre_weight[n : n + 1], pre_bias[n : n + 1] = map_gradients(dy[None], saved[n : n + 1], "temporal")
            pre_scale[n], pre_shift[n] = pre_affine.sum(0)
    return [t.to(x.dtype) for t, need in zip((grad, *sums), needs) if need]


def temporal_mlp_forecast(*args) -> Tensor:
    """As ``reference.temporal_mlp_forecast``: the blocks in these kernels, what is around them is PyTorch's."""
    return reference.temporal_mlp_forecast(*args, run=lambda x, *stack: temporal_mlp(x, *stack, False)[0])


def _compilations() -> list[Compilation]:
    """Every kernel at PKD's sizes on Human3.6M (C = 66, T = 50), in the dtypes that are taken on a GPU."""
    found = []
    for dtype in (torch.bfloat16, torch.float16):
        for name, kernel in (
            ("fwd", _temporal_mlp_fwd_kernel),
            ("bwd_second", _temporal_mlp_bwd_second_kernel),
            ("bwd_first", _temporal_mlp_bwd_first_kernel),
        ):
            wide = ("saved_ptr", "partial_ptr", "state_ptr", "grad_ptr", "h_ptr", "dz_ptr", "dy_ptr")
            wide += ("x_ptr", "y_ptr") if name == "fwd" else ()
            narrow = f"*{TYPE_NAMES[dtype]}"  # slices of the stacked weights: not aligned
            types = {a: "*fp32:16" if a in wide else narrow for a in kernel.arg_names if a.endswith("_ptr")}
            plan = _plan(66, 50, "temporal", "spatial", "ieee")
            found.append(compilation(f"temporal_mlp/{name}", kernel, dtype, plan, types | {"eps": "fp32"}))
    return found


AOT = _compilations()
