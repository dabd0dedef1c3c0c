"""The Triton kernel of ``denoise``: one launch for the whole chain. The math is in README.md beside this file.

A program holds BLOCK_M rows, as many whole poses as fit, in registers through every layer of every step, and streams
the weights past them. Widths are padded to powers of two with zeros; padded columns of the state stay 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..._adapters import contiguous
from ..._triton import Compilation, block_diagonal, compilation, dot_precision, launch_on, mix_joints, power_of_2
from . import reference


@triton.jit
def _weights(ptr, row, rows, stride, column, columns):
    """[len(row), len(column)] of a matrix with ``stride`` between rows; 0 outside rows x columns."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load((ptr + row * stride)[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def _vector(ptr, column, columns):
    """[1, len(column)] float32."""
    return tl.load(ptr + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _dot(x, weight, PRECISION: tl.constexpr):
    return tl.dot(x.to(weight.dtype), weight, input_precision=PRECISION)


@triton.jit
def _relu(x):
    return tl.where(x < 0, 0.0, x)  # NaN stays


@triton.jit
def _norm(h, gain_ptr, column, C):
    """gain (h - mean) / (std + 1e-6) + shift, std with the divisor C - 1; gain and shift lie one after the other."""
    inside = (column < C)[None, :]
    d = tl.where(inside, h - (tl.sum(h, 1) / C)[:, None], 0.0)
    std = tl.sqrt(tl.sum(d * d, 1) / (C - 1))
    return _vector(gain_ptr, column, C) * d / (std + 1e-6)[:, None] + _vector(gain_ptr + C, column, C)


@triton.jit
def _conv(
    x, weight_ptr, bias_ptr, polynomials_ptr, row, column, J, Cin, Cout, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sum_k T_k (x W_k) + bias, [BLOCK_M, BLOCK_N]; ``row`` and ``column`` index W_k."""
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(K):
        product = _dot(x, _weights(weight_ptr + k * Cin * Cout, row, Cin, Cout, column, Cout), PRECISION)
        matrix, diagonal, dense = block_diagonal(polynomials_ptr + k * J * J, J, BLOCK_M, False)
        y = mix_joints(y, matrix, diagonal, dense, product, J, BLOCK_M, PRECISION)
    return y + _vector(bias_ptr, column, Cout)


@triton.jit
def _denoise_kernel(
    x_ptr,  # [B, J, Cin]
    y_ptr,  # [B, J, Cout]
    states_ptr,  # [S, B, J, Cin] or None
    estimates_ptr,  # [S, B, J, Cin] or None
    shifts_ptr,  # [S, L, C], with PER_POSE [S, B, L, C], or None
    coefficients_ptr,  # [S, 5] or None: then one pass of the network
    noise_ptr,  # [S, B, J, Cin] or None
    polynomials_ptr,  # [K, J, J]; this and what follows as in GraphDenoiser
    graph_ptr,
    in_weight_ptr,
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
    scale,  # of the scores
    J: tl.constexpr,  # sizes are known when it is compiled: rows of 96 channels are then read 16 bytes at a time
    Cin: tl.constexpr,
    C: tl.constexpr,
    Cout: tl.constexpr,
    heads: tl.constexpr,
    K: tl.constexpr,
    PER_POSE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,  # >= C
    BLOCK_D: tl.constexpr,  # >= C / heads
    BLOCK_H: tl.constexpr,  # columns of the hidden layer at a time
    BLOCK_I: tl.constexpr,  # >= Cin
    BLOCK_O: tl.constexpr,  # >= Cout
):
    # grid (tiles of poses,)
    first_row = tl.program_id(0).to(tl.int64) * (BLOCK_M // J * J)
    row = tl.arange(0, BLOCK_M)
    pose = row // J
    live = (pose < BLOCK_M // J) & (row < rows - first_row)
    column = tl.arange(0, BLOCK_C)
    in_column, out_column = tl.arange(0, BLOCK_I), tl.arange(0, BLOCK_O)
    head_column = tl.arange(0, BLOCK_D)
    D: tl.constexpr = C // heads

    at = (row * Cin)[:, None] + in_column[None, :]  # from the tile's first number on
    first = first_row * Cin
    mask = live[:, None] & (in_column < Cin)[None, :]
    state = tl.load(x_ptr + first + at, mask=mask, other=0.0).to(tl.float32)
    history, all_poses = first, tl.full((), Cin, tl.int64) * rows  # S B J Cin may pass 2**31
    for step in range(steps):
        h = _conv(
            state, in_weight_ptr, in_bias_ptr, polynomials_ptr, in_column, column, J, Cin, C, K,
            BLOCK_M, BLOCK_C, PRECISION,
        )  # fmt: skip
        for layer in range(layers):
            n = _norm(h, norm1_ptr + layer * 2 * C, column, C)
            h += _vector(proj_bias_ptr + layer * C, column, C)
            for head in range(heads):
                w = qkv_weight_ptr + layer * 3 * C * C + head * D
                b = qkv_bias_ptr + layer * 3 * C + head * D
                q = _dot(n, _weights(w, column, C, 3 * C, head_column, D), PRECISION) + _vector(b, head_column, D)
                k = _dot(n, _weights(w + C, column, C, 3 * C, head_column, D), PRECISION)
                k += _vector(b + C, head_column, D)
                weight = _weights(w + 2 * C, column, C, 3 * C, head_column, D)
                v = _dot(n, weight, PRECISION) + _vector(b + 2 * C, head_column, D)
                scores = tl.dot(q.to(weight.dtype), tl.trans(k).to(weight.dtype), input_precision=PRECISION) * scale
                scores = tl.where(pose[:, None] == pose[None, :], scores, float("-inf"))
                share = tl.exp(scores - tl.max(scores, 1)[:, None])
                share = (share / tl.sum(share, 1)[:, None]).to(weight.dtype)
                mixed = mix_joints(
                    tl.zeros((BLOCK_M, BLOCK_D), tl.float32), share, tl.zeros((BLOCK_M,), tl.float32), 1, v, J,
                    BLOCK_M, PRECISION,
                )  # fmt: skip
                proj = _weights(proj_weight_ptr + (layer * C + head * D) * C, head_column, D, C, column, C)
                h += _dot(mixed, proj, PRECISION)

            matrix, diagonal, dense = block_diagonal(graph_ptr + layer * J * J, J, BLOCK_M, False)
            n = _norm(h, norm2_ptr + layer * 2 * C, column, C)
            mixed = mix_joints(
                tl.zeros((BLOCK_M, BLOCK_C), tl.float32), matrix, diagonal, dense, n, J, BLOCK_M, PRECISION
            )
            narrow = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
            for start in range(0, 2 * C, BLOCK_H):
                unit = start + tl.arange(0, BLOCK_H)
                fc1 = _weights(fc1_weight_ptr + layer * 2 * C * C, column, C, 2 * C, unit, 2 * C)
                hidden = _relu(_dot(mixed, fc1, PRECISION) + _vector(fc1_bias_ptr + layer * 2 * C, unit, 2 * C))
                narrow += _dot(
                    hidden, _weights(fc2_weight_ptr + layer * 2 * C * C, unit, 2 * C, C, column, C), PRECISION
                )
            # Read again rather than held in registers meanwhile.
            matrix, diagonal, dense = block_diagonal(graph_ptr + layer * J * J, J, BLOCK_M, False)
            h = mix_joints(h, matrix, diagonal, dense, narrow, J, BLOCK_M, PRECISION)
            h += _vector(fc2_bias_ptr + layer * C, column, C)

            z = _relu(_conv(
                h, conv1_weight_ptr + layer * K * C * C, conv1_bias_ptr + layer * C, polynomials_ptr, column, column,
                J, C, C, K, BLOCK_M, BLOCK_C, PRECISION,
            ))  # fmt: skip
            if shifts_ptr is not None:
                if PER_POSE:
                    shift = (step * (rows // J) + first_row // J + pose) * layers + layer
                    there = live[:, None] & (column < C)[None, :]
                    z += tl.load((shifts_ptr + shift * C)[:, None] + column[None, :], mask=there, other=0.0)
                else:
                    z += _vector(shifts_ptr + (step * layers + layer) * C, column, C)
            h += _relu(_conv(
                z, conv2_weight_ptr + layer * K * C * C, conv2_bias_ptr + layer * C, polynomials_ptr, column, column,
                J, C, C, K, BLOCK_M, BLOCK_C, PRECISION,
            ))  # fmt: skip
        e = _conv(
            h, out_weight_ptr, out_bias_ptr, polynomials_ptr, column, out_column, J, C, Cout, K,
            BLOCK_M, BLOCK_O, PRECISION,
        )  # fmt: skip
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
    return {
        "BLOCK_M": power_of_2(J, 32, 64),  # one pose of 17 joints; with 64 rows the registers spill
        "BLOCK_C": power_of_2(C, 16, 128),
        "BLOCK_D": power_of_2(C // heads, 16, 128),
        "BLOCK_H": 16,
        "BLOCK_I": power_of_2(max(Cin, Cout), 16, 128),
        "BLOCK_O": power_of_2(max(Cin, Cout), 16, 128),  # the update needs both alike
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


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep):
    """See ``reference.loop``; with ``coefficients`` None, ``reference.network``."""
    (B, J, Cin), (K, _, C), L, Cout = x.shape, weights[2].shape, weights[1].shape[0], weights[-1].shape[0]
    S = 1 if coefficients is None else coefficients.shape[0]
    if seed is not None and noise is None:  # the same numbers as every backend draws
        drawn = [reference.draw((B, J, Cin), seed, s, first_pose, x.device).float() for s in range(S)]
        noise = torch.stack(drawn)
    kind = weights[2].dtype
    weights = [w.contiguous() for w in weights]
    weights[:2] = [w.to(kind) for w in weights[:2]]  # mixing matrices meet values of the products' type
    x, shifts, coefficients, noise = contiguous(x, shifts, coefficients, noise)
    y = x.new_empty(B, J, Cout)
    history = [x.new_empty((S, *x.shape) if keep else (0,)) for _ in range(2)]
    if B == 0:
        return y, *history
    blocks, per_pose = _blocks(J, Cin, C, Cout, heads), shifts is not None and shifts.dim() == 4
    tiles = triton.cdiv(B, blocks["BLOCK_M"] // J)
    with launch_on(x):
        _denoise_kernel[(tiles,)](
            x, y, *(h if keep else None for h in history), shifts, coefficients, noise, *weights,
            B * J, S, L, (C // heads) ** -0.5, J, Cin, C, Cout, heads, K, per_pose, dot_precision(kind), **blocks,
            num_warps=8, num_stages=1,
        )  # fmt: skip
    return y, *history


def _aot(loop: bool) -> Compilation:
    plan = {"J": 17, "Cin": 5, "C": 96, "Cout": 5, "heads": 4, "K": 3, "PER_POSE": False, "PRECISION": "ieee"}
    plan |= _blocks(17, 5, 96, 5, 4) | {"num_warps": 8, "num_stages": 1}
    plan |= dict.fromkeys(("states_ptr", "estimates_ptr", "noise_ptr") + (() if loop else ("coefficients_ptr",)))
    exact = ("x_ptr", "y_ptr", "shifts_ptr", "coefficients_ptr", "norm1_ptr", "norm2_ptr")
    types = {a: "*fp32:16" for a in _denoise_kernel.arg_names if a in exact or a.endswith("bias_ptr")}
    # The 128 x 128 weight tile of a product leaves sm_80 a few registers short, outside the inner products.
    return compilation(
        f"denoise/{'loop' if loop else 'network'}", _denoise_kernel, torch.bfloat16, plan, types | {"scale": "fp32"},
        spills_accepted=32,
    )  # fmt: skip


AOT = [_aot(loop=True), _aot(loop=False)]
