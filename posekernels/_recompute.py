"""Gradients by running the reference again: of fused ops, whose kernels keep only their inputs, and of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _again(function: Callable, tensors: Sequence[Tensor | None], grads: Sequence[Tensor | None], needs) -> list:
    """Gradients of ``function(*tensors)``, one per tensor, None where none is needed or the result does not depend.

    Where gradients are recorded (``create_graph``) they are functions of ``tensors`` and ``grads``, to be
    differentiated again.
    """
    given = [t for t in (*tensors, *grads) if t is not None]
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in given)

    def own(tensor: Tensor, need: bool) -> Tensor:
        """To be differentiated by itself, even where one tensor was given in two places."""
        if recorded and tensor.requires_grad:
            return tensor.view_as(tensor)
        return tensor.detach().requires_grad_(need)

    inputs = [None if t is None else own(t, need) for t, need in zip(tensors, needs)]
    with torch.enable_grad():
        results = function(*inputs)
    results = (results,) if isinstance(results, Tensor) else results
    pairs = [(r, g) for r, g in zip(results, grads) if g is not None and r.requires_grad]
    wanted = [t for t, need in zip(inputs, needs) if need]
    outputs, incoming = [r for r, _ in pairs], [g for _, g in pairs]
    found = iter(torch.autograd.grad(outputs, wanted, incoming, allow_unused=True, create_graph=recorded))
    return [next(found) if need else None for need in needs]


def _traced_again(function: Callable, tensors: Sequence[Tensor | None], grads: Sequence[Tensor], needs) -> list:
    """``_again`` in the form that torch.compile can trace; slower where it is not compiled."""

    def of_wanted(*wanted):
        wanted = iter(wanted)
        results = function(*(next(wanted) if need else t for t, need in zip(tensors, needs)))
        return (results,) if isinstance(results, Tensor) else tuple(results)

    _, pull_back = torch.func.vjp(of_wanted, *(t for t, need in zip(tensors, needs) if need))
    found = iter(pull_back(tuple(grads)))
    return [next(found) if need else None for need in needs]


def gradients(
    function: Callable, tensors: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool] | None = None
) -> list[Tensor]:
    """Gradients of ``function(*tensors)`` for the reference kernel of a raw op, contiguous; those that are needed.

    Args:
        function: plain PyTorch; returns a tensor or several.
        tensors: its inputs, None for one that is left out.
        grads: the gradient of each result, or None.
        needs: which inputs' gradients to return, in order; all by default.
    """
    needs = [True] * len(tensors) if needs is None else needs
    # Below a dispatch mode (a FLOP counter, opcheck) raw ops are called with autograd shut out: let it in again.
    keys, shut_out = torch._C.DispatchKey, torch._C._SetExcludeDispatchKeyGuard
    with shut_out(keys.AutogradFunctionality, False), shut_out(keys.ADInplaceOrView, False):
        found = _again(function, tensors, grads, needs)
    kept = [(g, t) for g, t, need in zip(found, tensors, needs) if need]
    return [(torch.zeros_like(t) if g is None else g).contiguous() for g, t in kept]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, reference, *tensors):
        ctx.reference = reference
        ctx.save_for_backward(*tensors)
        return run(*tensors)

    @staticmethod
    def backward(ctx, *grads):
        again = _traced_again if torch.compiler.is_compiling() else _again
        return None, None, *again(ctx.reference, ctx.saved_tensors, grads, ctx.needs_input_grad[2:])


def recomputed(run: Callable, reference: Callable, tensors: Sequence[Tensor | None]):
    """``run(*tensors)``, differentiable: its gradient runs ``reference(*tensors)`` again.

    Args:
        run, reference: the same function of the same tensors; results are a tensor or a tuple of them.
        tensors: every tensor the result depends on; None stands for one that is left out.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Recomputed.apply(run, reference, *tensors)
    return run(*tensors)
