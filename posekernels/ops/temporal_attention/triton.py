"""Triton kernels of ``temporal_attention``. The math they follow, and what they move, is in README.md beside this file.

A program owns a block of queries (or, for the gradients of keys and values, of keys) of one head and walks over the
other side. Scores never leave the chip; sums are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..._dropout import gpu_arguments
from ..._triton import Compilation, compilation, dot_precision, keep_elements, launch_on, power_of_2

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(ptr, row_stride, row, rows, dim, D):
    """[len(row), len(dim)] of one head; 0 outside."""
    mask = (row < rows)[:, None] & (dim < D)[None, :]
    return tl.load((ptr + row.to(tl.int64) * row_stride)[:, None] + dim[None, :], mask=mask, other=0.0)


@triton.jit
def _scores(q, k, query, key, padding_ptr, T, S, scale, CAUSAL: tl.constexpr, PRECISION: tl.constexpr):
    """[queries, keys] float32: q kᵀ with the scale's sign, not its size; -inf where a key is not seen."""
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * tl.where(scale < 0, -1.0, 1.0)
    seen = (key < S)[None, :] & (query < T)[:, None]
    if CAUSAL:
        seen = seen & (key[None, :] <= query[:, None] + (S - T))
    if padding_ptr is not None:
        padding = tl.load(padding_ptr + key, mask=key < S, other=1)
        seen = seen & (padding == 0)[None, :]
    return tl.where(seen, s, float("-inf"))


@triton.jit
def _exponentials(s, largest, scale):
    """exp(|scale| (s - largest)): subtracted before it is scaled, so that no rounding of a large product is left."""
    return tl.exp2((s - largest) * tl.maximum(tl.abs(scale) * LOG2_E, 2e-38))  # 0 times -inf would be NaN


@triton.jit
def _keep(head, query, key, T, S, seed_ptr, threshold):
    """[queries, keys] bool: which weights dropout keeps; ``head`` is b * H + h, int64."""
    element = (head * T + query.to(tl.int64)) * S
    return keep_elements(element[:, None] + key[None, :], seed_ptr, 0, threshold)


@triton.jit
def _block_of(size, BLOCK: tl.constexpr):
    """(block of a head, head as int64) of this program. One axis holds both: a grid's others end at 65,535."""
    program, blocks = tl.program_id(0), tl.cdiv(size, BLOCK)
    return program % blocks, (program // blocks).to(tl.int64)


@triton.jit
def _attention_fwd_kernel(
    q_ptr,  # [B, T, H, D], strides below
    k_ptr,  # [B, S, H, D]
    v_ptr,  # [B, S, H, D]
    padding_ptr,  # [B, S] uint8 or None
    out_ptr,  # [B, T, H, D] contiguous
    peaks_ptr,  # [B, H, T, 2] float32: the largest score, see `_scores`, and the sum of exponentials beneath it
    T, S, H, D,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    scale,
    seed_ptr,
    threshold,
    factor,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grid (blocks of queries * B * H,): the blocks of one head run next to each other
    block, head = _block_of(T, BLOCK_T)
    b, h = head // H, head % H
    query = block * BLOCK_T + tl.arange(0, BLOCK_T)
    dim = tl.arange(0, BLOCK_D)
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    if padding_ptr is not None:
        padding_ptr += b * S
    q = _tile(q_ptr + b * q_b + h * q_h, q_t, query, T, dim, D)
    out = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    top = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    last = S
    if CAUSAL:  # no query of this block sees further
        last = tl.minimum(S, (block + 1) * BLOCK_T + S - T)
    for start in range(0, last, BLOCK_S):
        key = start + tl.arange(0, BLOCK_S)
        s = _scores(q, _tile(k_ptr, k_t, key, S, dim, D), query, key, padding_ptr, T, S, scale, CAUSAL, PRECISION)
        new_top = tl.maximum(top, tl.max(s, 1))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        p = _exponentials(s, base[:, None], scale)
        rescale = _exponentials(top, base, scale)
        total = total * rescale + tl.sum(p, 1)
        if DROPOUT:
            p = tl.where(_keep(head, query, key, T, S, seed_ptr, threshold), p * factor, 0.0)
        v = _tile(v_ptr, v_t, key, S, dim, D)
        out = tl.dot(p.to(v.dtype), v, out * rescale[:, None], input_precision=PRECISION)
        top = new_top
    nothing = total == 0.0
    out = out / tl.where(nothing, 1.0, total)[:, None]
    peaks_ptr += (head * T + query) * 2
    tl.store(peaks_ptr, tl.where(nothing, 0.0, top), mask=query < T)
    tl.store(peaks_ptr + 1, total, mask=query < T)
    mask = (query < T)[:, None] & (dim < D)[None, :]
    tl.store(out_ptr + (((b * T + query) * H + h) * D)[:, None] + dim[None, :], out, mask=mask)


@triton.jit
def _peaks(peaks_ptr, head, query, T):
    """(largest score, 1 / sum of exponentials) of each query; the latter 0 for one that sees no key."""
    peaks_ptr += (head * T + query) * 2
    largest = tl.load(peaks_ptr, mask=query < T, other=0.0)
    total = tl.load(peaks_ptr + 1, mask=query < T, other=0.0)
    return largest, tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))


