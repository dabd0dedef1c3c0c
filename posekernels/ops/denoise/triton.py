"""The Triton kernel of ``denoise``: one launch for the whole chain. The math is in README.md beside this file.

A program holds 64 rows, as many whole poses as fit (three of 17 joints), 16 to a warp, in registers through every layer
of every step, and streams the weights past them. Channels come as a tuple of pieces 32 wide, so that 96 are multiplied
as 96 and not as the next power of two; the columns of the last piece that are padding stay 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..._adapters import contiguous
from ..._triton import (
    Compilation,
    activate,
    compilation,
    dot_precision,
    launch_on,
    load_tile,
    power_of_2,
    round_pieces,
    row_vector,
)
from ...prepared import derived
from . import reference

BLOCK_M = 64  # rows of a tile, 16 to a warp; of 128 joints of 17 fill more, but mixing is twice as wide


@triton.jit
def _zeros(N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """N pieces."""
    y = ()
    for _ in tl.static_range(N):
        y = y + (tl.zeros((BLOCK_M, BLOCK_N), tl.float32),)
    return y


@triton.jit
def _dot(total, x, weight_ptr, rows, stride, column, columns, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):
    """total + the pieces ``x``, BLOCK_K wide, times ``column`` of a matrix; as ``load_tile``."""
    k = tl.arange(0, BLOCK_K)
    for i in tl.static_range(len(x)):
        weight = load_tile(weight_ptr, stride, i * BLOCK_K + k, rows, column, columns)
        total = tl.dot(x[i].to(weight.dtype), weight, total, input_precision=PRECISION)
    return total


@triton.jit
def _add_product(
    totals, x, weight_ptr, rows, columns, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr
):
    """totals + x W, W [rows, columns], pieces everywhere."""
    y = ()
    for i in tl.static_range(len(totals)):
        column = i * BLOCK_N + tl.arange(0, BLOCK_N)
        y = y + (_dot(totals[i], x, weight_ptr, rows, columns, column, columns, BLOCK_K, PRECISION),)
    return y


@triton.jit
def _add_vector(x, ptr, columns, BLOCK_N: tl.constexpr):
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (x[i] + row_vector(ptr, i * BLOCK_N + tl.arange(0, BLOCK_N), columns),)
    return y


@triton.jit
def _mixing(mixing_ptr, mixes_ptr, i, BLOCK_M: tl.constexpr):
    """(matrix i of ``_packed``, [BLOCK_M, BLOCK_M]; 0 where it is the identity)."""
    row = tl.arange(0, BLOCK_M)
    return tl.load((mixing_ptr + (i * BLOCK_M + row) * BLOCK_M)[:, None] + row[None, :]), tl.load(mixes_ptr + i)


@triton.jit
def _mix(total, bad, matrix, mixes, values, PRECISION: tl.constexpr):
    """(total + matrix @ values, [BLOCK_M, n]; rows that are ``bad`` from now on).

    Poses of a tile must not see each other, and 0 * NaN is NaN: a row with a number that is not finite stays out, and
    is remembered.
    """
    rounded = values.to(matrix.dtype)
    broken = tl.max(tl.where(tl.abs(rounded.to(tl.float32)) < float("inf"), 0, 1), 1)
    if mixes:
        kept = tl.where(broken[:, None] > 0, 0.0, rounded).to(matrix.dtype)
        total = tl.dot(matrix, kept, total, input_precision=PRECISION)
    else:
        total += values
    return total, bad | broken


@triton.jit
def _mix_all(totals, bad, matrix, mixes, values, PRECISION: tl.constexpr):
    """``_mix``, piece by piece."""
    y = ()
    for i in tl.static_range(len(values)):
        mixed, bad = _mix(totals[i], bad, matrix, mixes, values[i], PRECISION)
        y = y + (mixed,)
    return y, bad


@triton.jit
def _norm(h, gain_ptr, C, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """gain (h - mean) / (std + 1e-6) + shift, std with the divisor C - 1; gain and shift lie one after the other."""
    total, squares = tl.zeros((BLOCK_M,), tl.float32), tl.zeros((BLOCK_M,), tl.float32)
    for i in tl.static_range(len(h)):
        total += tl.sum(h[i], 1)
    centred = ()
    y = ()
    for i in tl.static_range(len(h)):
        inside = (i * BLOCK_C + tl.arange(0, BLOCK_C) < C)[None, :]
        d = tl.where(inside, h[i] - (total / C)[:, None], 0.0)
        squares += tl.sum(d * d, 1)
        centred = centred + (d,)
    scale = 1.0 / (tl.sqrt(squares / (C - 1)) + 1e-6)
    for i in tl.static_range(len(h)):
        column = i * BLOCK_C + tl.arange(0, BLOCK_C)
        y = y + (row_vector(gain_ptr, column, C) * centred[i] * scale[:, None] + row_vector(gain_ptr + C, column, C),)
    return y


@triton.jit
def _conv(
    x, bad, weight_ptr, bias_ptr, mixing_ptr, mixes_ptr, Cin, Cout, K, N: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sum_k T_k (x W_k) + bias, N pieces BLOCK_N wide, of pieces BLOCK_K wide; and ``bad``."""
    x = round_pieces(x, weight_ptr.dtype.element_ty)
    y = ()
    for i in tl.static_range(N):  # one piece at a time: all their sums are more registers than there are
        column = i * BLOCK_N + tl.arange(0, BLOCK_N)
        piece = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in tl.range(0, K, disable_licm=True):
            matrix, mixes = _mixing(mixing_ptr, mixes_ptr, k, BLOCK_M)
            product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            product = _dot(product, x, weight_ptr + k * Cin * Cout, Cin, Cout, column, Cout, BLOCK_K, PRECISION)
            piece, bad = _mix(piece, bad, matrix, mixes, product, PRECISION)
        y = y + (piece,)
    return _add_vector(y, bias_ptr, Cout, BLOCK_N), bad


