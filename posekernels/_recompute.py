"""Gradients for fused ops: forward on a kernel that keeps nothing but its inputs, backward through the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, reference, *tensors):
        ctx.reference = reference
        ctx.save_for_backward(*tensors)
        return run(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        needs = ctx.needs_input_grad[2:]
        inputs = [None if t is None else t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needs)]
        with torch.enable_grad():
            results = ctx.reference(*inputs)
        results = (results,) if isinstance(results, Tensor) else results
        pairs = [(r, g) for r, g in zip(results, grads) if r.requires_grad]
        wanted = [t for t, need in zip(inputs, needs) if need]
        found = iter(torch.autograd.grad([r for r, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True))
        return None, None, *(next(found) if need else None for need in needs)


def recomputed(run: Callable, reference: Callable, tensors: Sequence[Tensor | None]):
    """``run(*tensors)``, differentiable: its gradient runs ``reference(*tensors)`` again.

    Args:
        run, reference: the same function of the same tensors; results are a tensor or a tuple of them.
        tensors: every tensor the result depends on; None stands for one that is left out.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Recomputed.apply(run, reference, *tensors)
    return run(*tensors)
