"""The part of the GPU backends' backward pass that sums over samples: products of PyTorch."""

from __future__ import annotations

from torch import Tensor


def map_gradients(grad: Tensor, given: Tensor, mix: str) -> tuple[Tensor, Tensor]:
    """(weight [N, M, M], bias [N, M]) of N maps, from the gradients of their results and what they were given.

    Args:
        grad, given: [N, B, C, T].
        mix: the axis that is mapped, "temporal" or "spatial".
    """
    if mix == "spatial":
        grad, given = grad.transpose(2, 3), given.transpose(2, 3)
    grad, given = grad.flatten(1, 2), given.flatten(1, 2)
    return grad.mT @ given, grad.sum(1)
