"""The CUDA C++ kernels of ``graph_conv`` (csrc/graph_conv/graph_conv_cuda.cu): tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, contiguous
from ..._cuda import launch
from .reference import ACTIVATIONS

_SIDE = 64  # rows and columns of a block's tile
_KINDS = list(ACTIVATIONS)


def graph_conv(
    x, weight, adjacency, bias, modulation, scale, shift, residual, activation, keep
) -> tuple[Tensor, Tensor]:
    """As ``reference.graph_conv``."""
    (B, J, Cin), (K, _, Cout) = x.shape, weight.shape
    inputs = contiguous(x, weight, adjacency, bias, modulation, scale, shift, residual)
    y = x.new_empty(B, J, Cout)
    h = torch.empty_like(y) if keep else None
    if y.numel():
        launch("graph_conv_cuda", x, *addresses(*inputs, y, h), B, J, Cin, Cout, K, _KINDS.index(activation))
    return y, x.new_empty(0) if h is None else h


def graph_conv_backward(
    grad, h, x, weight, adjacency, bias, modulation, scale, shift, activation, needs
) -> list[Tensor]:
    """As ``reference.graph_conv_backward``. The kernels write partial sums, which are added up here."""
    (B, J, Cin), (K, _, Cout) = x.shape, weight.shape
    given = (x, weight, adjacency, bias, modulation, scale, shift)
    if not (B and Cin and Cout):
        return [torch.zeros_like(t, memory_format=torch.contiguous_format) for t, n in zip(given, needs) if n]
    inputs = contiguous(grad, h, x, weight, adjacency, modulation, scale, shift)
    poses = _SIDE // J
    blocks = -(-Cout // _SIDE)
    tiles = -(-B // poses)
    # Enough parts to fill the device about twice; the same on every device, so that results repeat.
    splits = max(1, min(tiles, 256 // (blocks * K)))

    def partial(wanted: bool, *shape: int) -> Tensor | None:
        return torch.empty(shape, dtype=torch.float32, device=x.device) if wanted else None

    grad_x = torch.empty_like(inputs[2]) if needs[0] else None
    weights = partial(needs[1], splits, K, Cin, Cout)
    graphs = partial(needs[2], splits, blocks, K, poses, J, J)
    modulations = partial(needs[4], splits, K, poses, J, Cout)
    columns = partial(needs[3] or needs[5] or needs[6], splits, 3, Cout)
    sums = addresses(grad_x, weights, graphs, modulations, columns)
    sizes = B, J, Cin, Cout, K, _KINDS.index(activation), splits
    launch("graph_conv_backward_cuda", x, *addresses(*inputs), *sums, *sizes)
    found = [
        grad_x,
        weights.sum(0) if needs[1] else None,
        graphs.sum((0, 1, 3)) if needs[2] else None,
        columns[:, 0].sum(0) if needs[3] else None,
        modulations.sum((0, 1, 2)) if needs[4] else None,
        columns[:, 1].sum(0) if needs[5] else None,
        columns[:, 2].sum(0) if needs[6] else None,
    ]
    return [g.to(x.dtype) for g, needed in zip(found, needs) if needed]
