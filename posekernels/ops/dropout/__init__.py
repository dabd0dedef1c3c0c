"""``dropout``: a mask that is drawn by all threads, a function of (seed, element)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._dispatch import requested
from ..._dropout import Seed, check_rate, draw_seed, mask_seed
from ..._library import register
from ...checks import check_flag, check_tensor

_OP = "dropout"
_forward = register(
    __name__,
    _OP,
    "(Tensor x, float rate, Tensor seed, str backend) -> Tensor",
    lambda x, rate, seed, backend: torch.empty_like(x, memory_format=torch.contiguous_format),
)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rate, seed, backend):
        ctx.options = rate, seed, backend
        return _forward.run(x, rate, seed, backend=backend)

    @staticmethod
    def backward(ctx, grad):
        return _Dropout.apply(grad, *ctx.options), None, None, None  # linear, and its own adjoint


_forward.gradient = _Dropout.apply


def dropout(
    x: Tensor, rate: float, training: bool = True, *, seed: Seed | None = None, backend: str | None = None
) -> Tensor:
    """``x`` with a share ``rate`` of its elements 0 and the others scaled by 1 / (1 - rate).

    Args:
        x: any shape and floating dtype.
        rate: in [0, 1).
        training: False returns ``x``.
        seed: of the mask, a function of (seed, element) that is the same on every backend (``posekernels._dropout``);
            drawn from PyTorch's generator when None.
        backend: see ``posekernels.use_backend``. Without a seed, where there is no kernel or a graph is captured, it is
            ``torch.nn.functional.dropout``, as is ``auto`` on a GPU: that is one kernel already.
    Raises:
        ValueError, TypeError: a rate outside [0, 1), or an ``x`` that is no floating tensor.
    Gradient: with respect to ``x``: the same mask on the gradient, drawn again.
    """
    check_tensor(_OP, "x", x)
    check_rate(_OP, "rate", rate)
    if rate == 0 or not check_flag(_OP, "training", training):
        return x
    backend = requested(backend)
    if seed is None:
        pytorchs = torch.compiler.is_compiling() or (backend == "auto" and x.device.type == "cuda")
        if pytorchs or _forward.takes_reference(x, backend=backend):
            return F.dropout(x, rate)
        seed = draw_seed(x.device)
    return _forward(x, float(rate), mask_seed(_OP, seed, x), backend=backend)
