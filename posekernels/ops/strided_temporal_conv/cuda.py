"""``strided_temporal_conv`` in CUDA C++ (csrc/strided_temporal_conv/strided_temporal_conv_cuda.cu): one launch."""

from __future__ import annotations

from array import array
from functools import partial

import torch
from torch import Tensor

from ..._adapters import address, strided_address, table_of
from ..._cuda import launch, limits
from ...prepared import derived
from .groups import Group, groups_of, rows_of
from .products import strided_temporal_conv_backward as strided_temporal_conv_backward
from .reference import width_of

_MOST = 16  # groups of a launch
_SIDE = 64  # of a block's patch
_LEAST = 256  # depths that a block is worth


def _matrix(weight: Tensor) -> Tensor:
    """[Co, Ci, w] -> [Co, w * Ci], as windows lie in memory."""
    return (weight.permute(0, 2, 1).flatten(1) if weight.dim() == 3 else weight).detach().contiguous()


def _parts(ys: list[Tensor], depths: list[int], processors: int) -> tuple[int, int]:
    """(patches of the results, blocks that share the depths of one): so many that no processor goes without."""
    patches = sum(-(-y.shape[0] * y.shape[1] // _SIDE) * -(-y.shape[2] // _SIDE) for y in ys)
    return patches, max(1, min(processors // max(patches, 1), max(depths) // _LEAST))


def run(groups: list[Group]) -> list[Tensor]:
    """The results [B, T // w, Co] of networks side by side; sizes may differ from one to the next."""
    results = []
    for first in range(0, len(groups), _MOST):
        table, slopes, alive = array("q"), array("d"), []
        for group in groups[first : first + _MOST]:
            width, Co = width_of(group.weight), group.weight.shape[0]
            x, pitch = rows_of(group.x, width)
            weight = derived("windows in rows", partial(_matrix, group.weight), group.weight)
            vectors = [v if v is None else v.contiguous() for v in group[2:6]]
            y = x.new_empty(x.shape[0], x.shape[1] // width, Co)
            tensors = (x, weight, *vectors, y)
            table.extend((strided_address(x), *table_of(tensors[1:])))
            table.extend((y.shape[0] * y.shape[1], pitch, width * x.shape[2], Co, group.stride, group.tap))
            slopes.append(group.slope)
            alive.append(tensors)
            results.append(y)
        if any(tensors[-1].numel() for tensors in alive):
            x = alive[0][0]
            depths = [tensors[1].shape[1] for tensors in alive]
            patches, parts = _parts([tensors[-1] for tensors in alive], depths, limits(x).processors)
            shape = (patches, parts, _SIDE, _SIDE)
            sums = torch.empty(shape, dtype=torch.float32, device=x.device) if parts > 1 else None
            addresses = table.buffer_info()[0], slopes.buffer_info()[0]
            launch("strided_temporal_conv_cuda", x, *addresses, len(alive), parts, address(sums))
    return results


def strided_temporal_conv(*args) -> list[Tensor]:
    """As ``reference.strided_temporal_conv``."""
    return run(groups_of(*args))
