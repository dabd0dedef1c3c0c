"""The definition of ``temporal_networks``: plain differentiable PyTorch, one network and one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from ..strided_temporal_conv.reference import convolution


def split(depths: list[int], *lists: list) -> Iterator[tuple[list, ...]]:
    """The flat lists of all layers, network by network."""
    first = 0
    for depth in depths:
        yield tuple(values[first : first + depth] for values in lists)
        first += depth


def network(x: Tensor, weights, affines, slopes, residuals, taps) -> Tensor:
    """One chain of layers on [B, T, C]; see ``Layer``."""
    results = [x]
    for weight, affine, slope, residual, tap in zip(weights, affines, slopes, residuals, taps):
        y = convolution(results[-1], weight, None)
        scale, shift = affine.to(y.dtype)
        y = y * scale + shift
        if slope != 1:
            y = F.leaky_relu(y, slope)
        if residual >= -1:  # -1: the input
            other = results[residual + 1]
            y = y + other[:, tap :: other.shape[1] // y.shape[1]]
        results.append(y)
    return results[-1]


def temporal_networks(x, weight, affine, depths, slopes, residuals, taps) -> list[Tensor]:
    """Every network; the lists hold the layers of the first network, then those of the second, and so on."""
    parts = split(depths, weight, affine, slopes, residuals, taps)
    return [network(a, *part).contiguous() for a, part in zip(x, parts)]
