"""``temporal_networks`` on a GPU: step l of all networks is one launch of ``strided_temporal_conv``'s kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ...prepared import derived
from ..strided_temporal_conv.groups import Group
from ..strided_temporal_conv.reference import width_of
from .reference import split


def walk(
    run: Callable[[list[Group]], list[Tensor]], x, weight, affine, depths, slopes, residuals, taps
) -> list[Tensor]:
    """As ``reference.temporal_networks``; ``run`` is a backend's adapter of ``strided_temporal_conv``."""
    affine = [derived(("as", w.dtype), partial(Tensor.to, a, w.dtype), a) for a, w in zip(affine, weight)]
    networks = list(split(depths, weight, affine, slopes, residuals, taps))
    results = [[a] for a in x]  # of each network: its input, then its layers'
    for step in range(max(depths)):
        running = [n for n, depth in enumerate(depths) if depth > step]
        groups = []
        for n in running:
            w, (scale, shift), slope, residual, tap = (values[step] for values in networks[n])
            source = results[n][-1]
            other = results[n][residual + 1] if residual >= -1 else None
            stride = 1 if other is None else other.shape[1] * width_of(w) // source.shape[1]
            groups.append(Group(source, w, None, scale, shift, other, slope, stride, tap))
        for n, y in zip(running, run(groups)):
            results[n].append(y)
    return [made[-1] for made in results]