@triton.jit
def _weights(s, largest, share, scale):
    """Softmax weights from scores and what ``_peaks`` has of their queries; 0 where a query sees no key."""
    return _exponentials(s, largest[:, None], scale) * share[:, None]


@triton.jit
def _attention_bwd_q_kernel(
    grad_ptr, out_ptr, peaks_ptr,  # [B, T, H, D] contiguous twice, [B, H, T, 2]
    q_ptr, k_ptr, v_ptr, padding_ptr,
    grad_q_ptr,  # [B, T, H, D] contiguous
    T, S, H, D,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    scale,
    seed_ptr,
    threshold,
    factor,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grid (blocks of queries * B * H,): grad_q = ds k, ds = scale * w * (dw - sum_s w dw)
    block, head = _block_of(T, BLOCK_T)
    b, h = head // H, head % H
    query = block * BLOCK_T + tl.arange(0, BLOCK_T)
    dim = tl.arange(0, BLOCK_D)
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    if padding_ptr is not None:
        padding_ptr += b * S
    own = (b * T * H + h) * D
    q = _tile(q_ptr + b * q_b + h * q_h, q_t, query, T, dim, D)
    grad = _tile(grad_ptr + own, H * D, query, T, dim, D)
    out = _tile(out_ptr + own, H * D, query, T, dim, D)
    along = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    largest, share = _peaks(peaks_ptr, head, query, T)
    grad_q = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for start in range(0, S, BLOCK_S):
        key = start + tl.arange(0, BLOCK_S)
        k = _tile(k_ptr, k_t, key, S, dim, D)
        v = _tile(v_ptr, v_t, key, S, dim, D)
        s = _scores(q, k, query, key, padding_ptr, T, S, scale, CAUSAL, PRECISION)
        w = _weights(s, largest, share, scale)
        dw = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            dw = tl.where(_keep(head, query, key, T, S, seed_ptr, threshold), dw * factor, 0.0)
        ds = w * (dw - along[:, None]) * scale
        grad_q = tl.dot(ds.to(k.dtype), k, grad_q, input_precision=PRECISION)
    mask = (query < T)[:, None] & (dim < D)[None, :]
    tl.store((grad_q_ptr + own + query.to(tl.int64) * H * D)[:, None] + dim[None, :], grad_q, mask=mask)


@triton.jit
def _attention_bwd_kv_kernel(
    grad_ptr, out_ptr, peaks_ptr,
    q_ptr, k_ptr, v_ptr, padding_ptr,
    grad_k_ptr, grad_v_ptr,  # [B, S, H, D] contiguous
    T, S, H, D,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    scale,
    seed_ptr,
    threshold,
    factor,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grid (blocks of keys * B * H,): grad_k = dsᵀ q, grad_v = dropped wᵀ grad
    block, head = _block_of(S, BLOCK_S)
    b, h = head // H, head % H
    key = block * BLOCK_S + tl.arange(0, BLOCK_S)
    dim = tl.arange(0, BLOCK_D)
    q_ptr += b * q_b + h * q_h
    if padding_ptr is not None:
        padding_ptr += b * S
    queries = (b * T * H + h) * D
    k = _tile(k_ptr + b * k_b + h * k_h, k_t, key, S, dim, D)
    v = _tile(v_ptr + b * v_b + h * v_h, v_t, key, S, dim, D)
    grad_k = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    grad_v = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    for start in range(0, T, BLOCK_T):
        query = start + tl.arange(0, BLOCK_T)
        q = _tile(q_ptr, q_t, query, T, dim, D)
        grad = _tile(grad_ptr + queries, H * D, query, T, dim, D)
        out = _tile(out_ptr + queries, H * D, query, T, dim, D)
        along = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
        largest, share = _peaks(peaks_ptr, head, query, T)
        s = _scores(q, k, query, key, padding_ptr, T, S, scale, CAUSAL, PRECISION)
        w = _weights(s, largest, share, scale)
        dw = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        dropped = w
        if DROPOUT:
            keep = _keep(head, query, key, T, S, seed_ptr, threshold)
            dw = tl.where(keep, dw * factor, 0.0)
            dropped = tl.where(keep, w * factor, 0.0)
        ds = w * (dw - along[:, None]) * scale
        grad_k = tl.dot(tl.trans(ds.to(q.dtype)), q, grad_k, input_precision=PRECISION)
        grad_v = tl.dot(tl.trans(dropped.to(grad.dtype)), grad, grad_v, input_precision=PRECISION)
    mask = (key < S)[:, None] & (dim < D)[None, :]
    at = ((b * S + key.to(tl.int64)) * H + h) * D
    tl.store((grad_k_ptr + at)[:, None] + dim[None, :], grad_k, mask=mask)
    tl.store((grad_v_ptr + at)[:, None] + dim[None, :], grad_v, mask=mask)


def _plan(dtype: torch.dtype, precision: str, D: int, backward: bool, dropout: bool) -> dict:
    """Block sizes. What would not fit the registers takes smaller blocks: wide heads, float32 with dropout."""
    BLOCK_D = power_of_2(D, 16, 128)
    narrow = backward or BLOCK_D > 64 or precision == "tf32x3" or (dropout and dtype == torch.float32)
    return {
        "BLOCK_T": 32 if narrow else 64,
        "BLOCK_S": 32 if narrow else 64,
        "BLOCK_D": BLOCK_D,
        "num_warps": 8 if backward and dropout and BLOCK_D > 32 and dtype != torch.float32 else 4,
        "num_stages": 1 if backward or dtype == torch.float32 else 2,
    }


def _arguments(q, k, v, padding, scale, causal, rate, seed):
    """(q, k, v, padding) as the kernels read them, the numbers that follow the pointers, and the options."""
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    padding = None if padding is None else padding.contiguous().view(torch.uint8)
    strides = [s for t in (q, k, v) for s in t.stride()[:3]]
    numbers = (q.shape[1], k.shape[1], *q.shape[2:], *strides, scale, *gpu_arguments(rate, seed, q.device))
    return (q, k, v, padding), numbers, {"CAUSAL": causal, "DROPOUT": rate > 0, "PRECISION": dot_precision(q.dtype)}


def temporal_attention(q, k, v, padding, scale, causal, rate, seed):
    """As ``reference.temporal_attention``."""
    held, numbers, options = _arguments(q, k, v, padding, scale, causal, rate, seed)
    B, T, H, D = q.shape
    out, peaks = q.new_empty(q.shape), q.new_empty(B, H, T, 2, dtype=torch.float32)
    if out.numel():
        plan = _plan(q.dtype, options["PRECISION"], D, False, rate > 0)
        with launch_on(q):
            _attention_fwd_kernel[(triton.cdiv(T, plan["BLOCK_T"]) * B * H,)](
                *held, out, peaks, *numbers, **options, **plan
            )
    return out, peaks


def temporal_attention_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed):
    """As ``reference.temporal_attention_backward``."""
    held, numbers, options = _arguments(q, k, v, padding, scale, causal, rate, seed)
    B, T, H, D = q.shape
    saved = [t.contiguous() for t in (grad, out, peaks)]
    grads = [q.new_empty(t.shape) for t in (q, k, v)]
    if out.numel():
        plan = _plan(q.dtype, options["PRECISION"], D, True, rate > 0)
        with launch_on(q):
            _attention_bwd_q_kernel[(triton.cdiv(T, plan["BLOCK_T"]) * B * H,)](
                *saved, *held, grads[0], *numbers, **options, **plan
            )
            _attention_bwd_kv_kernel[(triton.cdiv(k.shape[1], plan["BLOCK_S"]) * B * H,)](
                *saved, *held, *grads[1:], *numbers, **options, **plan
            )
    return grads


# Bytes a thread on sm_80, where a mask is drawn beside the widest tiles: two to six registers.
_SPILLS = {("fwd", torch.bfloat16, 64, True): 24, ("bwd_q", torch.float32, 64, True): 8}


def _compilations() -> list[Compilation]:
    """Every kernel at the heads of the Strided Transformer (32) and of MixSTE (64), with and without dropout."""
    found = []
    types = {"peaks_ptr": "*fp32:16", "scale": "fp32"}
    for dtype, precision in ((torch.bfloat16, "ieee"), (torch.float32, "tf32")):
        for D in (32, 64):
            for dropout in (False, True):
                for name, kernel in (
                    ("fwd", _attention_fwd_kernel),
                    ("bwd_q", _attention_bwd_q_kernel),
                    ("bwd_kv", _attention_bwd_kv_kernel),
                ):
                    plan = _plan(dtype, precision, D, name != "fwd", dropout)
                    plan |= {"CAUSAL": False, "DROPOUT": dropout, "PRECISION": precision, "padding_ptr": None}
                    strides = {a: "i32:16" for a in kernel.arg_names if a == "D" or a[1:2] == "_" and a[-3:] != "ptr"}
                    label = f"temporal_attention/{name}-{D}{'-dropout' if dropout else ''}"
                    accepted = _SPILLS.get((name, dtype, D, dropout), 0)
                    found.append(compilation(label, kernel, dtype, plan, strides | types, spills_accepted=accepted))
    return found


AOT = _compilations()
