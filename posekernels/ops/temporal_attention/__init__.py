"""``temporal_attention``: attention over the frames of a clip. The definition is in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _cuda
from ..._dispatch import not_for_triton, requested
from ..._dropout import Seed, check_rate, mask_seed
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_flag, check_mask, check_number, check_shape, check_tensor
from .reference import in_plain_sight

MAX_WIDTH = 128  # of a head, on a GPU


def _fake(q, k, v, padding, scale, causal, rate, seed, backend):
    B, T, H, _ = q.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty(B, H, T, 2, dtype=dtype)


def _fake_backward(grad, out, peaks, q, k, v, padding, scale, causal, rate, seed, backend):
    return [t.new_empty(t.shape) for t in (q, k, v)]


def too_wide(width: int) -> str | None:
    """Why no kernel for GPUs takes heads of this width, or None."""
    return None if width <= MAX_WIDTH else f"takes heads up to {MAX_WIDTH} wide, got {width}"


def _not_for_triton(q, *rest) -> str | None:
    return too_wide(q.shape[-1]) or not_for_triton(q, *rest)


def _not_for_cuda(q, *rest) -> str | None:
    return too_wide(q.shape[-1]) or _cuda.refuses(q, *rest)


_GPU = {"triton": _not_for_triton, "cuda": _not_for_cuda}
_forward = register(
    __name__,
    "temporal_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? padding, float scale, bool causal, float rate, Tensor seed, str backend) "
    "-> (Tensor, Tensor)",
    _fake,
    refuses=_GPU,
)
_backward = register(
    __name__,
    "temporal_attention_backward",
    "(Tensor grad, Tensor out, Tensor peaks, Tensor q, Tensor k, Tensor v, Tensor? padding, float scale, "
    "bool causal, float rate, Tensor seed, str backend) -> Tensor[]",
    _fake_backward,
    refuses=_GPU,
)


class _TemporalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, padding, scale, causal, rate, seed, backend):
        out, peaks = _forward.run(q, k, v, padding, scale, causal, rate, seed, backend=backend)
        ctx.save_for_backward(out, peaks, q, k, v, padding)
        ctx.options, ctx.backend = (scale, causal, rate, seed), backend
        return out

    @staticmethod
    def backward(ctx, grad):
        grads = _backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options, backend=ctx.backend)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad)), *(None,) * 6


_forward.reference = in_plain_sight
_forward.gradient = lambda *args: (_TemporalAttention.apply(*args), None)


@accepts_arrays
def temporal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    seed: Seed = 0,
    backend: str | None = None,
) -> Tensor:
    """Attention over frames: softmax(scale * q kᵀ) v, each head by itself.

    Equal to ``F.scaled_dot_product_attention`` on ``[B, H, T, D]`` tensors (here heads come after frames, as a
    linear layer leaves them).

    Args:
        q: [B, T, H, D], T >= 1, D >= 1 (the kernels for GPUs take D <= 128); float32, float64 or
            bfloat16, and float16 on a GPU. Any strides: slices of a joint q-k-v projection are read where they lie.
        k, v: [B, S, H, D], S >= 1.
        key_padding_mask: [B, S] bool, True where a key is padding and is not looked at.
        scale: of the products; default D ** -0.5.
        causal: query t sees keys up to ``t + S - T``: the last query sees every key.
        dropout: share of the softmax weights to drop. The mask is a function of ``seed`` (see
            ``posekernels._dropout``; elements are numbered along [B, H, T, S]), so that backward and a rerun agree.
        seed: of the mask, 64 bits; a number, or a tensor of one int64 on the same device.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, T, H, D], dtype of ``q``, contiguous; accumulates in float32 (float64 for float64). A query that sees no
        key gets zeros.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to q, k and v.
    """
    check_tensor("temporal_attention", "q", q, rank=4)
    B, T, H, D = q.shape
    check_tensor("temporal_attention", "k", k, like=q, rank=4)
    S = k.shape[1]
    check_shape("temporal_attention", "k", k, (B, S, H, D), f"q is {list(q.shape)}")
    check_tensor("temporal_attention", "v", v, like=q, rank=4)
    check_shape("temporal_attention", "v", v, (B, S, H, D), f"k is {list(k.shape)}")
    for name, what, size in (("q", "frame (axis 1)", T), ("k", "frame (axis 1)", S), ("q", "channel (axis 3)", D)):
        if size < 1:
            raise ValueError(f"temporal_attention: {name} must have at least one {what}, got {size}")
    if key_padding_mask is not None:
        check_mask("temporal_attention", "key_padding_mask", key_padding_mask, "True where a key is padding")
        check_shape("temporal_attention", "key_padding_mask", key_padding_mask, (B, S), f"k is {list(k.shape)}")
        if key_padding_mask.device != q.device:
            raise ValueError(
                f"temporal_attention: key_padding_mask must be on q's device {q.device}, got {key_padding_mask.device}"
            )
    check_rate("temporal_attention", "dropout", dropout)
    causal, seed = check_flag("temporal_attention", "causal", causal), mask_seed("temporal_attention", seed, q)
    scale = D**-0.5 if scale is None else check_number("temporal_attention", "scale", scale)
    return _forward(q, k, v, key_padding_mask, scale, causal, dropout, seed, backend=requested(backend))[0]
