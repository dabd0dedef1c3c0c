"""Triton kernels of ``temporal_mlp``. The math they follow is in README.md beside this file.

One program carries one sample, in float32: forward through the whole stack, backward through one block a launch. The
state (13 KB a sample) and the weights (20 KB a block) come from the L2 cache, as a state kept in registers is more than
there are: at C = 66 the 128-row tile is half padding. Tiles are 0 past C rows and T columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._triton import PRECISIONS, TYPE_NAMES, Compilation, compilation, dot_precision, launch_on, power_of_2
from . import reference
from .sums import map_gradients

# Of float32 products, along their depth. Triton 3.6 takes none under 16, and then a few registers too many.
SHORTEST = 8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9) else 16


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
def _inside(C, T, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, NORM: tl.constexpr):
    """Where a tile is not padding, along the axis of a norm; broadcasts against it."""
    c, t = (tl.arange(0, BLOCK_C) < C)[:, None], (tl.arange(0, BLOCK_T) < T)[None, :]
    if NORM == "spatial":
        inside = c
    elif NORM == "temporal":
        inside = t
    else:
        inside = c & t
    return inside


@triton.jit
def _normalise(values, inside, size, eps, NORM: tl.constexpr):
    """(normalised tile, 0 where not ``inside``; 1 / sqrt(variance + eps) as it broadcasts). What the norms of padding
    are stays there, and may be NaN."""
    centred = tl.where(inside, values - _group_mean(tl.where(inside, values, 0.0), size, NORM), 0.0)
    inverse = 1.0 / tl.sqrt(_group_mean(centred * centred, size, NORM) + eps)
    return centred * inverse, inverse


@triton.jit
def _product(
    a_ptr, a_row, a_column, b_ptr, b_row, b_column, M, K, N, total,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DEPTH: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``total`` [BLOCK_M, BLOCK_N] float32 (None: 0) + a [M, K] times b [K, N] in TYPE, DEPTH of K at a time.

    Both come from memory: a state in registers beside its parts as operands is more than there are of them.
    """
    m, n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    if total is None:
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, DEPTH):
        k = start + tl.arange(0, DEPTH)
        in_a, in_b = (m < M)[:, None] & (k < K)[None, :], (k < K)[:, None] & (n < N)[None, :]
        a = tl.load((a_ptr + m * a_row)[:, None] + (k * a_column)[None, :], mask=in_a, other=0.0)
        b = tl.load((b_ptr + k * b_row)[:, None] + (n * b_column)[None, :], mask=in_b, other=0.0)
        total = tl.dot(a.to(TYPE), b.to(TYPE), total, input_precision=PRECISION)
    return total


