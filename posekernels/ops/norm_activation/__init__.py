"""``norm_activation``: what follows a linear layer in training, batch norm, leaky ReLU and dropout, in one op.

Start reading here; the definition is in ``reference.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._dispatch import not_for_triton, requested
from ..._dropout import Seed, check_rate, draw_seed, mask_seed
from ..._library import register, wants_gradient
from ...arrays import follows_autocast
from ...checks import check_number, check_shape, check_tensor

_OP = "norm_activation"
_SMALL = 1 << 12  # numbers below which, with gradients, PyTorch's own layers take as long


def _not_for_triton(*args) -> str | None:
    if args[0].numel() == 0:
        return "takes at least one row and one channel"
    return not_for_triton(*args)


def _fake(x, weight, bias, eps, slope, rate, seed, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight), torch.empty_like(bias)


def _fake_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, weight, bias))


_forward = register(
    __name__,
    _OP,
    "(Tensor x, Tensor weight, Tensor bias, float eps, float slope, float rate, Tensor seed, str backend) "
    "-> (Tensor, Tensor, Tensor)",
    _fake,
    refuses={"triton": _not_for_triton},
)
_backward = register(
    __name__,
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps, float slope, float rate, "
    "Tensor seed, str backend) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
    refuses={"triton": _not_for_triton},
)


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *options):
        *options, backend = options
        y, mean, var = _forward.run(x, weight, bias, *options, backend=backend)
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.options, ctx.backend = options, backend
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx, grad, _mean, _var):
        grads = _backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options, backend=ctx.backend)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad)), *(None,) * (len(ctx.options) + 1)


_forward.gradient = _NormActivation.apply


def _layers(x, weight, bias, eps, slope, rate) -> tuple[Tensor, Tensor, Tensor]:
    """The same with PyTorch's own layers and its own dropout mask: for where no kernel of ours runs."""
    y, mean, rstd = torch.native_batch_norm(x.flatten(0, -2), weight, bias, None, None, True, 0.0, eps)
    y = F.dropout(F.leaky_relu(y.view_as(x), slope), rate)
    return y, mean.detach(), rstd.detach() ** -2 - eps


@follows_autocast
def norm_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    negative_slope: float = 0.0,
    dropout: float = 0.0,
    seed: Seed | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``dropout(lrelu(batch_norm(x)))`` with the batch's own statistics: what training does after a linear layer.

    Args:
        x: [..., C], at least two rows over all leading axes; float32 or float64.
        weight, bias: [C] of the norm. eps: added to the variance.
        negative_slope: of the leaky ReLU; 0 for a ReLU.
        dropout: share of elements dropped. seed: of its mask, a function of (seed, element) that is the same on every
            backend (``posekernels._dropout``); drawn from PyTorch's generator when None.
        backend: see ``posekernels.use_backend``. Without a seed PyTorch's own layers run, and draw
            the mask, where there is no kernel and, with gradients, below 4,096 numbers.
    Returns:
        y like ``x``, and mean and biased variance [C], from which running statistics are made.
    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument; fewer than two rows.
    Gradient: with respect to ``x``, ``weight`` and ``bias``.
    Equal to ``F.dropout(F.leaky_relu(F.batch_norm(x, None, None, weight, bias, True), negative_slope), dropout)``.
    """
    check_tensor(_OP, "x", x, min_rank=2)
    C = x.shape[-1]
    if C < 1:
        raise ValueError(f"{_OP}: x must have at least 1 channel, got {list(x.shape)}")
    if x.shape[:-1].numel() < 2:
        raise ValueError(f"{_OP}: x must have at least 2 rows to take statistics of, got {list(x.shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        check_tensor(_OP, name, value, like=x)
        check_shape(_OP, name, value, (C,), f"x is {list(x.shape)}")
    check_rate(_OP, "dropout", dropout)
    backend = requested(backend)
    eps, negative_slope = check_number(_OP, "eps", eps, 0), check_number(_OP, "negative_slope", negative_slope)
    options = eps, negative_slope, float(dropout)
    if seed is None:
        small = backend == "auto" and x.numel() < _SMALL and wants_gradient((x, weight, bias))
        if small or _forward.takes_reference(x, backend=backend):
            return _layers(x, weight, bias, *options)
        seed = draw_seed(x.device) if dropout else 0
    return _forward(x, weight, bias, *options, mask_seed(_OP, seed, x), backend=backend)
