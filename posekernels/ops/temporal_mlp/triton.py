"""Triton kernels of ``temporal_mlp``. The math they follow is in README.md beside this file.

One program carries one sample, in float32: forward through the whole stack, backward through one block a launch. The
state (13 KB a sample) and the weights (20 KB a block) come from the L2 cache, as a state kept in registers beside its
parts is more than there are. Rows come as a tuple of one or two tiles, 0 past C rows and T columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._triton import (
    PRECISIONS,
    TYPE_NAMES,
    Compilation,
    add_pieces,
    compilation,
    dot_precision,
    launch_on,
    load_tile,
    power_of_2,
    store_rows,
)
from . import reference
from .sums import map_gradients

# Of float32 products, along their depth. Triton 3.6 takes none under 16, and then a few registers too many.
SHORTEST = 8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9) else 16


@triton.jit
def _row_pieces(LO: tl.constexpr, HI: tl.constexpr):
    """Row numbers of the one or two tiles that hold the coordinates: 66 are 64 and 16 rows, not 128."""
    r = (tl.arange(0, LO),)
    if HI > 0:
        r = r + (LO + tl.arange(0, HI),)
    return r


@triton.jit
def _matrix(ptr, rows, columns, r, COLUMNS: tl.constexpr):
    """[len(piece), COLUMNS] of a contiguous [rows, columns] matrix for each piece of rows, 0 elsewhere."""
    y, c = (), tl.arange(0, COLUMNS)
    for i in tl.static_range(len(r)):
        y = y + (load_tile(ptr, columns, r[i], rows, c, columns),)
    return y


@triton.jit
def _store(ptr, value, rows, columns, r, COLUMNS: tl.constexpr):
    """Write what ``_matrix`` reads. Addresses are made where they are used: kept, they would fill the registers."""
    c = tl.arange(0, COLUMNS)
    for i in tl.static_range(len(r)):
        store_rows(ptr, columns, value[i], r[i], rows, c, columns)


@triton.jit
def _vector(ptr, i, n):
    """[len(i)] float32, 0 past n."""
    return tl.load(ptr + i, mask=i < n, other=0.0).to(tl.float32)


@triton.jit
def _affine(ptr, C, T, r, BLOCK_T: tl.constexpr, NORM: tl.constexpr):
    """The scale or shift of the last norm as it broadcasts against the pieces."""
    if NORM == "all":
        value = _matrix(ptr, C, T, r, BLOCK_T)
    else:
        value = ()
        for i in tl.static_range(len(r)):
            if NORM == "spatial":
                value = value + (_vector(ptr, r[i], C)[:, None],)
            else:
                value = value + (_vector(ptr, tl.arange(0, BLOCK_T), T)[None, :],)
    return value


@triton.jit
def _times(x, y):
    z = ()
    for i in tl.static_range(len(x)):
        z = z + (x[i] * y[i],)
    return z


@triton.jit
def _where(inside, x):
    """x, and 0 elsewhere."""
    z = ()
    for i in tl.static_range(len(x)):
        z = z + (tl.where(inside[i], x[i], 0.0),)
    return z


@triton.jit
def _by_slot(x, scale, shift):
    """x * scale + shift, of [BLOCK_T]."""
    z = ()
    for i in tl.static_range(len(x)):
        z = z + (x[i] * scale[None, :] + shift[None, :],)
    return z


@triton.jit
def _over_rows(x):
    """[BLOCK_T]: the sum over the rows of all pieces."""
    total = tl.sum(x[0], 0)
    for i in tl.static_range(1, len(x)):
        total += tl.sum(x[i], 0)
    return total


@triton.jit
def _group_mean(values, size, NORM: tl.constexpr):
    """The mean of pieces, whose padding is 0, over the axis of a norm; broadcasts against each."""
    mean = ()
    for i in tl.static_range(len(values)):
        if NORM == "spatial":
            mean = mean + ((_over_rows(values) / size)[None, :],)
        elif NORM == "temporal":
            mean = mean + ((tl.sum(values[i], 1) / size)[:, None],)
        else:
            mean = mean + (tl.sum(_over_rows(values), 0) / size,)
    return mean


@triton.jit
def _inside(C, T, r, BLOCK_T: tl.constexpr, NORM: tl.constexpr):
    """Where pieces are not padding, along the axis of a norm; broadcasts against each."""
    inside, t = (), (tl.arange(0, BLOCK_T) < T)[None, :]
    for i in tl.static_range(len(r)):
        c = (r[i] < C)[:, None]
        if NORM == "spatial":
            inside = inside + (c,)
        elif NORM == "temporal":
            inside = inside + (t,)
        else:
            inside = inside + (c & t,)
    return inside


@triton.jit
def _normalise(values, inside, size, eps, NORM: tl.constexpr):
    """(normalised pieces, 0 where not ``inside``; 1 / sqrt(variance + eps) as it broadcasts). What the norms of padding
    are stays there, and may be NaN."""
    mean = _group_mean(_where(inside, values), size, NORM)
    centred = ()
    for i in tl.static_range(len(values)):
        centred = centred + (tl.where(inside[i], values[i] - mean[i], 0.0),)
    variance, inverse = _group_mean(_times(centred, centred), size, NORM), ()
    for i in tl.static_range(len(values)):
        inverse = inverse + (1.0 / tl.sqrt(variance[i] + eps),)
    return _times(centred, inverse), inverse


@triton.jit
def _norm_gradient(v, normal, inverse, size, NORM: tl.constexpr):
    """Of what a norm took, for v, the gradient of ``normal``."""
    mean, along, found = _group_mean(v, size, NORM), _group_mean(_times(v, normal), size, NORM), ()
    for i in tl.static_range(len(v)):
        found = found + ((v[i] - mean[i] - normal[i] * along[i]) * inverse[i],)
    return found


@triton.jit
def _product(
    a_ptr, a_row, a_column, b_ptr, b_row, b_column, M, K, N, total, m,
    BLOCK_N: tl.constexpr, DEPTH: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``total`` [len(piece), BLOCK_N] float32 (None: 0) for the pieces m of rows + a [M, K] times b [K, N] in TYPE,
    DEPTH of K at a time.

    Both come from memory: a state in registers beside its parts as operands is more than there are of them.
    """
    n = tl.arange(0, BLOCK_N)
    if total is None:
        total = ()
        for i in tl.static_range(len(m)):
            total = total + (tl.zeros((m[i].shape[0], BLOCK_N), tl.float32),)
    for start in tl.range(0, K, DEPTH, disable_licm=True):
        k = start + tl.arange(0, DEPTH)
        in_b = (k < K)[:, None] & (n < N)[None, :]
        b = tl.load((b_ptr + k * b_row)[:, None] + (n * b_column)[None, :], mask=in_b, other=0.0).to(TYPE)
        next_total = ()
        for i in tl.static_range(len(m)):
            in_a = (m[i] < M)[:, None] & (k < K)[None, :]
            a = tl.load((a_ptr + m[i] * a_row)[:, None] + (k * a_column)[None, :], mask=in_a, other=0.0)
            next_total = next_total + (tl.dot(a.to(TYPE), b, total[i], input_precision=PRECISION),)
        total = next_total
    return total


