"""Triton kernels of ``graph_conv``. The math they follow, and what they move, is in README.md beside this file.

A tile is BLOCK_M rows that hold as many whole poses as fit (7 of 17 joints in 128 rows), so a pose never spans two
programs. Rows past the last whole pose are computed and thrown away.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._triton import (
    PRECISIONS,
    Compilation,
    activate,
    activation_slope,
    block_diagonal,
    compilation,
    dot_precision,
    launch_on,
    mix_joints,
    power_of_2,
    row_vector,
    splits,
)

_MANY = 132  # programs: with fewer a large card is not filled, and they take smaller tiles


@triton.jit
def _load_tile(ptr, first_row, rows, column, columns, J, BLOCK_M: tl.constexpr):
    """[BLOCK_M, len(column)] of a [rows, columns] matrix: the whole poses from ``first_row`` (int64) on, else 0."""
    row = tl.arange(0, BLOCK_M)
    mask = ((row // J < BLOCK_M // J) & (row < rows - first_row))[:, None] & (column < columns)[None, :]
    return tl.load((ptr + first_row * columns + row * columns)[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def _product(
    x_ptr, weight_ptr, first_row, rows, column, J, Cin, Cout,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BLOCK_M, BLOCK_N] float32: x W_k, for ``weight_ptr`` at W_k."""
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, Cin, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        x = _load_tile(x_ptr, first_row, rows, channel, Cin, J, BLOCK_M)  # [BLOCK_M, BLOCK_C]
        weight = tl.load(
            (weight_ptr + channel * Cout)[:, None] + column[None, :],
            mask=(channel < Cin)[:, None] & (column < Cout)[None, :],
            other=0.0,
        )  # [BLOCK_C, BLOCK_N]
        product = tl.dot(x, weight, product, input_precision=PRECISION)
    return product


@triton.jit
def _modulation_tile(modulation_ptr, column, J, Cout, BLOCK_M: tl.constexpr):
    """[BLOCK_M, len(column)] float32: row r holds the modulation of joint r % J."""
    joint = tl.arange(0, BLOCK_M) % J
    return tl.load(
        (modulation_ptr + joint * Cout)[:, None] + column[None, :], mask=(column < Cout)[None, :], other=0.0
    ).to(tl.float32)