@triton.jit
def _second_map(
    h_ptr, weight_ptr, bias_ptr, C, T,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, DEPTH: tl.constexpr, MIX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BLOCK_C, BLOCK_T] float32: F(h)."""
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    if MIX == "temporal":
        z = _product(h_ptr, T, 1, weight_ptr, 1, T, C, T, T, None, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
        z += _vector(bias_ptr, T, BLOCK_T)[None, :]
    else:
        z = _product(weight_ptr, C, 1, h_ptr, T, 1, C, C, T, None, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
        z += _vector(bias_ptr, C, BLOCK_C)[:, None]
    return z


@triton.jit
def _first_map(
    x_ptr, weight_ptr, bias_ptr, C, T, eps,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(normalised y, its inverse deviations) of y = A x + a."""
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    y = _product(x_ptr, T, 1, weight_ptr, 1, T, C, T, T, None, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
    inside = _inside(C, T, BLOCK_C, BLOCK_T, "temporal")
    return _normalise(y + _vector(bias_ptr, T, BLOCK_T)[None, :], inside, T, eps, "temporal")


@triton.jit
def _temporal_mlp_fwd_kernel(
    states_ptr,  # [B, C, T] float32, the state before the first block; what follows each lies ``step`` further
    weight_ptr,  # of N blocks from here on
    bias_ptr,
    scale_ptr,
    shift_ptr,
    pre_weight_ptr,
    pre_bias_ptr,
    pre_scale_ptr,
    pre_shift_ptr,
    h_ptr,  # [B, C, T] float32, written: what the second map takes after a first one; else None
    step,  # 0: in place
    C,
    T,
    N,
    size,  # how many values the last norm runs over
    affine,  # numbers in its scale
    eps,
    MIX: tl.constexpr,
    NORM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    state = states_ptr + b * C * T
    for n in range(N):
        # 0 both, which the compiler does not see: it would keep addresses and masks, the same for every block and for
        # both readings of the state, in more registers than there are.
        nothing, neither = n // N, (n + 1) // (N + 1)
        c, t, block = C + nothing, T + nothing, tl.full((), n, tl.int64)
        mixed = t if MIX == "temporal" else c
        x_ptr = state + nothing
        source = x_ptr
        if pre_weight_ptr is not None:
            source = h_ptr + b * c * t
            own = block * t
            h, _ = _first_map(
                x_ptr, pre_weight_ptr + own * t, pre_bias_ptr + own, c, t, eps, BLOCK_C, BLOCK_T, DEPTH, PRECISION
            )
            h = (
                h * _vector(pre_scale_ptr + own, t, BLOCK_T)[None, :]
                + _vector(pre_shift_ptr + own, t, BLOCK_T)[None, :]
            )
            _store(source, h + _matrix(x_ptr, c, t, BLOCK_C, BLOCK_T), c, t, BLOCK_C, BLOCK_T)
            tl.debug_barrier()  # the product reads what other threads wrote
        weight, bias = weight_ptr + block * mixed * mixed, bias_ptr + block * mixed
        z = _second_map(source, weight, bias, c, t, BLOCK_C, BLOCK_T, DEPTH, MIX, PRECISION)
        if NORM != "none":
            z, _ = _normalise(z, _inside(c, t, BLOCK_C, BLOCK_T, NORM), size, eps, NORM)
            z = z * _affine(scale_ptr + block * affine, c, t, BLOCK_C, BLOCK_T, NORM)
            z += _affine(shift_ptr + block * affine, c, t, BLOCK_C, BLOCK_T, NORM)
        z += _matrix(state + neither, c, t, BLOCK_C, BLOCK_T)
        tl.debug_barrier()  # everybody has read the state
        state += step
        _store(state, z, c, t, BLOCK_C, BLOCK_T)
        tl.debug_barrier()  # the next block reads it


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
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,): through the last norm of block n, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    c, t = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T)
    saved_ptr += b * C * T
    h_ptr += b * C * T
    h = _matrix(saved_ptr, C, T, BLOCK_C, BLOCK_T)
    if pre_weight_ptr is not None:
        first, _ = _first_map(saved_ptr, pre_weight_ptr, pre_bias_ptr, C, T, eps, BLOCK_C, BLOCK_T, DEPTH, PRECISION)
        h += first * _vector(pre_scale_ptr, T, BLOCK_T)[None, :] + _vector(pre_shift_ptr, T, BLOCK_T)[None, :]
    _store(h_ptr, h, C, T, BLOCK_C, BLOCK_T)
    if NORM == "none":
        _store(dz_ptr + b * C * T, _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T), C, T, BLOCK_C, BLOCK_T)
    else:
        tl.debug_barrier()  # the product reads what other threads wrote
        z = _second_map(h_ptr, weight_ptr, bias_ptr, C, T, BLOCK_C, BLOCK_T, DEPTH, MIX, PRECISION)
        normal, inverse = _normalise(z, _inside(C, T, BLOCK_C, BLOCK_T, NORM), size, eps, NORM)
        grad = _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
        out = partial_ptr + b * 2 * affine
        inside = _inside(C, T, BLOCK_C, BLOCK_T, "all")  # grad is 0 elsewhere, what it is multiplied with may be NaN
        product = tl.where(inside, grad * normal, 0.0)
        if NORM == "spatial":
            tl.store(out + c, tl.sum(product, 1), mask=c < C)
            tl.store(out + affine + c, tl.sum(grad, 1), mask=c < C)
        elif NORM == "temporal":
            tl.store(out + t, tl.sum(product, 0), mask=t < T)
            tl.store(out + affine + t, tl.sum(grad, 0), mask=t < T)
        else:
            _store(out, product, C, T, BLOCK_C, BLOCK_T)
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
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,): through the second map and, where there is one, the first and its norm, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    dz_ptr += b * C * T
    if MIX == "temporal":
        dh = _product(dz_ptr, T, 1, weight_ptr, T, 1, C, T, T, None, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
    else:
        dh = _product(weight_ptr, 1, C, dz_ptr, T, 1, C, C, T, None, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
    total = dh
    if pre_weight_ptr is not None:
        first, inverse = _first_map(
            saved_ptr + b * C * T, pre_weight_ptr, pre_bias_ptr, C, T, eps, BLOCK_C, BLOCK_T, DEPTH, PRECISION
        )
        out = partial_ptr + b * 2 * T
        inside = (tl.arange(0, BLOCK_C) < C)[:, None]  # dh is 0 elsewhere, what it is multiplied with may be NaN
        tl.store(out + t, tl.sum(tl.where(inside, dh * first, 0.0), 0), mask=t < T)
        tl.store(out + T + t, tl.sum(dh, 0), mask=t < T)
        v = dh * _vector(pre_scale_ptr, T, BLOCK_T)[None, :]
        dy = v - _group_mean(v, T, "temporal") - first * _group_mean(v * first, T, "temporal")
        dy = dy * inverse
        dy_ptr += b * C * T
        _store(dy_ptr, dy, C, T, BLOCK_C, BLOCK_T)
        tl.debug_barrier()  # the product reads what other threads wrote
        total = _product(dy_ptr, T, 1, pre_weight_ptr, T, 1, C, T, T, dh, BLOCK_C, BLOCK_T, DEPTH, TYPE, PRECISION)
    total += _matrix(grad_ptr + b * C * T, C, T, BLOCK_C, BLOCK_T)
    _store(grad_ptr + b * C * T, total, C, T, BLOCK_C, BLOCK_T)


def _sizes(C: int, T: int, norm: str) -> tuple[int, int]:
    """What the last norm runs over, and the numbers in one block's scale."""
    return {"spatial": (C, C), "temporal": (T, T), "all": (C * T, C * T), "none": (1, 0)}[norm]


def _plan(C: int, T: int, mix: str, norm: str, dtype: torch.dtype, precision: str) -> dict:
    """Tile sizes and warps. A fixed rule; the largest that compile without spills, no card has tuned them yet."""
    blocks = {"BLOCK_C": power_of_2(C, 16, 1024), "BLOCK_T": power_of_2(T, 16, 1024)}
    depth = blocks["BLOCK_C" if mix == "spatial" else "BLOCK_T"]
    blocks["DEPTH"] = min(depth, SHORTEST if dtype == torch.float32 else 16)  # what one mma takes
    return {"MIX": mix, "NORM": norm, "PRECISION": precision, "num_warps": 8} | blocks


def temporal_mlp(x, *args) -> tuple[Tensor, Tensor]:
    """As ``reference.temporal_mlp``, one launch; keeps every block's input, [N, B, C, T] float32."""
    *parameters, mix, norm, eps, keep = args
    parameters = contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    states = torch.empty((N + 1 if keep else 1, B, C, T), dtype=torch.float32, device=x.device)
    states[0] = x
    h = None if parameters[4] is None else torch.empty_like(states[0])
    plan, sizes = _plan(C, T, mix, norm, x.dtype, dot_precision(x.dtype)), _sizes(C, T, norm)
    if N and x.numel():
        with launch_on(x):
            step = x.numel() if keep else 0
            _temporal_mlp_fwd_kernel[(B,)](states, *parameters, h, step, C, T, N, *sizes, eps=eps, **plan)
    return states[-1].to(x.dtype, copy=keep), states[:N] if keep else x.new_empty(0)


def temporal_mlp_backward(grad, saved, x, *args) -> list[Tensor]:
    """As ``reference.temporal_mlp_backward``: two launches per block and the products that sum over samples."""
    *parameters, mix, norm, eps, needs = args
    parameters = contiguous(*parameters)
    (B, C, T), N = x.shape, parameters[0].shape[0]
    grad = grad.to(torch.float32, copy=True).contiguous()
    sums = [None if t is None else torch.zeros(t.shape, dtype=torch.float32, device=x.device) for t in parameters]
    weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift = sums
    (size, affine_size), plan = _sizes(C, T, norm), _plan(C, T, mix, norm, x.dtype, dot_precision(x.dtype))
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
    """Every kernel at PKD's sizes on Human3.6M (C = 66, T = 50)."""
    found = []
    for dtype, precision in PRECISIONS:
        for name, kernel in (
            ("fwd", _temporal_mlp_fwd_kernel),
            ("bwd_second", _temporal_mlp_bwd_second_kernel),
            ("bwd_first", _temporal_mlp_bwd_first_kernel),
        ):
            wide = ("saved_ptr", "partial_ptr", "states_ptr", "grad_ptr", "h_ptr", "dz_ptr", "dy_ptr")
            narrow = f"*{TYPE_NAMES[dtype]}"  # slices of the stacked weights: not aligned
            types = {a: "*fp32:16" if a in wide else narrow for a in kernel.arg_names if a.endswith("_ptr")}
            plan = _plan(66, 50, "temporal", "spatial", dtype, precision)
            # Two registers too many on sm_80; a smaller tile would be half of mma's depth.
            accepted = 8 if (name, dtype) == ("bwd_first", torch.float32) else 0
            label, types = f"temporal_mlp/{name}", types | {"eps": "fp32"}
            found.append(compilation(label, kernel, dtype, plan, types, spills_accepted=accepted))
    return found


AOT = _compilations()
