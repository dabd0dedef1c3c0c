"""Triton kernels of ``joint_attention``. The math they follow, and what they move, is in README.md beside this file.

A program takes PAIRS (sample, head) pairs as a batch of products of 16 or 32 tokens: pairs never meet
in a product, so a NaN stays in its own. Scores live in registers; channels come in blocks of BLOCK_D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import PRECISIONS, Compilation, compilation, dot_precision, launch_on, power_of_2

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(ptr, pair, H, stride_b, stride_n, stride_h, BLOCK_N: tl.constexpr):
    """[PAIRS, BLOCK_N, 1] addresses: where the channels of each token of each pair begin."""
    start = pair // H * stride_b + pair % H * stride_h  # int64, as pair is
    token = tl.arange(0, BLOCK_N)
    return (ptr + start)[:, None, None] + (token * stride_n)[None, :, None]


@triton.jit
def _tile(rows, there, dim, D):
    """[PAIRS, BLOCK_N, BLOCK_D]; 0 outside."""
    return tl.load(rows + dim[None, None, :], mask=there & (dim < D)[None, None, :], other=0.0)


@triton.jit
def _across(tile):
    """Tokens and channels exchanged."""
    return tl.permute(tile, (0, 2, 1))


@triton.jit
def _seen(mask_ptr, pair, pairs, N, H, mask_b, mask_n, mask_m, PAIRS: tl.constexpr, BLOCK_N: tl.constexpr):
    """[PAIRS, BLOCK_N, BLOCK_N] bool: whether the query (axis 1) may attend to the key (axis 2)."""
    token = tl.arange(0, BLOCK_N)
    seen = (token < N)[None, :, None] & (token < N)[None, None, :] & (pair < pairs)[:, None, None]
    if mask_ptr is not None:
        start = (mask_ptr + pair // H * mask_b)[:, None, None]
        allowed = tl.load(start + (token * mask_n)[None, :, None] + (token * mask_m)[None, None, :], mask=seen, other=0)
        seen = seen & (allowed != 0)
    return seen


@triton.jit
def _weights(scores, seen):
    """(exp(score - largest), their sum, 1 for a query that sees nothing); scores in units of log 2."""
    scores = tl.where(seen, scores, -3.0e38)
    weights = tl.where(seen, tl.exp2(scores - tl.max(scores, 2, keep_dims=True)), 0.0)
    total = tl.sum(weights, 2, keep_dims=True)
    return weights, tl.where(total == 0.0, 1.0, total)


@triton.jit
def _joint_attention_fwd_kernel(
    q_ptr,  # [B, N, H, D], strides below, 1 along D
    k_ptr,
    v_ptr,
    mask_ptr,  # [B, N, N] uint8 or None
    out_ptr,  # [B, N, H, D] contiguous
    pairs,  # B H
    N, H, D,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, mask_b, mask_n, mask_m,
    scale,
    PRECISION: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grid (blocks of pairs,)
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = (pair < pairs)[:, None, None] & (tl.arange(0, BLOCK_N) < N)[None, :, None]
    q_rows = _rows(q_ptr, pair, H, q_b, q_n, q_h, BLOCK_N)
    k_rows = _rows(k_ptr, pair, H, k_b, k_n, k_h, BLOCK_N)
    v_rows = _rows(v_ptr, pair, H, v_b, v_n, v_h, BLOCK_N)
    out_rows = _rows(out_ptr, pair, H, N * H * D, H * D, D, BLOCK_N)
    scores = tl.zeros((PAIRS, BLOCK_N, BLOCK_N), tl.float32)
    for start in range(0, D, BLOCK_D):
        dim = start + tl.arange(0, BLOCK_D)
        q, k = _tile(q_rows, there, dim, D), _tile(k_rows, there, dim, D)
        scores = tl.dot(q, _across(k), scores, input_precision=PRECISION)
    seen = _seen(mask_ptr, pair, pairs, N, H, mask_b, mask_n, mask_m, PAIRS, BLOCK_N)
    weights, total = _weights(scores * (scale * LOG2_E), seen)
    for start in range(0, D, BLOCK_D):
        dim = start + tl.arange(0, BLOCK_D)
        v = _tile(v_rows, there, dim, D)
        out = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION) / total
        tl.store(out_rows + dim[None, None, :], out, mask=there & (dim < D)[None, None, :])


@triton.jit
def _joint_attention_bwd_kernel(
    grad_ptr,  # [B, N, H, D] contiguous
    q_ptr,  # [B, N, H, D], strides below, 1 along D
    k_ptr,
    v_ptr,
    mask_ptr,  # [B, N, N] uint8 or None
    grad_q_ptr,  # [B, N, H, D] contiguous
    grad_k_ptr,
    grad_v_ptr,
    pairs,  # B H
    N, H, D,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, mask_b, mask_n, mask_m,
    scale,
    PRECISION: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grid (blocks of pairs,). q, k and grad are read twice, the second time from the cache.
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = (pair < pairs)[:, None, None] & (tl.arange(0, BLOCK_N) < N)[None, :, None]
    q_rows = _rows(q_ptr, pair, H, q_b, q_n, q_h, BLOCK_N)
    k_rows = _rows(k_ptr, pair, H, k_b, k_n, k_h, BLOCK_N)
    v_rows = _rows(v_ptr, pair, H, v_b, v_n, v_h, BLOCK_N)
    grad_rows = _rows(grad_ptr, pair, H, N * H * D, H * D, D, BLOCK_N)
    scores = tl.zeros((PAIRS, BLOCK_N, BLOCK_N), tl.float32)
    slope = tl.zeros((PAIRS, BLOCK_N, BLOCK_N), tl.float32)  # dw, then ds
    for start in range(0, D, BLOCK_D):
        dim = start + tl.arange(0, BLOCK_D)
        q, k = _tile(q_rows, there, dim, D), _tile(k_rows, there, dim, D)
        scores = tl.dot(q, _across(k), scores, input_precision=PRECISION)
        grad, v = _tile(grad_rows, there, dim, D), _tile(v_rows, there, dim, D)
        slope = tl.dot(grad, _across(v), slope, input_precision=PRECISION)
    seen = _seen(mask_ptr, pair, pairs, N, H, mask_b, mask_n, mask_m, PAIRS, BLOCK_N)
    weights, total = _weights(scores * (scale * LOG2_E), seen)
    # A NaN where a query may not look is none of its own, and its own goes nowhere else.
    weights, slope = tl.where(seen, weights / total, 0.0), tl.where(seen, slope, 0.0)
    slope = tl.where(seen, weights * (slope - tl.sum(weights * slope, 2, keep_dims=True)) * scale, 0.0)
    dtype = q_ptr.dtype.element_ty
    weights, slope = weights.to(dtype), slope.to(dtype)
    for start in range(0, D, BLOCK_D):
        dim = start + tl.arange(0, BLOCK_D)
        mask = there & (dim < D)[None, None, :]
        grad_v = tl.dot(_across(weights), _tile(grad_rows, there, dim, D), input_precision=PRECISION)
        tl.store(_rows(grad_v_ptr, pair, H, N * H * D, H * D, D, BLOCK_N) + dim[None, None, :], grad_v, mask=mask)
        grad_q = tl.dot(slope, _tile(k_rows, there, dim, D), input_precision=PRECISION)
        tl.store(_rows(grad_q_ptr, pair, H, N * H * D, H * D, D, BLOCK_N) + dim[None, None, :], grad_q, mask=mask)
        grad_k = tl.dot(_across(slope), _tile(q_rows, there, dim, D), input_precision=PRECISION)
        tl.store(_rows(grad_k_ptr, pair, H, N * H * D, H * D, D, BLOCK_N) + dim[None, None, :], grad_k, mask=mask)


def _plan(kernel: str, precision: str, dtype: torch.dtype, N: int, D: int) -> dict[str, int]:
    """Tile sizes and warps of ``kernel`` ("fwd", "bwd"): what compiles for sm_80 and sm_90 without spills."""
    three = precision == "tf32x3"  # every operand twice in registers
    high = 16 if kernel == "bwd" or three else 32 if dtype == torch.float32 else 64
    return {
        "PAIRS": 1 if three or (kernel == "bwd" and dtype == torch.float32) else 2,
        "BLOCK_N": power_of_2(N, 16, 32),
        "BLOCK_D": power_of_2(D, 16, high),
        "num_warps": 4,
    }


def _launch(kernel, name: str, first: tuple, q, k, v, mask, outs: tuple, scale: float) -> None:
    """Launch ``kernel`` on every pair; ``first`` come before q, k, v and ``outs`` after the mask."""
    B, N, H, D = q.shape
    if not q.numel():
        return
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    strides = [s for t in (q, k, v) for s in t.stride()[:3]] + ([0, 0, 0] if mask is None else list(mask.stride()))
    precision = dot_precision(q.dtype)
    plan = _plan(name, precision, q.dtype, N, D)
    bits = None if mask is None else mask.view(torch.uint8)
    with launch_on(q):
        kernel[(triton.cdiv(B * H, plan["PAIRS"]),)](
            *first, q, k, v, bits, *outs, B * H, N, H, D, *strides, scale, PRECISION=precision, **plan
        )


def joint_attention(q, k, v, mask, scale) -> Tensor:
    """As ``reference.joint_attention``."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _launch(_joint_attention_fwd_kernel, "fwd", (), q, k, v, mask, (out,), scale)
    return out


def joint_attention_backward(grad, q, k, v, mask, scale) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.joint_attention_backward``."""
    grads = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    _launch(_joint_attention_bwd_kernel, "bwd", (grad.contiguous(),), q, k, v, mask, grads, scale)
    return grads


def _compilations() -> list[Compilation]:
    """Both kernels at DiffPose's head width, and masked with heads of 64, in every dtype and precision."""
    found = []
    for dtype, precision in PRECISIONS:
        for N, D in ((17, 24), (17, 64))[: 1 if dtype == torch.float16 else 2]:
            for name, kernel in (("fwd", _joint_attention_fwd_kernel), ("bwd", _joint_attention_bwd_kernel)):
                plan = _plan(name, precision, dtype, N, D) | {"PRECISION": precision}
                if D != 64:
                    plan["mask_ptr"] = None
                types = {"mask_ptr": "*u8", "scale": "fp32"}
                found.append(compilation(f"joint_attention/{name}-{N}x{D}", kernel, dtype, plan, types))
    return found


AOT = _compilations()
