"""``norm_activation``: what follows a linear layer in training, batch norm, leaky ReLU and dropout, in one op.

Start reading here; the definition is in ``reference.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..._arrays import follows_autocast
from ..._checks import check_shape, check_tensor
from ..._dispatch import Kernel, no_triton, not_for_triton, requested, takes_reference
from ..._dropout import check_rate, draw_seed
from ..._library import register
from ..._native import no_cpu
from .._cpu import not_float32
from . import reference

_OP = "norm_activation"
_SMALL = 1 << 12  # numbers below which, with gradients, PyTorch's own layers take as long


def _not_for_cpu(x, *_rest) -> str | None:
    return "takes at least one row and one channel" if x.numel() == 0 else not_float32(x)


def _kernel(function: str) -> Kernel:
    return Kernel(f"posekernels.ops.{_OP}.cpu:{function}", lambda: no_cpu(function), _not_for_cpu)


def _not_for_triton(*args) -> str | None:
    if args[0].numel() == 0:
        return "takes at least one row and one channel"
    return not_for_triton(*(t for t in args if isinstance(t, Tensor)))


def _triton(function: str) -> Kernel:
    return Kernel(f"posekernels.ops.{_OP}.triton:{function}", no_triton, _not_for_triton)


def _fake(x, weight, bias, eps, slope, rate, seed, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight), torch.empty_like(bias)


def _fake_backward(grad, x, weight, bias, mean, var, eps, slope, rate, seed, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, weight, bias))


_forward = register(
    _OP,
    "(Tensor x, Tensor weight, Tensor bias, float eps, float slope, float rate, int seed, str backend) "
    "-> (Tensor, Tensor, Tensor)",
    _fake,
    {"cpu": _kernel(_OP), "triton": _triton(_OP), "reference": Kernel(reference.norm_activation)},
)
_backward = register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps, float slope, float rate, "
    "int seed, str backend) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
    {
        "cpu": _kernel(f"{_OP}_backward"),
        "triton": _triton(f"{_OP}_backward"),
        "reference": Kernel(reference.norm_activation_backward),
    },
)


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *options):
        y, mean, var = _forward(x, weight, bias, *options)
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.options = options
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _mean, _var):
        grads = _backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad)), *(None,) * len(ctx.options)


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
    seed: int | None = None,
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
    options = float(eps), float(negative_slope), float(dropout)
    if seed is None:
        training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
        if takes_reference(_OP, backend, (x,)) or (backend == "auto" and training and x.numel() < _SMALL):
            return _layers(x, weight, bias, *options)
        seed = draw_seed() if dropout else 0
    return _NormActivation.apply(x, weight, bias, *options, seed, backend)