@triton.jit
def _second_map(
    h_ptr, weight_ptr, bias_ptr, C, T, r,
    BLOCK_T: tl.constexpr, DEPTH: tl.constexpr, MIX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[len(piece), BLOCK_T] float32 for the pieces r of rows: F(h)."""
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    if MIX == "temporal":
        z = _product(h_ptr, T, 1, weight_ptr, 1, T, C, T, T, None, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    else:
        z = _product(weight_ptr, C, 1, h_ptr, T, 1, C, C, T, None, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    # The bias lies along what F mixes: slots, or coordinates.
    return add_pieces(z, _affine(bias_ptr, C, T, r, BLOCK_T, MIX))


@triton.jit
def _first_map(
    x_ptr, weight_ptr, bias_ptr, C, T, eps, r,
    BLOCK_T: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(normalised y, its inverse deviations) of y = A x + a."""
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    y = _product(x_ptr, T, 1, weight_ptr, 1, T, C, T, T, None, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    y = add_pieces(y, _affine(bias_ptr, C, T, r, BLOCK_T, "temporal"))
    return _normalise(y, _inside(C, T, r, BLOCK_T, "temporal"), T, eps, "temporal")


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
    LO: tl.constexpr,  # rows of the first tile, and of a second one
    HI: tl.constexpr,
    BLOCK_T: tl.constexpr,
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    state = states_ptr + b * C * T
    r, slot = _row_pieces(LO, HI), tl.arange(0, BLOCK_T)
    for n in tl.range(0, N, disable_licm=True):
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
                x_ptr, pre_weight_ptr + own * t, pre_bias_ptr + own, c, t, eps, r, BLOCK_T, DEPTH, PRECISION
            )
            h = _by_slot(h, _vector(pre_scale_ptr + own, slot, t), _vector(pre_shift_ptr + own, slot, t))
            _store(source, add_pieces(h, _matrix(x_ptr, c, t, r, BLOCK_T)), c, t, r, BLOCK_T)
            tl.debug_barrier()  # the product reads what other threads wrote
        weight, bias = weight_ptr + block * mixed * mixed, bias_ptr + block * mixed
        z = _second_map(source, weight, bias, c, t, r, BLOCK_T, DEPTH, MIX, PRECISION)
        if NORM != "none":
            z, _ = _normalise(z, _inside(c, t, r, BLOCK_T, NORM), size, eps, NORM)
            z = _times(z, _affine(scale_ptr + block * affine, c, t, r, BLOCK_T, NORM))
            z = add_pieces(z, _affine(shift_ptr + block * affine, c, t, r, BLOCK_T, NORM))
        z = add_pieces(z, _matrix(state + neither, c, t, r, BLOCK_T))
        tl.debug_barrier()  # everybody has read the state
        state += step
        _store(state, z, c, t, r, BLOCK_T)
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
    LO: tl.constexpr,  # rows of the first tile, and of a second one
    HI: tl.constexpr,
    BLOCK_T: tl.constexpr,
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,): through the last norm of block n, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    r, t = _row_pieces(LO, HI), tl.arange(0, BLOCK_T)
    saved_ptr += b * C * T
    h_ptr += b * C * T
    h = _matrix(saved_ptr, C, T, r, BLOCK_T)
    if pre_weight_ptr is not None:
        first, _ = _first_map(saved_ptr, pre_weight_ptr, pre_bias_ptr, C, T, eps, r, BLOCK_T, DEPTH, PRECISION)
        h = add_pieces(h, _by_slot(first, _vector(pre_scale_ptr, t, T), _vector(pre_shift_ptr, t, T)))
    _store(h_ptr, h, C, T, r, BLOCK_T)
    if NORM == "none":
        _store(dz_ptr + b * C * T, _matrix(grad_ptr + b * C * T, C, T, r, BLOCK_T), C, T, r, BLOCK_T)
    else:
        tl.debug_barrier()  # the product reads what other threads wrote
        z = _second_map(h_ptr, weight_ptr, bias_ptr, C, T, r, BLOCK_T, DEPTH, MIX, PRECISION)
        normal, inverse = _normalise(z, _inside(C, T, r, BLOCK_T, NORM), size, eps, NORM)
        grad = _matrix(grad_ptr + b * C * T, C, T, r, BLOCK_T)
        out = partial_ptr + b * 2 * affine
        inside = _inside(C, T, r, BLOCK_T, "all")  # grad is 0 elsewhere, what it is multiplied with may be NaN
        product = _where(inside, _times(grad, normal))
        if NORM == "spatial":
            for i in tl.static_range(len(r)):
                tl.store(out + r[i], tl.sum(product[i], 1), mask=r[i] < C)
                tl.store(out + affine + r[i], tl.sum(grad[i], 1), mask=r[i] < C)
        elif NORM == "temporal":
            tl.store(out + t, _over_rows(product), mask=t < T)
            tl.store(out + affine + t, _over_rows(grad), mask=t < T)
        else:
            _store(out, product, C, T, r, BLOCK_T)
            _store(out + affine, grad, C, T, r, BLOCK_T)
        v = _times(grad, _affine(scale_ptr, C, T, r, BLOCK_T, NORM))
        _store(dz_ptr + b * C * T, _norm_gradient(v, normal, inverse, size, NORM), C, T, r, BLOCK_T)


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
    LO: tl.constexpr,  # rows of the first tile, and of a second one
    HI: tl.constexpr,
    BLOCK_T: tl.constexpr,
    DEPTH: tl.constexpr,  # of a product at a time
):
    # grid (B,): through the second map and, where there is one, the first and its norm, which is computed again.
    b = tl.program_id(0).to(tl.int64)
    r, t = _row_pieces(LO, HI), tl.arange(0, BLOCK_T)
    TYPE: tl.constexpr = weight_ptr.dtype.element_ty
    dz_ptr += b * C * T
    if MIX == "temporal":
        dh = _product(dz_ptr, T, 1, weight_ptr, T, 1, C, T, T, None, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    else:
        dh = _product(weight_ptr, 1, C, dz_ptr, T, 1, C, C, T, None, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    total = dh
    if pre_weight_ptr is not None:
        first, inverse = _first_map(
            saved_ptr + b * C * T, pre_weight_ptr, pre_bias_ptr, C, T, eps, r, BLOCK_T, DEPTH, PRECISION
        )
        out = partial_ptr + b * 2 * T
        inside = _inside(C, T, r, BLOCK_T, "spatial")  # dh is 0 elsewhere, what it is multiplied with may be NaN
        tl.store(out + t, _over_rows(_where(inside, _times(dh, first))), mask=t < T)
        tl.store(out + T + t, _over_rows(dh), mask=t < T)
        v = _times(dh, _affine(pre_scale_ptr, C, T, r, BLOCK_T, "temporal"))
        dy_ptr += b * C * T
        _store(dy_ptr, _norm_gradient(v, first, inverse, T, "temporal"), C, T, r, BLOCK_T)
        tl.debug_barrier()  # the product reads what other threads wrote
        total = _product(dy_ptr, T, 1, pre_weight_ptr, T, 1, C, T, T, dh, r, BLOCK_T, DEPTH, TYPE, PRECISION)
    total = add_pieces(total, _matrix(grad_ptr + b * C * T, C, T, r, BLOCK_T))
    _store(grad_ptr + b * C * T, total, C, T, r, BLOCK_T)


def _sizes(C: int, T: int, norm: str) -> tuple[int, int]:
    """What the last norm runs over, and the numbers in one block's scale."""
    return {"spatial": (C, C), "temporal": (T, T), "all": (C * T, C * T), "none": (1, 0)}[norm]


def _plan(C: int, T: int, mix: str, norm: str, dtype: torch.dtype, precision: str) -> dict:
    """Tile sizes and warps. A fixed rule; the largest that compile without spills, no card has tuned them yet."""
    LO = power_of_2(C, 16, 1024)
    HI = power_of_2(C - LO // 2, 16, 1024)
    LO, HI = (LO // 2, HI) if LO // 2 >= 16 and LO // 2 + HI < LO else (LO, 0)  # two tiles where they pad less
    blocks = {"LO": LO, "HI": HI, "BLOCK_T": power_of_2(T, 16, 1024)}
    blocks["DEPTH"] = SHORTEST if dtype == torch.float32 else 16  # what one mma takes
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
            found.append(compilation(f"temporal_mlp/{name}", kernel, dtype, plan, types | {"eps": "fp32"}))
    return found


AOT = _compilations()
