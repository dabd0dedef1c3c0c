"""The definition of ``graph_network``: plain differentiable PyTorch, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..graph_conv import reference

TENSORS = 4  # of a layer: weight, adjacency, modulation, affine
NAMES = tuple(reference.ACTIVATIONS)


def walk(
    graph_conv: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    tensors: list[Tensor],
    activations: list[int],
    residuals: list[int],
) -> Tensor:
    """[B, J, Cin] -> [B, J, Cout]; ``graph_conv`` is a backend's adapter of that op.

    Args:
        tensors: four of each layer, see ``GraphLayer``.
        activations: places in ``NAMES``.
        residuals: of each layer the one whose result it adds, -1 for the input, -2 for none.
    """
    results = [x]
    for i, (activation, residual) in enumerate(zip(activations, residuals)):
        weight, adjacency, modulation, affine = tensors[TENSORS * i : TENSORS * (i + 1)]
        other = results[residual + 1] if residual >= -1 else None
        y, _ = graph_conv(
            results[-1], weight, adjacency, None, modulation, affine[0], affine[1], other, NAMES[activation], False
        )
        results.append(y)
    return results[-1]


graph_network = partial(walk, reference.graph_conv)
