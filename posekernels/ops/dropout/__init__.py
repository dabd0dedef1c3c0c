"""``dropout``: a mask that is drawn by all threads, a function of (seed, element)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._checks import check_tensor
from ..._dispatch import Kernel, requested, takes_reference
from ..._dropout import check_rate, draw_seed
from ..._library import register
from ..._native import no_cpu
from .._cpu import not_float32
from . import reference

_OP = "dropout"
_apply = register(
    _OP,
    "(Tensor x, float rate, int seed, str backend) -> Tensor",
    lambda x, rate, seed, backend: torch.empty_like(x, memory_format=torch.contiguous_format),
    {
        "cpu": Kernel(f"posekernels.ops.{_OP}.cpu:{_OP}", lambda: no_cpu(_OP), lambda x, *_rest: not_float32(x)),
        "reference": Kernel(reference.dropout),
    },
)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, *options):
        ctx.options = options
        return _apply(x, *options)

    @staticmethod
    def backward(ctx, grad):
        return _Dropout.apply(grad, *ctx.options), None, None, None


def dropout(
    x: Tensor, rate: float, training: bool = True, *, seed: int | None = None, backend: str | None = None
) -> Tensor:
    """``x`` with a share ``rate`` of its elements 0 and the others scaled by 1 / (1 - rate).

    Args:
        x: any shape and floating dtype.
        rate: in [0, 1).
        training: False returns ``x``.
        seed: of the mask, a function of (seed, element) that is the same on every backend (``posekernels._dropout``);
            drawn from PyTorch's generator when None.
        backend: see ``posekernels.use_backend``. Without a seed, where there is no kernel or a graph is captured, it is
            ``torch.nn.functional.dropout``: on a GPU that is one kernel already.
    Raises:
        ValueError, TypeError: a rate outside [0, 1), or an ``x`` that is no floating tensor.
    Gradient: with respect to ``x``: the same mask on the gradient, drawn again.
    """
    check_tensor(_OP, "x", x)
    check_rate(_OP, "rate", rate)
    if rate == 0 or not training:
        return x
    backend = requested(backend)
    if seed is None:
        if torch.compiler.is_compiling() or takes_reference(_OP, backend, (x,)):
            return F.dropout(x, rate)
        seed = draw_seed()
    return _Dropout.apply(x, float(rate), seed, backend)
