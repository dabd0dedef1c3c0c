"""``joint_attention``: attention over the joints of one skeleton. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_mask, check_number, check_shape, check_tensor

MAX_TOKENS = 32
MAX_HEAD = 128


def _fake(q, k, v, mask, scale, backend):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def _fake_backward(grad, q, k, v, mask, scale, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


_forward = register(
    __name__,
    "joint_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, str backend) -> Tensor",
    _fake,
)
_backward = register(
    __name__,
    "joint_attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, str backend) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)


class _JointAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, mask, scale, backend):
        ctx.save_for_backward(q, k, v, mask)  # the weights are cheaper to compute again than to store
        ctx.scale, ctx.backend = scale, backend
        return _forward.run(q, k, v, mask, scale, backend=backend)

    @staticmethod
    def backward(ctx, grad):
        grads = _backward(grad.contiguous(), *ctx.saved_tensors, ctx.scale, backend=ctx.backend)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad)), None, None, None


_forward.gradient = _JointAttention.apply


@accepts_arrays
def joint_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention among the few tokens of each sample, head by head.

    ``softmax(q kᵀ * scale) v``

    Args:
        q, k, v: [..., N, H, D], N <= 32 tokens, H heads, D <= 128 channels each; float32 or float64, and float16 or
            bfloat16 where a kernel takes them. Any strides: ``qkv.unflatten(-1, (3, H, D)).unbind(-3)`` needs no copy.
        mask: bool, broadcastable to [..., N, N]: True where the query (axis -2) may attend to the key (axis -1). A
            query that may attend to nothing receives 0.
        scale: 1 / sqrt(D) unless given.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., N, H, D] contiguous, so that ``flatten(-2)`` joins the heads without a copy; dtype of ``q``.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to q, k and v.
    Source: Vaswani et al., NeurIPS 2017, eq. 1; equal to ``scaled_dot_product_attention`` with axes N and H swapped.
    """
    check_tensor("joint_attention", "q", q, min_rank=3)
    for name, tensor in {"k": k, "v": v}.items():
        check_tensor("joint_attention", name, tensor, like=q)
        check_shape("joint_attention", name, tensor, tuple(q.shape), "the shape of q")
    N, H, D = q.shape[-3:]
    if not 1 <= N <= MAX_TOKENS:
        raise ValueError(f"joint_attention: q must have 1 to {MAX_TOKENS} tokens (axis -3), got {N}: {list(q.shape)}")
    if H < 1 or not 1 <= D <= MAX_HEAD:
        raise ValueError(
            f"joint_attention: q must have at least one head of 1 to {MAX_HEAD} channels (axes -2, -1), "
            f"got {list(q.shape)}"
        )
    if mask is not None:
        check_mask("joint_attention", "mask", mask, "True where a query may attend")
        want = (*q.shape[:-3], N, N)
        try:
            mask = mask.expand(want).reshape(math.prod(q.shape[:-3]), N, N)
        except RuntimeError:
            raise ValueError(
                f"joint_attention: mask must be broadcastable to {list(want)} (q is {list(q.shape)}), "
                f"got {list(mask.shape)}"
            ) from None
        if mask.device != q.device:
            raise ValueError(f"joint_attention: mask must be on the device of q, {q.device}, got {mask.device}")
    scale = D**-0.5 if scale is None else check_number("joint_attention", "scale", scale)
    tensors = (t.reshape(-1, N, H, D) for t in (q, k, v))
    return _forward(*tensors, mask, scale, backend=requested(backend)).view(q.shape)
