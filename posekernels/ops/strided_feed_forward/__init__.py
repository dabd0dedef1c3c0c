"""``strided_feed_forward``: a feed-forward block that leaves every s-th frame. The definition: ``reference.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._dropout import Seed, check_rate, mask_seed
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import MOST_STRIDE, check_integer, check_not_empty, check_tensor, check_tensors
from . import reference

TAPS = (1, 3)


def frames_out(frames: int, stride: int) -> int:
    """Frames that a stride leaves: those at 0, s, 2s, ..."""
    return (frames - 1) // stride + 1 if frames else 0


def _fake(x, weight1, bias1, weight2, bias2, residual, stride, hidden_rate, rate, seed, keep, backend):
    B, T, _ = x.shape
    y = x.new_empty(B, frames_out(T, stride), weight2.shape[0])
    return y, x.new_empty(B, T, weight1.shape[0]) if keep else x.new_empty(0)


def _fake_backward(grad, hidden, x, weight1, weight2, stride, hidden_rate, rate, seed, needs, backend):
    shapes = (x.shape, weight1.shape, weight1.shape[:1], weight2.shape, weight2.shape[:1])
    return [x.new_empty(shape) for shape, need in zip(shapes, needs) if need]


_PARTS = ("", "_backward", "_weight1", "_weight2")
_NEEDS = {
    "cpu": (*(f"strided_feed_forward{part}" for part in _PARTS), "dropout"),
    "cuda": ("strided_feed_forward_cuda", "strided_feed_forward_hidden_grad_cuda", "dropout_cuda"),
}
_forward = register(
    __name__,
    "strided_feed_forward",
    "(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, Tensor? residual, int stride, "
    "float hidden_rate, float rate, Tensor seed, bool keep, str backend) -> (Tensor, Tensor)",
    _fake,
    needs=_NEEDS,
)
_backward = register(
    __name__,
    "strided_feed_forward_backward",
    "(Tensor grad, Tensor hidden, Tensor x, Tensor weight1, Tensor weight2, int stride, float hidden_rate, "
    "float rate, Tensor seed, bool[] needs, str backend) -> Tensor[]",
    _fake_backward,
    needs=_NEEDS,
)


class _StridedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, residual, *options):
        *options, _keep, backend = options
        y, hidden = _forward.run(x, weight1, bias1, weight2, bias2, residual, *options, True, backend=backend)
        ctx.save_for_backward(hidden, x, weight1, weight2, bias1)
        ctx.options, ctx.backend = options, backend
        return y

    @staticmethod
    def backward(ctx, grad):
        needs = list(ctx.needs_input_grad[:5])
        stride, hidden_rate, _, seed = ctx.options
        hidden, x, weight1, weight2, bias1 = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again, the hidden units are a function of these
            hidden = reference.hidden_units(x, weight1, bias1, hidden_rate, seed)
        args = (grad.contiguous(), hidden, x, weight1, weight2, *ctx.options, needs)
        grads = iter(_backward(*args, backend=ctx.backend) if any(needs) else ())
        grad_residual = None
        if ctx.needs_input_grad[5]:
            grad_residual = grad.new_zeros(*x.shape[:2], grad.shape[2])
            grad_residual[:, ::stride] = grad
        return *(next(grads) if need else None for need in needs), grad_residual, *(None,) * 6


_forward.gradient = lambda *args: (_StridedFeedForward.apply(*args), None)


@accepts_arrays
def strided_feed_forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    residual: Tensor | None = None,
    *,
    stride: int = 1,
    hidden_dropout: float = 0.0,
    dropout: float = 0.0,
    seed: Seed = 0,
    backend: str | None = None,
) -> Tensor:
    """Linear, ReLU, then a temporal convolution that leaves every ``stride``-th frame, and a subsampled residual.

    ``y[t] = bias2 + sum_k weight2[:, :, k] relu(weight1 x[s t + k - 1] + bias1) + residual[s t]``; terms outside the
    clip are zero (the *hidden* units are padded with zeros, not the input).

    Args:
        x: [B, T, C], T >= 1; float32 or float64, and float16 or bfloat16 on a GPU. Any strides.
        weight1, bias1: [N, C], [N].
        weight2, bias2: [Cout, N, taps], [Cout]; taps is 3 (padding 1), or 1 (no padding: a plain feed-forward block).
        residual: [B, T, Cout]; its every ``stride``-th frame from 0 is added.
        stride: at least 1. Frames that no tap reads cost nothing in inference.
        hidden_dropout, dropout: shares to drop of the hidden units and of the result before the residual is added.
            The masks are a function of ``seed`` (see ``posekernels._dropout``; streams 0 and 1), so that backward and
            a rerun agree.
        seed: of the masks, 64 bits; a number, or a tensor of one int64 on the same device.
        backend: see ``posekernels.use_backend``.
    Returns:
        [B, (T - 1) // stride + 1, Cout], dtype of ``x``; accumulates in float32 (float64 for float64).
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to every tensor.
    Source: Li et al., IEEE TMM 2022, section 3.3. The published residual is a max-pool of kernel 1, a subsample.
    """
    check_tensor("strided_feed_forward", "x", x, rank=3)
    B, T, C = x.shape
    check_tensor("strided_feed_forward", "weight1", weight1, like=x, rank=2)
    N = weight1.shape[0]
    check_tensor("strided_feed_forward", "weight2", weight2, like=x, rank=3)
    out, _, taps = weight2.shape
    if T < 1:
        raise ValueError(f"strided_feed_forward: x must have at least one frame (axis 1), got {list(x.shape)}")
    if taps not in TAPS:
        raise ValueError(f"strided_feed_forward: weight2 must have 1 or 3 taps (axis 2), got {list(weight2.shape)}")
    stride, seed = (
        check_integer("strided_feed_forward", "stride", stride, 1, MOST_STRIDE),
        mask_seed("strided_feed_forward", seed, x),
    )
    shapes = {
        "weight1": (weight1, (N, C)),
        "bias1": (bias1, (N,)),
        "weight2": (weight2, (out, N, taps)),
        "bias2": (bias2, (out,)),
        "residual": (residual, (B, T, out)),
    }
    for name in ("weight1", "weight2"):
        check_not_empty("strided_feed_forward", name, shapes[name][0])
    sizes = {"x": x, "weight1": weight1, "weight2": weight2}
    check_tensors("strided_feed_forward", x, shapes, sizes, optional=("residual",))
    check_rate("strided_feed_forward", "hidden_dropout", hidden_dropout)
    check_rate("strided_feed_forward", "dropout", dropout)
    tensors = (x, weight1, bias1, weight2, bias2, residual)
    return _forward(*tensors, stride, hidden_dropout, dropout, seed, False, backend=requested(backend))[0]