@triton.jit
def _linear_grad(
    grad_ptr, h_ptr, scale_ptr, shift_ptr, first_row, rows, column, J, Cout,
    BLOCK_M: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """The gradient that reaches h, [BLOCK_M, len(column)] float32: scale * act'(z) * grad, z = scale * h + shift."""
    grad = _load_tile(grad_ptr, first_row, rows, column, Cout, J, BLOCK_M).to(tl.float32)
    if ACTIVATION != "none":
        z = _load_tile(h_ptr, first_row, rows, column, Cout, J, BLOCK_M).to(tl.float32)
        if scale_ptr is not None:
            z = z * row_vector(scale_ptr, column, Cout)
        if shift_ptr is not None:
            z = z + row_vector(shift_ptr, column, Cout)
        grad = grad * activation_slope(z, ACTIVATION)
    if scale_ptr is not None:
        grad = grad * row_vector(scale_ptr, column, Cout)
    return grad


@triton.jit
def _graph_conv_fwd_kernel(
    x_ptr,  # [B, J, Cin]
    weight_ptr,  # [K, Cin, Cout]
    adjacency_ptr,  # [K, J, J] or None: every joint to itself
    bias_ptr,  # [Cout] or None
    modulation_ptr,  # [J, Cout] or None
    scale_ptr,  # [Cout] or None
    shift_ptr,  # [Cout] or None
    residual_ptr,  # [B, J, Cout] or None
    y_ptr,  # [B, J, Cout]
    h_ptr,  # [B, J, Cout] or None: the value before the epilogue
    rows,  # B * J
    J,
    Cin,
    Cout,
    K: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # grid (tiles of poses * blocks of Cout,): the blocks of one tile run next to each other and share x in the cache.
    blocks = tl.cdiv(Cout, BLOCK_N)
    first_row = (tl.program_id(0) // blocks).to(tl.int64) * (BLOCK_M // J * J)  # rows * Cout may pass 2**31
    column = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    h = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(K):
        product = _product(
            x_ptr, weight_ptr + k * Cin * Cout, first_row, rows, column, J, Cin, Cout,
            BLOCK_M, BLOCK_N, BLOCK_C, PRECISION,
        )  # fmt: skip
        if modulation_ptr is not None:
            product *= _modulation_tile(modulation_ptr, column, J, Cout, BLOCK_M)
        if adjacency_ptr is None:
            h += product
        else:
            matrix, diagonal, dense = block_diagonal(adjacency_ptr + k * J * J, J, BLOCK_M, False)
            h = mix_joints(h, matrix, diagonal, dense, product, J, BLOCK_M, PRECISION)
    if bias_ptr is not None:
        h += row_vector(bias_ptr, column, Cout)

    row = tl.arange(0, BLOCK_M)
    offset = first_row * Cout + row * Cout  # of each row
    mask = ((row // J < BLOCK_M // J) & (row < rows - first_row))[:, None] & (column < Cout)[None, :]
    if h_ptr is not None:
        tl.store((h_ptr + offset)[:, None] + column[None, :], h, mask=mask)
    if scale_ptr is not None:
        h *= row_vector(scale_ptr, column, Cout)
    if shift_ptr is not None:
        h += row_vector(shift_ptr, column, Cout)
    y = activate(h, ACTIVATION)
    if residual_ptr is not None:
        y += tl.load((residual_ptr + offset)[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store((y_ptr + offset)[:, None] + column[None, :], y, mask=mask)


@triton.jit
def _graph_conv_bwd_x_kernel(
    grad_ptr,  # [B, J, Cout]
    h_ptr,  # [B, J, Cout], read only where there is an activation
    weight_ptr,  # [K, Cin, Cout]
    adjacency_ptr,  # [K, J, J]
    modulation_ptr,  # [J, Cout] or None
    scale_ptr,  # [Cout] or None
    shift_ptr,  # [Cout] or None
    grad_x_ptr,  # [B, J, Cin]
    rows,
    J,
    Cin,
    Cout,
    K: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # grid (tiles of poses * blocks of Cin,): grad_x = sum_k (M * A_k^T dh) W_k^T, Cout walked in steps of BLOCK_N.
    blocks = tl.cdiv(Cin, BLOCK_C)
    first_row = (tl.program_id(0) // blocks).to(tl.int64) * (BLOCK_M // J * J)
    channel = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    grad_x = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for k in range(K):
        matrix, diagonal, dense = block_diagonal(adjacency_ptr + k * J * J, J, BLOCK_M, True)
        for start in range(0, Cout, BLOCK_N):
            column = start + tl.arange(0, BLOCK_N)
            grad = _linear_grad(
                grad_ptr, h_ptr, scale_ptr, shift_ptr, first_row, rows, column, J, Cout, BLOCK_M, ACTIVATION
            )
            grad = mix_joints(tl.zeros_like(grad), matrix, diagonal, dense, grad, J, BLOCK_M, PRECISION)
            if modulation_ptr is not None:
                grad *= _modulation_tile(modulation_ptr, column, J, Cout, BLOCK_M)
            weight = tl.load(
                (weight_ptr + k * Cin * Cout + channel * Cout)[None, :] + column[:, None],
                mask=(channel < Cin)[None, :] & (column < Cout)[:, None],
                other=0.0,
            )  # [BLOCK_N, BLOCK_C]: W_k transposed
            grad_x = tl.dot(grad.to(weight.dtype), weight, grad_x, input_precision=PRECISION)
    row = tl.arange(0, BLOCK_M)
    mask = ((row // J < BLOCK_M // J) & (row < rows - first_row))[:, None] & (channel < Cin)[None, :]
    tl.store(grad_x_ptr + first_row * Cin + (row[:, None] * Cin + channel[None, :]), grad_x, mask=mask)


@triton.jit
def _graph_conv_bwd_weight_kernel(
    grad_ptr,  # [B, J, Cout]
    h_ptr,  # [B, J, Cout], read only where there is an activation
    x_ptr,  # [B, J, Cin]
    adjacency_ptr,  # [K, J, J]
    modulation_ptr,  # [J, Cout] or None
    scale_ptr,  # [Cout] or None
    shift_ptr,  # [Cout] or None
    partial_ptr,  # [splits, K, Cin, Cout] float32
    rows,
    J,
    Cin,
    Cout,
    tiles_per_split,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # grid (blocks of Cin * blocks of Cout, K, splits): grad_W_k = x^T (M * A_k^T dh), summed over this split's tiles.
    blocks = tl.cdiv(Cout, BLOCK_N)
    channel = tl.program_id(0) // blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    column = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1)
    step = BLOCK_M // J * J
    matrix, diagonal, dense = block_diagonal(adjacency_ptr + k * J * J, J, BLOCK_M, True)
    total = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for tile in range(tiles_per_split):
        first_row = (tl.program_id(2).to(tl.int64) * tiles_per_split + tile) * step
        grad = _linear_grad(
            grad_ptr, h_ptr, scale_ptr, shift_ptr, first_row, rows, column, J, Cout, BLOCK_M, ACTIVATION
        )
        grad = mix_joints(tl.zeros_like(grad), matrix, diagonal, dense, grad, J, BLOCK_M, PRECISION)
        if modulation_ptr is not None:
            grad *= _modulation_tile(modulation_ptr, column, J, Cout, BLOCK_M)
        x = _load_tile(x_ptr, first_row, rows, channel, Cin, J, BLOCK_M)
        total = tl.dot(tl.trans(x), grad.to(x.dtype), total, input_precision=PRECISION)
    out = (tl.program_id(2).to(tl.int64) * tl.num_programs(1) + k) * Cin * Cout
    mask = (channel < Cin)[:, None] & (column < Cout)[None, :]
    tl.store(partial_ptr + out + (channel[:, None] * Cout + column[None, :]), total, mask=mask)


@triton.jit
def _graph_conv_bwd_graph_kernel(
    grad_ptr,  # [B, J, Cout]
    h_ptr,  # [B, J, Cout], read only where there is an activation
    x_ptr,  # [B, J, Cin]
    weight_ptr,  # [K, Cin, Cout]
    adjacency_ptr,  # [K, J, J]
    modulation_ptr,  # [J, Cout] or None
    scale_ptr,  # [Cout] or None
    shift_ptr,  # [Cout] or None
    adjacency_partial_ptr,  # [splits * blocks of Cout, K, poses of a tile, J, J] float32, or None
    modulation_partial_ptr,  # [splits, K, poses of a tile, J, Cout] float32, or None
    rows,
    J,
    Cin,
    Cout,
    tiles_per_split,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # grid (blocks of Cout, K, splits). x W_k is computed again rather than kept by the forward:
    # grad_A_k = dh (M * x W_k)^T, whose diagonal blocks count; grad_M = sum_k (A_k^T dh) * (x W_k), summed over poses.
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1)
    poses = BLOCK_M // J
    grad_matrix = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)
    grad_modulation = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tile in range(tiles_per_split):
        first_row = (tl.program_id(2).to(tl.int64) * tiles_per_split + tile) * (poses * J)
        product = _product(
            x_ptr, weight_ptr + k * Cin * Cout, first_row, rows, column, J, Cin, Cout,
            BLOCK_M, BLOCK_N, BLOCK_C, PRECISION,
        )  # fmt: skip
        grad = _linear_grad(
            grad_ptr, h_ptr, scale_ptr, shift_ptr, first_row, rows, column, J, Cout, BLOCK_M, ACTIVATION
        )
        if modulation_partial_ptr is not None:
            matrix, diagonal, dense = block_diagonal(adjacency_ptr + k * J * J, J, BLOCK_M, True)
            mixed = mix_joints(tl.zeros_like(grad), matrix, diagonal, dense, grad, J, BLOCK_M, PRECISION)
            grad_modulation += mixed * product
        if adjacency_partial_ptr is not None:
            if modulation_ptr is not None:
                product *= _modulation_tile(modulation_ptr, column, J, Cout, BLOCK_M)
            dtype = x_ptr.dtype.element_ty
            grad_matrix = tl.dot(grad.to(dtype), tl.trans(product.to(dtype)), grad_matrix, input_precision=PRECISION)

    row = tl.arange(0, BLOCK_M)
    pose = row // J
    joint = row % J
    if adjacency_partial_ptr is not None:
        part = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + k
        out = pose[:, None] * J * J + joint[:, None] * J + joint[None, :]
        mask = (pose[:, None] == pose[None, :]) & (pose < poses)[:, None]
        tl.store(adjacency_partial_ptr + part.to(tl.int64) * (poses * J * J) + out, grad_matrix, mask=mask)
    if modulation_partial_ptr is not None:
        part = tl.program_id(2) * tl.num_programs(1) + k
        out = row[:, None] * Cout + column[None, :]
        mask = (pose < poses)[:, None] & (column < Cout)[None, :]
        tl.store(modulation_partial_ptr + part.to(tl.int64) * (poses * J * Cout) + out, grad_modulation, mask=mask)


@triton.jit
def _graph_conv_bwd_columns_kernel(
    grad_ptr,  # [B, J, Cout]
    h_ptr,  # [B, J, Cout], read only where there is an activation or a scale
    scale_ptr,  # [Cout] or None
    shift_ptr,  # [Cout] or None
    partial_ptr,  # [splits, 3, Cout] float32: gradients of bias, scale and shift
    rows,
    Cout,
    tiles_per_split,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # grid (blocks of Cout, splits)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    bias = tl.zeros((BLOCK_N,), tl.float32)
    scale = tl.zeros((BLOCK_N,), tl.float32)
    shift = tl.zeros((BLOCK_N,), tl.float32)
    for tile in range(tiles_per_split):
        row = (tl.program_id(1).to(tl.int64) * tiles_per_split + tile) * BLOCK_M + tl.arange(0, BLOCK_M)
        offset = row[:, None] * Cout + column[None, :]
        mask = (row < rows)[:, None] & (column < Cout)[None, :]
        grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        h = grad
        if ACTIVATION != "none" or scale_ptr is not None:
            h = tl.load(h_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if ACTIVATION != "none":
            z = h
            if scale_ptr is not None:
                z *= row_vector(scale_ptr, column, Cout)
            if shift_ptr is not None:
                z += row_vector(shift_ptr, column, Cout)
            grad *= activation_slope(z, ACTIVATION)
        shift += tl.sum(grad, 0)
        if scale_ptr is not None:
            scale += tl.sum(grad * h, 0)
            grad *= row_vector(scale_ptr, column, Cout)
        bias += tl.sum(grad, 0)
    out = partial_ptr + tl.program_id(1).to(tl.int64) * 3 * Cout + column
    tl.store(out, bias, mask=column < Cout)
    tl.store(out + Cout, scale, mask=column < Cout)
    tl.store(out + 2 * Cout, shift, mask=column < Cout)


def _blocks(kernel: str, dtype: torch.dtype, precision: str, Cin: int, Cout: int, rows: int, J: int) -> dict[str, int]:
    """Tile sizes and warps of ``kernel`` ("fwd", "x", "weight", "graph"). A fixed rule: what runs repeats bit for bit.

    The largest tiles that compile without spills for sm_80 and sm_90, forward no wider than fills them; no card has
    tuned them yet.
    """
    three = precision == "tf32x3"  # every operand twice in registers
    if kernel == "fwd" and dtype != torch.float32 and Cin >= 256 and rows >= 4096:
        M, N, C = 128, 32, 32  # fuller tiles; the wider mixing is small beside so long a product
    else:
        M = 64
        N, C = {"fwd": (64, 32), "x": (64, 128), "weight": (64, 64), "graph": (32, 32)}[kernel]
        if dtype == torch.float32:
            N, C = {"fwd": (64, 32), "x": (32, 64), "weight": (64, 64), "graph": (32, 32)}[kernel]
        if three:
            N, C = {"fwd": (32, 32), "x": (32, 32), "weight": (16, 32), "graph": (16, 16)}[kernel]
    N = power_of_2(Cout, 16, N)
    if kernel == "fwd":
        M = power_of_2(rows, power_of_2(J, 16, 64), M)
        if J == 1:  # where joints are mixed, narrower tiles pad less, but mix more often: by the counts that is dearer
            N = min((N, max(N // 2, 16)), key=lambda n: triton.cdiv(Cout, n) * n)
        if triton.cdiv(rows, M // J * J) * triton.cdiv(Cout, N) < _MANY:
            M, N = M if J > 1 else min(M, 32), min(N, 32)
    warps = 4 if kernel == "fwd" and M * N <= 1024 else 8
    return {"BLOCK_M": M, "BLOCK_N": N, "BLOCK_C": power_of_2(Cin, 16, C), "num_warps": warps}


def graph_conv(
    x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep
) -> tuple[Tensor, Tensor]:
    """As ``reference.graph_conv``."""
    (B, J, Cin), (K, _, Cout) = x.shape, weight.shape
    x, weight, adjacency, bias, modulation, scale, shift, residual = contiguous(
        x, weight, adjacency, bias, modulation, scale, shift, residual
    )
    y = x.new_empty(B, J, Cout)
    h = torch.empty_like(y) if keep else None
    if y.numel():
        precision = dot_precision(x.dtype)
        plan = _blocks("fwd", x.dtype, precision, Cin, Cout, B * J, J)
        grid = (triton.cdiv(B, plan["BLOCK_M"] // J) * triton.cdiv(Cout, plan["BLOCK_N"]),)
        with launch_on(x):
            _graph_conv_fwd_kernel[grid](
                x, weight, adjacency, bias, modulation, scale, shift, residual, y, h, B * J, J, Cin, Cout,
                K=K, ACTIVATION=activation, PRECISION=precision, **plan,
            )  # fmt: skip
    return y, x.new_empty(0) if h is None else h


def linear(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, activation: str = "none") -> Tensor:
    """act(x W + bias) + residual in one launch: what other ops' Triton backends share.

    Args:
        x: [N, Cin]; weight: [Cin, Cout]; bias: [Cout]; residual: [N, Cout].
        activation: as for ``graph_conv``.
    """
    residual = None if residual is None else residual[:, None]
    y, _ = graph_conv(x[:, None], weight[None], None, bias, None, None, None, residual, activation, False)
    return y[:, 0]


def graph_conv_backward(
    grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs
) -> list[Tensor]:
    """As ``reference.graph_conv_backward``. Sums over poses are made in two stages, without atomics."""
    (B, J, Cin), (K, _, Cout) = x.shape, weight.shape
    inputs = [x, weight, adjacency, bias, modulation, scale, shift]
    grad, h, x, weight, adjacency, modulation, scale, shift = contiguous(
        grad, h, x, weight, adjacency, modulation, scale, shift
    )
    if not (B and Cin and Cout):
        return [torch.zeros_like(t, memory_format=torch.contiguous_format) for t, n in zip(inputs, needs) if n]
    need_x, need_weight, need_adjacency, need_bias, need_modulation, need_scale, need_shift = needs
    precision = dot_precision(x.dtype)
    options = {"ACTIVATION": activation, "PRECISION": precision}
    rows = B * J
    found: dict[str, Tensor] = {}

    def partials(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    def cut(tile_rows: int, programs: int) -> tuple[int, int]:
        """(splits, tiles of each) of a reduction over all rows."""
        tiles = triton.cdiv(rows, tile_rows)
        per_split = triton.cdiv(tiles, splits(x, tiles, programs))
        return triton.cdiv(tiles, per_split), per_split

    with launch_on(x):
        if need_x:
            plan = _blocks("x", x.dtype, precision, Cin, Cout, rows, J)
            found["x"] = torch.empty_like(x)
            grid = (triton.cdiv(B, plan["BLOCK_M"] // J) * triton.cdiv(Cin, plan["BLOCK_C"]),)
            _graph_conv_bwd_x_kernel[grid](
                grad, h, weight, adjacency, modulation, scale, shift, found["x"], rows, J, Cin, Cout, K=K,
                **options, **plan,
            )  # fmt: skip
        if need_weight:
            plan = _blocks("weight", x.dtype, precision, Cin, Cout, rows, J)
            blocks = triton.cdiv(Cin, plan["BLOCK_C"]) * triton.cdiv(Cout, plan["BLOCK_N"])
            S, per_split = cut(plan["BLOCK_M"] // J * J, blocks * K)
            partial = partials(S, K, Cin, Cout)
            _graph_conv_bwd_weight_kernel[(blocks, K, S)](
                grad, h, x, adjacency, modulation, scale, shift, partial, rows, J, Cin, Cout, per_split,
                **options, **plan,
            )  # fmt: skip
            found["weight"] = partial.sum(0)
        # One launch each: both sums in one kernel do not fit the registers.
        for name in ("adjacency", "modulation"):
            if not (need_adjacency if name == "adjacency" else need_modulation):
                continue
            plan = _blocks("graph", x.dtype, precision, Cin, Cout, rows, J)
            blocks, poses = triton.cdiv(Cout, plan["BLOCK_N"]), plan["BLOCK_M"] // J
            S, per_split = cut(poses * J, blocks * K)
            shape = (S * blocks, K, poses, J, J) if name == "adjacency" else (S, K, poses, J, Cout)
            partial = partials(*shape)
            _graph_conv_bwd_graph_kernel[(blocks, K, S)](
                grad, h, x, weight, adjacency, modulation, scale, shift,
                partial if name == "adjacency" else None, partial if name == "modulation" else None,
                rows, J, Cin, Cout, per_split, **options, **plan,
            )  # fmt: skip
            found[name] = partial.sum((0, 2) if name == "adjacency" else (0, 1, 2))
        if need_bias or need_scale or need_shift:
            BLOCK_M, BLOCK_N = 32, power_of_2(Cout, 16, 64)
            blocks = triton.cdiv(Cout, BLOCK_N)
            S, per_split = cut(BLOCK_M, blocks)
            partial = partials(S, 3, Cout)
            _graph_conv_bwd_columns_kernel[(blocks, S)](
                grad, h, scale, shift, partial, rows, Cout, per_split, ACTIVATION=activation,
                BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, num_warps=4,
            )  # fmt: skip
            for i, name in enumerate(("bias", "scale", "shift")):
                found[name] = partial[:, i].sum(0)
    names = ("x", "weight", "adjacency", "bias", "modulation", "scale", "shift")
    return [found[name].to(x.dtype) for name, needed in zip(names, needs) if needed]


def _compilation(name: str, kernel, dtype: torch.dtype, plan: dict, matrix_units: bool, **constants) -> Compilation:
    types = {"Cin": "i32:16", "Cout": "i32:16"}
    types |= {a: "*fp32:16" for a in kernel.arg_names if a.endswith("partial_ptr")}
    return compilation(name, kernel, dtype, plan | constants, types, matrix_units=matrix_units)


def linear_compilations(op: str, Cin: int, Cout: int, activation: str, residual: bool) -> list[Compilation]:
    """``linear``, as ``op`` uses it."""
    found = []
    left_out = ["adjacency_ptr", "modulation_ptr", "scale_ptr", "shift_ptr", "h_ptr"]
    left_out += [] if residual else ["residual_ptr"]
    for dtype, precision in PRECISIONS:
        plan = _blocks("fwd", dtype, precision, Cin, Cout, 17 * 400, 1)
        constants = dict.fromkeys(left_out) | {"K": 1, "ACTIVATION": activation, "PRECISION": precision}
        label = f"{op}/linear-{Cin}x{Cout}"
        found.append(_compilation(label, _graph_conv_fwd_kernel, dtype, plan, True, **constants))
    return found


def _compilations() -> list[Compilation]:
    """Every kernel at the sizes of HTNet's two layers, in every dtype and precision: what is compiled ahead of time."""
    K, options = 2, {"ACTIVATION": "gelu"}
    found = []

    def add(kernel, name: str, dtype: torch.dtype, plan: dict, **constants):
        found.append(_compilation(f"graph_conv/{name}", kernel, dtype, plan, name != "bwd_columns", **constants))

    for dtype, precision in PRECISIONS:
        for Cin, Cout in ((80, 384), (384, 80)):
            sizes, both = f"{Cin}x{Cout}", options | {"PRECISION": precision}

            def blocks(kernel):
                return _blocks(kernel, dtype, precision, Cin, Cout, 17 * 400, 17)  # noqa: B023

            add(_graph_conv_fwd_kernel, f"fwd-{sizes}", dtype, blocks("fwd"), K=K, **both)
        add(_graph_conv_bwd_x_kernel, "bwd_x", dtype, blocks("x"), K=K, **both)
        add(_graph_conv_bwd_weight_kernel, "bwd_weight", dtype, blocks("weight"), **both)
        for name in ("adjacency", "modulation"):
            other = "modulation" if name == "adjacency" else "adjacency"
            none = {f"{other}_partial_ptr": None}
            add(_graph_conv_bwd_graph_kernel, f"bwd_{name}", dtype, blocks("graph"), **none, **both)
        if precision != "tf32x3":
            plan = {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4}
            add(_graph_conv_bwd_columns_kernel, "bwd_columns", dtype, plan, **options)
    return found


AOT = _compilations()
