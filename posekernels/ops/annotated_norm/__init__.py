"""``annotated_norm``: layer norm with unbiased std, eps outside the root. The definition is in ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._dropout import Seed, check_rate, mask_seed
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_number, check_tensor, check_tensors


def _fake(x, residual, scale, shift, eps, rate, seed, backend):
    y = x.new_empty(x.shape)
    return y, x.new_empty(0) if residual is None else torch.empty_like(y)


def _fake_backward(grad, grad_total, total, scale, eps, rate, seed, needs, backend):
    shapes = (total.shape, total.shape, scale.shape, scale.shape)
    return [total.new_empty(shape) for shape, need in zip(shapes, needs) if need]


_forward = register(
    __name__,
    "annotated_norm",
    "(Tensor x, Tensor? residual, Tensor scale, Tensor shift, float eps, float rate, Tensor seed, str backend) "
    "-> (Tensor, Tensor)",
    _fake,
)
_backward = register(
    __name__,
    "annotated_norm_backward",
    "(Tensor grad, Tensor? grad_total, Tensor total, Tensor scale, float eps, float rate, Tensor seed, bool[] needs, "
    "str backend) -> Tensor[]",
    _fake_backward,
)


class _AnnotatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, scale, shift, eps, rate, seed, backend):
        y, total = _forward.run(x, residual, scale, shift, eps, rate, seed, backend=backend)
        ctx.save_for_backward(x if residual is None else total, scale)
        ctx.has_residual = residual is not None
        ctx.eps, ctx.rate, ctx.seed, ctx.backend = eps, rate, seed, backend
        return y, total

    @staticmethod
    def backward(ctx, grad, grad_total):
        total, scale = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:4])
        if not ctx.has_residual:
            grad_total = None  # there is no second output
        args = (grad.contiguous(), grad_total, total, scale, ctx.eps, ctx.rate, ctx.seed, needs)
        grads = iter(_backward(*args, backend=ctx.backend) if any(needs) else ())
        return *(next(grads) if need else None for need in needs), *(None,) * 4


_forward.gradient = _AnnotatedNorm.apply


@accepts_arrays
def annotated_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-6,
    dropout: float = 0.0,
    seed: Seed = 0,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer norm over the last axis with the unbiased standard deviation and ``eps`` outside the root.

    ``y = scale * (s - s.mean(-1)) / (s.std(-1) + eps) + shift`` with ``s = dropout(x) + residual``.

    Not interchangeable with ``layer_norm``: for wide rows it is smaller by sqrt((C - 1) / C).

    Args:
        x: [..., C], C >= 2; float32 or float64, and float16 or bfloat16 on a GPU. Any leading axes, any strides.
        scale, shift: [C].
        residual: the shape of ``x``; added before the norm.
        eps: added to the standard deviation.
        dropout: share of ``x`` to drop before the residual is added; needs a residual. The mask is a function of
            ``seed`` (see ``posekernels._dropout``), so that backward and a rerun agree.
        seed: of the mask, 64 bits; a number, or a tensor of one int64 on the same device.
        backend: see ``posekernels.use_backend``.
    Returns:
        y, the shape and dtype of ``x``; with a residual the pair (y, s), s being the next residual.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor. On a constant row (std 0) the gradient of the std is taken as 0.
    Source: "The Annotated Transformer" (Rush, 2018), as the Strided Transformer uses it.
    """
    check_tensor("annotated_norm", "x", x, min_rank=1)
    channels = x.shape[-1]
    if channels < 2:
        raise ValueError(f"annotated_norm: x must have at least 2 channels for an unbiased std, got {list(x.shape)}")
    shapes = {"scale": (scale, (channels,)), "shift": (shift, (channels,)), "residual": (residual, tuple(x.shape))}
    check_tensors("annotated_norm", x, shapes, {"x": x}, optional=("residual",))
    check_rate("annotated_norm", "dropout", dropout)
    eps, seed = check_number("annotated_norm", "eps", eps, 0), mask_seed("annotated_norm", seed, x)
    if dropout and residual is None:
        raise ValueError("annotated_norm: dropout is of the branch that joins a residual; pass residual or dropout=0")
    flat = x.reshape(-1, channels)
    added = None if residual is None else residual.reshape(-1, channels)
    y, total = _forward(flat, added, scale, shift, eps, dropout, seed, backend=requested(backend))
    return y.view(x.shape) if residual is None else (y.view(x.shape), total.view(x.shape))