@triton.jit
def _denoise_kernel(
    x_ptr,  # [B, J, Cin]
    y_ptr,  # [B, J, Cout]
    states_ptr,  # [S, B, J, Cin] or None
    estimates_ptr,  # [S, B, J, Cin] or None
    shifts_ptr,  # [S, L, C], with PER_POSE [S, B, L, C], or None
    coefficients_ptr,  # [S, 5] or None: then one pass of the network
    noise_ptr,  # [S, B, J, Cin] or None
    mixing_ptr,  # [K + L, BLOCK_M, BLOCK_M] and [K + L] int32, as ``_packed``
    mixes_ptr,
    in_weight_ptr,  # this and what follows as in GraphDenoiser
    in_bias_ptr,
    norm1_ptr,
    qkv_weight_ptr,
    qkv_bias_ptr,
    proj_weight_ptr,
    proj_bias_ptr,
    norm2_ptr,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    conv1_weight_ptr,
    conv1_bias_ptr,
    conv2_weight_ptr,
    conv2_bias_ptr,
    out_weight_ptr,
    out_bias_ptr,
    rows,  # B * J
    steps,
    layers,
    heads,
    hidden,  # 2 C; this, ``heads`` and K are told when it runs: known before, their loops would be unrolled
    K,
    scale,  # of the scores
    J: tl.constexpr,  # sizes are known when it is compiled: rows of 96 channels are then read 16 bytes at a time
    Cin: tl.constexpr,
    C: tl.constexpr,
    Cout: tl.constexpr,
    D: tl.constexpr,  # C / heads
    PER_POSE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,  # of a piece of the channels
    BLOCK_D: tl.constexpr,  # >= D
    BLOCK_H: tl.constexpr,  # columns of the hidden layer at a time
    BLOCK_I: tl.constexpr,  # >= Cin
    BLOCK_O: tl.constexpr,  # >= Cout
):
    # grid (tiles of poses,)
    first_row = tl.program_id(0).to(tl.int64) * (BLOCK_M // J * J)
    row = tl.arange(0, BLOCK_M)
    pose = row // J
    live = (pose < BLOCK_M // J) & (row < rows - first_row)
    in_column, out_column = tl.arange(0, BLOCK_I), tl.arange(0, BLOCK_O)
    head_column = tl.arange(0, BLOCK_D)
    TYPE: tl.constexpr = qkv_weight_ptr.dtype.element_ty
    N: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C  # pieces

    at = (row * Cin)[:, None] + in_column[None, :]  # from the tile's first number on
    first = first_row * Cin
    mask = live[:, None] & (in_column < Cin)[None, :]
    state = tl.load(x_ptr + first + at, mask=mask, other=0.0).to(tl.float32)
    history, all_poses = first, tl.full((), Cin, tl.int64) * rows  # S B J Cin may pass 2**31
    # Loops keep nothing from one turn to the next but what they must: addresses and masks would fill the registers.
    for step in tl.range(0, steps, disable_licm=True):
        bad = tl.zeros((BLOCK_M,), tl.int32)
        h = _zeros(N, BLOCK_M, BLOCK_C)
        for p in tl.range(0, K, disable_licm=True):  # mixed before the product: Cin is less than C
            matrix, mixes = _mixing(mixing_ptr, mixes_ptr, p, BLOCK_M)
            nothing = tl.zeros((BLOCK_M, BLOCK_I), tl.float32)
            mixed, bad = _mix(nothing, bad, matrix, mixes, state, PRECISION)
            h = _add_product(h, (mixed,), in_weight_ptr + p * Cin * C, Cin, C, BLOCK_I, BLOCK_C, PRECISION)
        h = _add_vector(h, in_bias_ptr, C, BLOCK_C)
        for layer in tl.range(0, layers, disable_licm=True):
            n = round_pieces(_norm(h, norm1_ptr + layer * 2 * C, C, BLOCK_M, BLOCK_C), TYPE)
            h = _add_vector(h, proj_bias_ptr + layer * C, C, BLOCK_C)
            for head in tl.range(0, heads, disable_licm=True):
                w = qkv_weight_ptr + layer * 3 * C * C + head * D
                b = qkv_bias_ptr + layer * 3 * C + head * D
                narrow = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
                q = _dot(narrow, n, w, C, 3 * C, head_column, D, BLOCK_C, PRECISION)
                k = _dot(narrow, n, w + C, C, 3 * C, head_column, D, BLOCK_C, PRECISION)
                v = _dot(narrow, n, w + 2 * C, C, 3 * C, head_column, D, BLOCK_C, PRECISION)
                q += row_vector(b, head_column, D)
                k += row_vector(b + C, head_column, D)
                v += row_vector(b + 2 * C, head_column, D)
                scores = tl.dot(q.to(TYPE), tl.trans(k).to(TYPE), input_precision=PRECISION) * scale
                scores = tl.where(pose[:, None] == pose[None, :], scores, float("-inf"))
                share = tl.exp(scores - tl.max(scores, 1)[:, None])
                share = (share / tl.sum(share, 1)[:, None]).to(TYPE)
                mixed, bad = _mix(narrow, bad, share, 1, v, PRECISION)
                own = proj_weight_ptr + (layer * C + head * D) * C
                h = _add_product(h, (mixed,), own, D, C, BLOCK_D, BLOCK_C, PRECISION)

            matrix, mixes = _mixing(mixing_ptr, mixes_ptr, K + layer, BLOCK_M)
            n = _norm(h, norm2_ptr + layer * 2 * C, C, BLOCK_M, BLOCK_C)
            n, bad = _mix_all(_zeros(N, BLOCK_M, BLOCK_C), bad, matrix, mixes, n, PRECISION)
            n = round_pieces(n, TYPE)
            z = _zeros(N, BLOCK_M, BLOCK_C)
            for start in tl.range(0, hidden, BLOCK_H, disable_licm=True):
                unit = start + tl.arange(0, BLOCK_H)
                own = fc1_weight_ptr + layer * 2 * C * C
                unfolded = _dot(
                    tl.zeros((BLOCK_M, BLOCK_H), tl.float32), n, own, C, 2 * C, unit, 2 * C, BLOCK_C, PRECISION
                )
                unfolded = activate(unfolded + row_vector(fc1_bias_ptr + layer * 2 * C, unit, 2 * C), "relu")
                own = fc2_weight_ptr + (layer * 2 * C + start) * C
                z = _add_product(z, (unfolded,), own, 2 * C - start, C, BLOCK_H, BLOCK_C, PRECISION)
            # Read again rather than held in registers meanwhile.
            matrix, mixes = _mixing(mixing_ptr, mixes_ptr, K + layer, BLOCK_M)
            h, bad = _mix_all(h, bad, matrix, mixes, z, PRECISION)
            h = _add_vector(h, fc2_bias_ptr + layer * C, C, BLOCK_C)

            y, bad = _conv(
                h, bad, conv1_weight_ptr + layer * K * C * C, conv1_bias_ptr + layer * C, mixing_ptr, mixes_ptr, C, C,
                K, N, BLOCK_M, BLOCK_C, BLOCK_C, PRECISION,
            )  # fmt: skip
            z = ()
            for i in tl.static_range(N):
                piece, column = activate(y[i], "relu"), i * BLOCK_C + tl.arange(0, BLOCK_C)
                if shifts_ptr is not None:
                    if PER_POSE:
                        shift = (step * (rows // J) + first_row // J + pose) * layers + layer
                        there = live[:, None] & (column < C)[None, :]
                        piece += tl.load((shifts_ptr + shift * C)[:, None] + column[None, :], mask=there, other=0.0)
                    else:
                        piece += row_vector(shifts_ptr + (step * layers + layer) * C, column, C)
                z = z + (piece,)
            y, bad = _conv(
                z, bad, conv2_weight_ptr + layer * K * C * C, conv2_bias_ptr + layer * C, mixing_ptr, mixes_ptr, C, C,
                K, N, BLOCK_M, BLOCK_C, BLOCK_C, PRECISION,
            )  # fmt: skip
            z = ()
            for i in tl.static_range(N):
                z = z + (h[i] + activate(y[i], "relu"),)
            h = z
        y, bad = _conv(
            h, bad, out_weight_ptr, out_bias_ptr, mixing_ptr, mixes_ptr, C, Cout, K, 1, BLOCK_M, BLOCK_C, BLOCK_O,
            PRECISION,
        )  # fmt: skip
        shared = tl.max(tl.where(pose[:, None] == pose[None, :], bad[None, :], 0), 1)  # by the rows of a pose
        e = tl.where(shared[:, None] > 0, float("nan"), y[0])
        if coefficients_ptr is None:
            out = (row * Cout)[:, None] + out_column[None, :]
            tl.store(y_ptr + first_row * Cout + out, e, mask=live[:, None] & (out_column < Cout)[None, :])
        else:
            c = coefficients_ptr + 5 * step
            if estimates_ptr is not None:
                tl.store(estimates_ptr + history + at, tl.load(c) * state + tl.load(c + 1) * e, mask=mask)
            state = tl.load(c + 2) * state + tl.load(c + 3) * e
            if noise_ptr is not None:
                state += tl.load(c + 4) * tl.load(noise_ptr + history + at, mask=mask, other=0.0)
            if states_ptr is not None:
                tl.store(states_ptr + history + at, state, mask=mask)
            history += all_poses
    if coefficients_ptr is not None:
        tl.store(y_ptr + first + at, state, mask=mask)


def _blocks(J: int, Cin: int, C: int, Cout: int, heads: int) -> dict[str, int]:
    """Tile sizes and warps; a fixed rule, no card has tuned it yet."""
    return {
        "BLOCK_M": BLOCK_M,
        "BLOCK_C": power_of_2(C, 16, 32),
        "BLOCK_D": power_of_2(C // heads, 16, 128),
        "BLOCK_H": 32,
        "BLOCK_I": power_of_2(max(Cin, Cout), 16, 128),
        "BLOCK_O": power_of_2(max(Cin, Cout), 16, 128),  # the update needs both alike
        "num_warps": 4,
        "num_stages": 1,
    }


def refuses(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep) -> str | None:
    """Why the kernel cannot take these, or None."""
    C, J = weights[2].shape[2], x.shape[1]
    if x.dtype != torch.float32:
        return f"needs x in float32 (with weights in float32, bfloat16 or float16), got {x.dtype}"
    if weights[2].dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"needs weights in float32, bfloat16 or float16, got {weights[2].dtype}"
    if C > 128:
        return f"keeps at most 128 channels in registers, got {C}"
    if x.shape[2] > 128 or weights[-1].shape[0] > 128:
        return f"takes at most 128 channels in and out, got {x.shape[2]} and {weights[-1].shape[0]}"
    return None if J <= 64 else f"takes at most 64 joints, got {J}"


def _packed(weights) -> tuple[torch.Tensor, torch.Tensor]:
    """(polynomials and graphs [K + L, 64, 64], a block on the diagonal for each pose of a tile, in the dtype of the
    products, as what they meet; [K + L] which of them are not the identity)."""
    matrices = torch.cat([t.detach() for t in weights[:2]]).to(weights[2].dtype)
    J = matrices.shape[1]
    packed = matrices.new_zeros(len(matrices), BLOCK_M, BLOCK_M)
    for first in range(0, BLOCK_M // J * J, J):
        packed[:, first : first + J, first : first + J] = matrices
    return packed, (matrices != torch.eye(J, device=matrices.device)).flatten(1).any(1).int()


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep):
    """See ``reference.loop``; with ``coefficients`` None, ``reference.network``."""
    (B, J, Cin), (K, _, C), L, Cout = x.shape, weights[2].shape, weights[1].shape[0], weights[-1].shape[0]
    S = 1 if coefficients is None else coefficients.shape[0]
    if seed is not None and noise is None:  # the same numbers as every backend draws
        drawn = [reference.draw((B, J, Cin), seed, s, first_pose, x.device).float() for s in range(S)]
        noise = torch.stack(drawn)
    kind = weights[2].dtype
    mixing = derived(("denoise_triton",), lambda: _packed(weights), *weights[:3])
    x, shifts, coefficients, noise = contiguous(x, shifts, coefficients, noise)
    y = x.new_empty(B, J, Cout)
    history = [x.new_empty((S, *x.shape) if keep else (0,)) for _ in range(2)]
    if B == 0:
        return y, *history
    blocks, per_pose = _blocks(J, Cin, C, Cout, heads), shifts is not None and shifts.dim() == 4
    tiles = triton.cdiv(B, blocks["BLOCK_M"] // J)
    with launch_on(x):
        _denoise_kernel[(tiles,)](
            x, y, *(h if keep else None for h in history), shifts, coefficients, noise, *mixing,
            *(w.contiguous() for w in weights[2:]), B * J, S, L, heads, 2 * C, K, (C // heads) ** -0.5,
            J, Cin, C, Cout, C // heads, per_pose, dot_precision(kind), **blocks,
        )  # fmt: skip
    return y, *history


def _aot(loop: bool) -> Compilation:
    plan = {"J": 17, "Cin": 5, "C": 96, "Cout": 5, "D": 24, "PER_POSE": False, "PRECISION": "ieee"}
    plan |= _blocks(17, 5, 96, 5, 4)
    plan |= dict.fromkeys(("states_ptr", "estimates_ptr", "noise_ptr") + (() if loop else ("coefficients_ptr",)))
    exact = ("x_ptr", "y_ptr", "shifts_ptr", "coefficients_ptr", "norm1_ptr", "norm2_ptr")
    types = {"mixes_ptr": "*i32:16"}
    types |= {a: "*fp32:16" for a in _denoise_kernel.arg_names if a in exact or a.endswith("bias_ptr")}
    # A warp's 16 rows of the state, of what is multiplied and of their sums leave sm_80 a dozen registers short.
    return compilation(
        f"denoise/{'loop' if loop else 'network'}", _denoise_kernel, torch.bfloat16, plan, types | {"scale": "fp32"},
        spills_accepted=64,
    )  # fmt: skip


AOT = [_aot(loop=True), _aot(loop=False)]
